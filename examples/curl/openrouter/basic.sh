#!/usr/bin/env bash
# Embed one text, as on OpenRouter's page.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}" "${TESSERA_API_KEY:=none}"
: "${TESSERA_MODEL:=sentence-transformers/all-MiniLM-L6-v2}"

curl "$TESSERA_URL/api/v1/embeddings" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer $TESSERA_API_KEY" \
  -d '{
    "model": "'"$TESSERA_MODEL"'",
    "input": "The quick brown fox jumps over the lazy dog"
  }'
