#!/usr/bin/env bash
# List the served models, as on the embedding NIM's page.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}"

curl "$TESSERA_URL/v1/models" \
  -H 'Accept: application/json'
