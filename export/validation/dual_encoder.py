"""Dual encoders against transformers' own model and image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel

from export.architectures import GraphFiles
from export.checkpoint import Checkpoint
from export.names import EMBEDDER, VISION_ENCODER
from export.sample_texts import SAMPLE_TEXTS
from export.spec import ImageTowerSpec, ModelSpec, Target
from export.tokenizer import load_tokenizer
from export.validation import Agreement, Inputs, compare_embeddings, pack, run_graph
from export.validation.nemotron_vl import paint_pages

_IMAGES = 3


def compare_with_transformers(
    checkpoint: Checkpoint, spec: ModelSpec, image: ImageTowerSpec, tokenizer: bytes, files: GraphFiles, target: Target
) -> Agreement:
    """Embed texts and images with the written graphs, in one packed batch each, and with transformers."""
    loaded = load_tokenizer(tokenizer)
    loaded.enable_truncation(spec.max_tokens)
    ids = [encoding.ids for encoding in loaded.encode_batch(SAMPLE_TEXTS)]
    images = paint_pages(_IMAGES, image.shortest_edge or image.image_size)  # which the processor does not resize
    texts = run_graph(files[EMBEDDER], target, "embeddings", pack(ids))
    found = [texts, _embed_images(files, target, images, image)]
    expected = embed_with_transformers(checkpoint, ids, [Image.fromarray(pixels) for pixels in images])
    return compare_embeddings(np.concatenate(found), np.concatenate(expected))


def embed_with_transformers(
    checkpoint: Checkpoint, input_ids: Sequence[Sequence[int]], images: Sequence[Image.Image]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed texts, one at a time, and RGB images.

    Args:
        checkpoint: The files.
        input_ids: Token ids of each text, padding included if the model attends to it.
        images: Of any size.

    Returns:
        Embeddings of the texts and of the images, `(texts, dimensions)` and `(images, dimensions)`, of length 1.
    """
    folder = checkpoint.folder
    model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32).eval()
    load_processor: Any = AutoImageProcessor.from_pretrained
    processor = load_processor(folder, trust_remote_code=False, use_fast=False)
    with torch.inference_mode():
        texts = torch.cat([model.get_text_features(torch.tensor([ids])) for ids in input_ids])
        pixels = processor(list(images), return_tensors="pt")["pixel_values"]
        pictures = model.get_image_features(pixels)
    embeddings = (nn.functional.normalize(vectors, dim=-1).numpy() for vectors in (texts, pictures))
    return next(embeddings), next(embeddings)


def _embed_images(
    files: GraphFiles, target: Target, images: NDArray[np.uint8], image: ImageTowerSpec
) -> NDArray[np.float32]:
    """Embed the middle of images `(images, height, width, 3)`."""
    side, patch = image.image_size // image.patch_size, image.patch_size
    start = (images.shape[1] - image.image_size) // 2
    end = start + side * patch
    whole = images[:, start:end, start:end]
    patches = whole.reshape(-1, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    inputs: Inputs = {"patches": patches.ravel(), "image_rows": np.full(len(images), side * side, np.int32)}
    return run_graph(files[VISION_ENCODER], target, "embeddings", inputs)
