#!/usr/bin/env bash
# Ask whether the server is ready, as the embedding NIM's page does it.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}"

curl "$TESSERA_URL/v1/health/ready" \
  -H 'Accept: application/json'
