#!/usr/bin/env bash
# Check that the server is alive, as on the embedding NIM's page.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}"

curl "$TESSERA_URL/v1/health/live" \
  -H 'Accept: application/json'
