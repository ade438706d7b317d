// Call OpenAI's Node client in every way that differs on the wire, and print the results as one JSON object.
import OpenAI from 'openai';

const model = process.env.TESSERA_MODEL!;
const client = new OpenAI({ baseURL: `${process.env.TESSERA_URL}/v1`, apiKey: 'any', maxRetries: 0 });

async function embed(options: object) {
  return (await client.embeddings.create({ model, input: ['Hello', 'Dogs are loyal companions'], ...options })).data;
}

async function refuse(options: object) {
  try {
    await embed(options);
    return null;
  } catch (error: any) {
    return {
      class: error.constructor.name,
      status: error.status,
      type: error.type,
      param: error.param,
      code: error.code,
      message: error.message,
      requestId: error.requestID,
    };
  }
}

const models = [];
for await (const served of client.models.list()) models.push(served.id);

console.log(JSON.stringify({
  asIs: await embed({}),
  float: await embed({ encoding_format: 'float' }),
  base64: await embed({ encoding_format: 'base64' }),
  cut: await embed({ dimensions: 64, user: 'user-1' }),
  tokens: await embed({ input: [[101, 7592, 102], [101, 102]] }),
  unknownModel: await refuse({ model: 'wrong-model' }),
  blank: await refuse({ input: ' ' }),
  tooWide: await refuse({ dimensions: 100000 }),
  models,
}));
