#!/usr/bin/env bash
# Order documents by their relevance to a query, in Cohere's format.
set -euo pipefail
: "${TESSERA_URL:=http://127.0.0.1:8000}"
: "${TESSERA_MODEL:=cross-encoder/ms-marco-MiniLM-L6-v2}"

curl "$TESSERA_URL/v2/rerank" \
  -H 'Content-Type: application/json' \
  -d '{
    "model": "'"$TESSERA_MODEL"'",
    "query": "Which animal is loyal?",
    "documents": ["Cats sleep all day", "Dogs are loyal companions", "Fish swim"],
    "top_n": 2
}'
