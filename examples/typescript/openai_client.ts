// Use OpenAI's own client with another base URL.
import OpenAI from 'openai';

const url = process.env.TESSERA_URL ?? 'http://127.0.0.1:8000';
const apiKey = process.env.TESSERA_API_KEY ?? 'none';
const model = process.env.TESSERA_MODEL ?? 'sentence-transformers/all-MiniLM-L6-v2';

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });

const response = await client.embeddings.create({
  model,
  input: ['Dogs are loyal companions', 'The weather is sunny today'],
  dimensions: 64,
});

response.data.forEach((entry) => {
  console.log(`Embedding ${entry.index}: ${entry.embedding.length} dimensions`);
});
