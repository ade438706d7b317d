// Embed one text, as on OpenRouter's page with its SDK.
import { OpenRouter } from '@openrouter/sdk';

const url = process.env.TESSERA_URL ?? 'http://127.0.0.1:8000';
const apiKey = process.env.TESSERA_API_KEY ?? 'none';
const model = process.env.TESSERA_MODEL ?? 'sentence-transformers/all-MiniLM-L6-v2';

const openRouter = new OpenRouter({
  apiKey,
  serverURL: `${url}/api/v1`,
});

const response = await openRouter.embeddings.generate({
  model,
  input: 'The quick brown fox jumps over the lazy dog',
});

console.log(response.data[0].embedding);
