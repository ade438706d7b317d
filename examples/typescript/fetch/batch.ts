// Embed several texts in one request, as on OpenRouter's page.
const url = process.env.TESSERA_URL ?? 'http://127.0.0.1:8000';
const apiKey = process.env.TESSERA_API_KEY ?? 'none';
const model = process.env.TESSERA_MODEL ?? 'sentence-transformers/all-MiniLM-L6-v2';

const response = await fetch(`${url}/api/v1/embeddings`, {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${apiKey}`,
    'Content-Type': 'application/json',
  },
  body: JSON.stringify({
    model,
    input: [
      'Machine learning is a subset of artificial intelligence',
      'Deep learning uses neural networks with multiple layers',
      'Natural language processing enables computers to understand text'
    ],
  }),
});

const data = await response.json();
data.data.forEach((item, index) => {
  console.log(`Embedding ${index}: ${item.embedding.length} dimensions`);
});
