"""The flagship's configs without its weights, to be read and reviewed: `model_repository/`.

`python -m export.flagship` writes them again. An export adds what depends on the weights: the fingerprint and the
manifest.
"""

from __future__ import annotations

from pathlib import Path

from export.repository import write_configs
from export.serving import ServedModel
from export.spec import Identity, ImageSpec, ModelSpec

TRACKED_REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

# From the published checkpoint's config.json, processor_config.json and tokenizer.json.
FLAGSHIP = ServedModel(
    Identity("nvidia/llama-nemotron-embed-vl-1b-v2"),
    ModelSpec(
        architecture="llama_nemotron_vl",
        dimensions=2048,
        vocab_size=128259,
        max_query_tokens=10240,
        max_passage_tokens=10240,
        pooling="mean",
        query_prefix="query: ",
        passage_prefix="passage: ",
        image_embeds_dim=2048,
        image=ImageSpec(
            token_id=128258,
            prefix="<img>",
            suffix="</img> ",
            tile_size=512,
            max_tiles=6,
            use_thumbnail=True,
            tokens_per_tile=256,
        ),
    ),
)

if __name__ == "__main__":
    write_configs(TRACKED_REPOSITORY, FLAGSHIP)
