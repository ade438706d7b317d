"""The golden inputs of the tiny checkpoint, preprocessed for the graphs in the plainest way."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

CHECKPOINT = Path(__file__).parents[1] / "data" / "tiny-checkpoint"
CONFIG = json.loads((CHECKPOINT / "config.json").read_text())
TILE, TOKENS_PER_TILE = 512, 256


@dataclass(frozen=True)
class GoldenInput:
    """Token ids `(tokens,)`, patches `(rows, 3072)` uint8, none for a text, and the expected embedding."""

    input_ids: np.ndarray
    patches: np.ndarray
    embedding: np.ndarray


def load_golden_inputs() -> list[GoldenInput]:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    records = json.loads((CHECKPOINT / "golden.json").read_text())
    inputs = []
    for record, embedding in zip(records, np.load(CHECKPOINT / "golden.npy"), strict=True):
        patches = cut_patches(CHECKPOINT / record["image"]) if record["image"] else np.zeros((0, 3072), np.uint8)
        input_ids = encode(tokenizer, record, len(patches))
        assert len(patches) == record["tiles"] * TOKENS_PER_TILE
        assert len(input_ids) == record["prompt_tokens"]
        inputs.append(GoldenInput(input_ids, patches, embedding))
    return inputs


def encode(tokenizer: Tokenizer, record: dict[str, str], image_tokens: int) -> np.ndarray:
    if not image_tokens:
        return np.array(tokenizer.encode(f"{record['input_type']}: {record['text']}").ids)
    before = tokenizer.encode("passage: <img>").ids
    after = tokenizer.encode(f"</img> {record['text']}", add_special_tokens=False).ids
    return np.array([*before, *[CONFIG["img_context_token_id"]] * image_tokens, *after])


def cut_patches(path: Path) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    columns, rows = choose_grid(image.width / image.height, image.width * image.height)
    resized = np.asarray(image.resize((columns * TILE, rows * TILE), Image.Resampling.BICUBIC))
    tiles = [
        resized[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        for row in range(rows)
        for column in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append(np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC)))
    return np.concatenate([cut_tile(tile) for tile in tiles])


def choose_grid(aspect: float, area: int) -> tuple[int, int]:
    """Return the first grid with the best score, in order of area."""
    grids = [(c, r) for c in range(1, 7) for r in range(1, 7) if c * r <= CONFIG["max_input_tiles"]]

    def score(grid: tuple[int, int]) -> float:
        ratio = grid[0] / grid[1]
        return min(grid[0] * grid[1] * TILE**2 / area, 0.6) * min(ratio / aspect, aspect / ratio)

    return max(sorted(grids, key=lambda grid: grid[0] * grid[1]), key=score)


def cut_tile(tile: np.ndarray) -> np.ndarray:
    """Cut a tile `(512, 512, 3)` into rows `(256, 3072)`: blocks of 2 x 2 patches of 16 x 16 pixels."""
    blocks = tile.reshape(16, 2, 16, 16, 2, 16, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    return blocks.reshape(TOKENS_PER_TILE, 3072)
