// List the embedding models, as on OpenRouter's page.
const url = process.env.TESSERA_URL ?? 'http://127.0.0.1:8000';
const apiKey = process.env.TESSERA_API_KEY ?? 'none';

const response = await fetch(`${url}/api/v1/embeddings/models`, {
  headers: {
    'Authorization': `Bearer ${apiKey}`,
  },
});

const models = await response.json();
console.log(models.data);
