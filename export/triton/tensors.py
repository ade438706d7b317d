"""The tensors that the models exchange, and their entries in a Triton config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

_TYPES: Mapping[str, int] = {
    "BYTES": pb.DataType.TYPE_STRING,
    "INT32": pb.DataType.TYPE_INT32,
    "INT64": pb.DataType.TYPE_INT64,
    "UINT8": pb.DataType.TYPE_UINT8,
    "FP32": pb.DataType.TYPE_FP32,
}


@dataclass(frozen=True)
class Tensor:
    """A named tensor; `dims` omits the leading 1 of every request shape."""

    name: str
    type: str
    dims: tuple[int, ...] = (-1,)
    optional: bool = False

    @property
    def data_type(self) -> int:
        """Triton's number for the type."""
        return _TYPES[self.type]

    def as_input(self, *, ragged: bool) -> pb.ModelInput:
        """Return the config entry of an input; `ragged` allows requests of different lengths in a batch."""
        return pb.ModelInput(
            name=self.name,
            data_type=self.data_type,
            dims=self.dims,
            allow_ragged_batch=ragged,
            optional=self.optional,
        )

    def as_output(self) -> pb.ModelOutput:
        """Return the config entry of an output."""
        return pb.ModelOutput(name=self.name, data_type=self.data_type, dims=self.dims)


def image_embeds(width: int) -> Tensor:
    """Return a tensor with one row of `width` numbers for each image token."""
    return Tensor("image_embeds", "FP32", (-1, width))


def patches(bytes_per_row: int) -> Tensor:
    """Return a tensor with one row of so many bytes for each image token, or for each patch of an image tower."""
    return Tensor("patches", "UINT8", (-1, bytes_per_row))


def embeddings(dimensions: int) -> Tensor:
    """Return a tensor with one row of `dimensions` numbers for each item."""
    return Tensor("embeddings", "FP32", (-1, dimensions))


SCORES = Tensor("scores", "FP32")
INPUT_IDS = Tensor("input_ids", "INT64")
TOKEN_TYPES = Tensor("token_types", "INT64")
SEQUENCE_LENGTHS = Tensor("sequence_lengths", "INT32")
IMAGE_ROWS = Tensor("image_rows", "INT32")
TOKEN_COUNTS = Tensor("token_counts", "INT32")
UNTRUNCATED_TOKEN_COUNTS = Tensor("untruncated_token_counts", "INT32")
IMAGE_TOKEN_COUNTS = Tensor("image_token_counts", "INT32")
TILE_COUNTS = Tensor("tile_counts", "INT32")
PAGE_COUNTS = Tensor("page_counts", "INT32")
ERRORS = Tensor("errors", "BYTES")

TRUNCATE = Tensor("truncate", "BYTES", (1,), optional=True)
TEXT = Tensor("text", "BYTES")
IMAGE = Tensor("image", "BYTES")
QUERY = Tensor("query", "BYTES", (1,))
TEXT_INPUTS = (
    TEXT,
    Tensor("input_type", "BYTES", (1,), optional=True),
    Tensor("prompt", "BYTES", (1,), optional=True),
    TRUNCATE,
    Tensor("token_ids", "INT64", optional=True),
    Tensor("token_id_counts", "INT32", optional=True),
    Tensor("token_id_policy", "BYTES", (1,), optional=True),
)
TEXT_RESULTS = (TOKEN_COUNTS, UNTRUNCATED_TOKEN_COUNTS, ERRORS)
TEXT_BESIDE_IMAGE = Tensor("text", "BYTES", optional=True)
IMAGE_INPUTS = (IMAGE, Tensor("page", "INT32", optional=True), TEXT_BESIDE_IMAGE, TRUNCATE)
RANK_INPUTS = (QUERY, TEXT, TRUNCATE)
RANK_IMAGE_INPUTS = (QUERY, *IMAGE_INPUTS)
IMAGE_RESULTS = (TOKEN_COUNTS, UNTRUNCATED_TOKEN_COUNTS, IMAGE_TOKEN_COUNTS, TILE_COUNTS, PAGE_COUNTS, ERRORS)
