#!/usr/bin/env bash
# List the embedding models, as on OpenRouter's page.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}" "${TESSERA_API_KEY:=none}"

curl "$TESSERA_URL/api/v1/embeddings/models" \
  -H "Authorization: Bearer $TESSERA_API_KEY"
