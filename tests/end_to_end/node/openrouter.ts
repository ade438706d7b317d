// Call the newest OpenRouter SDK, which validates every response, and print the results as one JSON object.
import { OpenRouter } from '@openrouter/sdk';

const model = process.env.TESSERA_MODEL!;
const client = new OpenRouter({ apiKey: 'any', serverURL: `${process.env.TESSERA_URL}/api/v1` });

async function embed(options: object) {
  return client.embeddings.generate({ requestBody: { model, input: 'Hello', ...options } });
}

async function refuse(options: object) {
  try {
    await embed(options);
    return null;
  } catch (error: any) {
    return { class: error.constructor.name, status: error.statusCode, message: error.message };
  }
}

const image = { type: 'image_url', imageUrl: { url: process.env.IMAGE_URL! } };
const text = { type: 'text', text: 'A scenic boardwalk through a green meadow' };

const page = await client.embeddings.listModels();

console.log(JSON.stringify({
  text: await embed({}),
  blocks: await embed({ input: [{ content: [text, image] }, { content: [image] }] }),
  options: await embed({ dimensions: 48, encodingFormat: 'base64', inputType: 'search_query', user: 'user-1' }),
  preferences: await embed({ provider: { allowFallbacks: true, dataCollection: 'deny', sort: 'price' } }),
  unknownModel: await refuse({ model: 'wrong-model' }),
  blank: await refuse({ input: ' ' }),
  otherProvider: await refuse({ provider: { only: ['azure'] } }),
  models: page.result.data.map((served) => served.id),
}));
