#!/usr/bin/env bash
# Embed a text query, as on the embedding NIM's page.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}"
: "${TESSERA_MODEL:=tiny/llama-nemotron-embed-vl}"

curl -X "POST" \
  "$TESSERA_URL/v1/embeddings" \
  -H 'accept: application/json' \
  -H 'Content-Type: application/json' \
  -d '{
    "input": ["What is NVIDIA?"],
    "model": "'"$TESSERA_MODEL"'",
    "input_type": "query",
    "modality": "text",
    "embedding_type": "float",
    "encoding_format": "float"
}'
