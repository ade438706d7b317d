// Embed one text, as on OpenRouter's page.
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
    input: 'The quick brown fox jumps over the lazy dog',
  }),
});

const data = await response.json();
const embedding = data.data[0].embedding;
console.log(`Embedding dimension: ${embedding.length}`);
