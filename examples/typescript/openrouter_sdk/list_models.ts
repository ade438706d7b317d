// List the embedding models, as on OpenRouter's page with its SDK.
import { OpenRouter } from '@openrouter/sdk';

const url = process.env.TESSERA_URL ?? 'http://127.0.0.1:8000';
const apiKey = process.env.TESSERA_API_KEY ?? 'none';

const openRouter = new OpenRouter({
  apiKey,
  serverURL: `${url}/api/v1`,
});

const models = await openRouter.embeddings.listModels();
console.log(models.data);
