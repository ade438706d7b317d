#!/usr/bin/env bash
# Embed an image by its URL, as on OpenRouter's page.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}" "${TESSERA_API_KEY:=none}"
: "${TESSERA_MODEL:=tiny/llama-nemotron-embed-vl}"
: "${IMAGE_URL:=https://upload.wikimedia.org/wikipedia/commons/thumb/d/dd/Gfp-wisconsin-madison-the-nature-boardwalk.jpg/640px-Gfp-wisconsin-madison-the-nature-boardwalk.jpg}"

curl "$TESSERA_URL/api/v1/embeddings" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer $TESSERA_API_KEY" \
  -d '{
    "model": "'"$TESSERA_MODEL"'",
    "input": [
      {
        "content": [
          {"type": "image_url", "image_url": {"url": "'"$IMAGE_URL"'"}}
        ]
      }
    ],
    "encoding_format": "float"
  }'
