// Embed a text and an image as one item, as on OpenRouter's page.
const url = process.env.TESSERA_URL ?? 'http://127.0.0.1:8000';
const apiKey = process.env.TESSERA_API_KEY ?? 'none';
const model = process.env.TESSERA_MODEL ?? 'tiny/llama-nemotron-embed-vl';
const imageUrl = process.env.IMAGE_URL ??
  'https://upload.wikimedia.org/wikipedia/commons/thumb/d/dd/Gfp-wisconsin-madison-the-nature-boardwalk.jpg/640px-Gfp-wisconsin-madison-the-nature-boardwalk.jpg';

const response = await fetch(`${url}/api/v1/embeddings`, {
  method: 'POST',
  headers: {
    'Authorization': `Bearer ${apiKey}`,
    'Content-Type': 'application/json',
  },
  body: JSON.stringify({
    model,
    input: [
      {
        content: [
          { type: 'text', text: 'A scenic boardwalk through a green meadow' },
          { type: 'image_url', image_url: { url: imageUrl } }
        ]
      }
    ],
    encoding_format: 'float',
  }),
});

const data = await response.json();
const embedding = data.data[0].embedding;
console.log(`Embedding dimension: ${embedding.length}`);
