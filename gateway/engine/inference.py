"""One chunk of a batch as an inference request to an ensemble, and back (`docs/contract.md`)."""

from collections.abc import Mapping, Sequence

import numpy as np

from gateway.engine.chunking import Chunk
from gateway.engine.discovery import TritonModel
from gateway.engine.failures import read_failures
from gateway.engine.interface import EmbedBatch, Embedded, ItemFailure
from gateway.engine.tensors import InferRequest, InferResponse
from gateway.items import Item, PicturedItem, TextImageItem, TextItem, TokensItem


def build_request(model: TritonModel, batch: EmbedBatch, chunk: Chunk) -> InferRequest:
    """The inference request of a chunk. What has its default value is left out."""
    request = InferRequest(model.ensembles[chunk.modality].name)
    items = [batch.items[index] for index in chunk.indices]
    if chunk.modality == "text":
        add_texts(request, items)
        if batch.input_type != "passage":
            request.add_bytes("input_type", [batch.input_type.encode()])
    else:
        add_images(request, items)
    if batch.truncate != "NONE":
        request.add_bytes("truncate", [batch.truncate.encode()])
    return request


def add_texts(request: InferRequest, items: Sequence[Item]) -> None:
    """Adds the inputs of a text ensemble: texts, and token ids where an item has them."""
    request.add_bytes("text", [item.text.encode() if isinstance(item, TextItem) else b"" for item in items])
    token_ids = [item.token_ids if isinstance(item, TokensItem) else [] for item in items]
    if any(token_ids):
        request.add_integers("token_ids", "INT64", np.concatenate([np.array(ids, np.int64) for ids in token_ids]))
        request.add_integers("token_id_counts", "INT32", np.array([len(ids) for ids in token_ids]))


def add_images(request: InferRequest, items: Sequence[Item]) -> None:
    """Adds the inputs of an image ensemble: encoded pictures, and the texts beside them if there are any."""
    pictured = [item for item in items if isinstance(item, PicturedItem)]
    request.add_bytes("image", [item.image for item in pictured if isinstance(item.image, bytes)])
    texts = [item.text.encode() if isinstance(item, TextImageItem) else b"" for item in pictured]
    if any(texts):
        request.add_bytes("text", texts)


def read_answer(response: InferResponse, chunk: Chunk, dimensions: int) -> Embedded:
    """The vectors and counts of a chunk.

    Raises:
        EngineFaultError: an output is missing or has another shape.
    """
    count = len(chunk.indices)
    nothing = np.zeros(count, np.int32)
    pictured = chunk.modality == "image"
    return Embedded(
        embeddings=response.array("embeddings", (count, dimensions)),
        token_counts=response.array("token_counts", (count,)),
        image_token_counts=response.array("image_token_counts", (count,)) if pictured else nothing,
        tile_counts=response.array("tile_counts", (count,)) if pictured else nothing,
        failures=read_failures(response.texts("errors", count)),
    )


def all_failed(failures: Mapping[int, ItemFailure], count: int, dimensions: int) -> Embedded:
    """The answer to a chunk none of whose items could be embedded."""
    nothing = np.zeros(count, np.int32)
    return Embedded(np.full((count, dimensions), np.nan, np.float32), nothing, nothing, nothing, failures)
