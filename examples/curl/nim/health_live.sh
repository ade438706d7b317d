#!/usr/bin/env bash
# Ask whether the server is alive, as the embedding NIM's page does it.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}"

curl "$TESSERA_URL/v1/health/live" \
  -H 'Accept: application/json'
