"""The flagship's configs without its weights: what an export of it will write, to be read and reviewed.

`python -m export.blueprint` renders them anew into `model_repository`. An export adds what only the weights can tell:
the fingerprint and the manifest.
"""

from __future__ import annotations

from pathlib import Path

from export.manifest import CONFIG
from export.spec import Identity, ImageSpec, ModelSpec, ServedModel
from export.triton import render_repository, to_text

TRACKED_REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

# The numbers of the published checkpoint's config.json, processor_config.json and tokenizer.json.
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


def write_blueprint(model: ServedModel, repository: Path) -> None:
    """Write the `config.pbtxt` of each Triton model of `model` below `repository`."""
    for name, config in render_repository(model).items():
        (repository / name).mkdir(parents=True, exist_ok=True)
        (repository / name / CONFIG).write_text(to_text(config), "utf-8")


if __name__ == "__main__":
    write_blueprint(FLAGSHIP, TRACKED_REPOSITORY)
