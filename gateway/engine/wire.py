"""The wire format between gateway and Triton: batches as inference requests, and back (`docs/contract.md`).

Written over the generated protobuf messages: tritonclient's `InferInput` and `InferResult` want NumPy object arrays for
BYTES and search lists by name.
"""

import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from gateway.engine.chunking import Chunk
from gateway.engine.discovery import Ensemble
from gateway.engine.interface import Counts, EmbedBatch, EmbedResult, ItemFailure, ServedModel, TokenizeResult
from gateway.errors import EngineFaultError
from gateway.types import ImageItem, Item, ItemWithImage, TextImageItem, TextItem, TokensItem

BYTES_LENGTH = struct.Struct("<I")
"""Precedes each element of a BYTES tensor."""

DTYPE_OF_TRITON: Mapping[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}

ITEM_CODES = (
    "text_too_long",
    "text_invalid",
    "token_id_invalid",
    "image_invalid",
    "image_unsupported",
    "image_too_large",
    "pdf_invalid",
)
REQUEST_CODE = "parameter_invalid"

FAILURE = re.compile(rf"\b({'|'.join((*ITEM_CODES, REQUEST_CODE))}): ([^\n]*)")
"""How the preprocessing step reports what is wrong with an item: `code: message`."""

MAX_MESSAGE_CHARS = 500

MICROSECONDS = 1_000_000
"""In a second; Triton's unit of timeouts."""


def build_request(ensemble: Ensemble, batch: EmbedBatch, chunk: Chunk, *, only_tokenize: bool = False) -> Any:
    """Return the ModelInferRequest of a chunk; options with their default value are left out.

    Args:
        ensemble: Of the chunk's modality.
        batch: The items and their options.
        chunk: Which items.
        only_tokenize: Ask the ensemble's first step alone, for counts and token ids.

    Raises:
        DeadlineError: The deadline of a batch with images has passed.
    """
    request: Any = service_pb2.ModelInferRequest(model_name=ensemble.name, model_version=ensemble.version)
    if only_tokenize:
        request.model_name, request.model_version = ensemble.preprocessing, ""
        has_tokens = "text" in ensemble.inputs  # images for a tower of their own have none
        token_outputs = ("input_ids", "sequence_lengths") if has_tokens else ()
        for name in (*token_outputs, *(ensemble.outputs - {"embeddings", "scores"})):
            request.outputs.add(name=name)
    items = [batch.items[index] for index in chunk.indices]
    if batch.query is not None:
        add_bytes(request, "query", [batch.query.encode()])
    if chunk.modality == "text":
        add_texts(request, items)
        if batch.input_type != "passage":
            add_bytes(request, "input_type", [batch.input_type.encode()])
        if batch.prompt is not None:
            add_bytes(request, "prompt", [batch.prompt.encode()])
        if not batch.check_token_ids and "token_id_policy" in ensemble.inputs:
            add_bytes(request, "token_id_policy", [b"any"])
    else:
        add_images(request, items)
        if batch.deadline is not None:  # images that are not decoded by then are skipped
            request.parameters["timeout"].int64_param = math.ceil(batch.deadline.remaining_s() * MICROSECONDS)
    if batch.truncate != "NONE":
        add_bytes(request, "truncate", [batch.truncate.encode()])
    return request


def add_texts(request: Any, items: Sequence[Item]) -> None:
    """Add the inputs of a text ensemble: texts, and token ids where an item has them."""
    add_bytes(request, "text", [item.text.encode() if isinstance(item, TextItem) else b"" for item in items])
    token_ids = [item.token_ids if isinstance(item, TokensItem) else [] for item in items]
    if any(token_ids):
        add_integers(request, "token_ids", "INT64", np.concatenate([np.array(ids, np.int64) for ids in token_ids]))
        add_integers(request, "token_id_counts", "INT32", np.array([len(ids) for ids in token_ids]))


def add_images(request: Any, items: Sequence[Item]) -> None:
    """Add the inputs of an image ensemble: encoded images, and the texts beside them if there are any."""
    with_image = [item for item in items if isinstance(item, ItemWithImage)]
    files = [item.file for item in with_image if isinstance(item.file, bytes)]
    pages = [item.page if isinstance(item, ImageItem) else 0 for item in with_image]
    if any(pages):
        add_integers(request, "page", "INT32", np.array(pages))
        # Neighbouring pages of one PDF: only the first carries it.
        repeats = [
            page > 0 and file is before for page, file, before in zip(pages, files, [None, *files], strict=False)
        ]
        files = [b"" if repeated else file for file, repeated in zip(files, repeats, strict=True)]
    add_bytes(request, "image", files)
    texts = [item.text.encode() if isinstance(item, TextImageItem) else b"" for item in with_image]
    if any(texts):
        add_bytes(request, "text", texts)


def add_bytes(request: Any, name: str, values: Sequence[bytes]) -> None:
    """Add a BYTES input of shape `[1, n]`."""
    request.inputs.add(name=name, datatype="BYTES", shape=(1, len(values)))
    request.raw_input_contents.append(encode_bytes(values))


def add_integers(request: Any, name: str, datatype: str, values: npt.NDArray[Any]) -> None:
    """Add an INT32 or INT64 input of shape `[1, n]` from a vector of n."""
    request.inputs.add(name=name, datatype=datatype, shape=(1, len(values)))
    request.raw_input_contents.append(values.astype(DTYPE_OF_TRITON[datatype]).tobytes())


def read_response(message: Any, chunk: Chunk, model: ServedModel) -> EmbedResult:
    """Return the vectors, or scores, and the counts of a chunk.

    Args:
        message: A `ModelInferResponse` with raw contents.
        chunk: What the request carried.
        model: That computed them.

    Raises:
        EngineFaultError: An output is missing or has another shape.
    """
    response = ResponseReader(message)
    count = len(chunk.indices)
    name, shape = ("scores", (count,)) if model.task == "rank" else ("embeddings", (count, model.dimensions))
    vectors = response.array(name, shape).reshape(count, model.dimensions)
    return EmbedResult(vectors, *read_counts(response, chunk), read_failures(response.texts("errors", count)))


def read_tokens(message: Any, chunk: Chunk) -> TokenizeResult:
    """Return the token ids and counts of a chunk that was only tokenised.

    Raises:
        EngineFaultError: An output is missing or has another shape.
    """
    response = ResponseReader(message)
    counts = read_counts(response, chunk)
    shape = (len(chunk.indices),)
    token_ids: list[list[int]] = [[] for _ in chunk.indices]
    if chunk.modality == "text" or "input_ids" in response:
        lengths = response.array("sequence_lengths", shape)
        ids = response.array("input_ids", (int(lengths.sum()),))
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        token_ids = [part[:count].tolist() for part, count in zip(parts, counts[0], strict=True)]  # without padding
    pages = np.zeros(shape, np.int32)
    if "page_counts" in response:
        pages = response.array("page_counts", shape)
    return TokenizeResult(token_ids, *counts, pages, read_failures(response.texts("errors", len(chunk.indices))))


def read_counts(response: "ResponseReader", chunk: Chunk) -> tuple[Counts, Counts, Counts, Counts]:
    """Return the counts of tokens, of tokens before truncation, of image tokens, and of tiles."""
    shape = (len(chunk.indices),)
    tokens = response.array("token_counts", shape)
    untruncated = tokens
    if "untruncated_token_counts" in response:  # which older exports do not report
        untruncated = response.array("untruncated_token_counts", shape)
    if chunk.modality == "text":
        zeros = np.zeros(shape, np.int32)
        return tokens, untruncated, zeros, zeros
    return tokens, untruncated, response.array("image_token_counts", shape), response.array("tile_counts", shape)


class ResponseReader:
    """A ModelInferResponse, read by output name."""

    def __init__(self, message: Any) -> None:
        raws = message.raw_output_contents
        self._outputs = {output.name: (output, raw) for output, raw in zip(message.outputs, raws, strict=False)}

    def __contains__(self, name: str) -> bool:
        """Return whether there is such an output."""
        return name in self._outputs

    def array(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a numeric output, read-only.

        Args:
            name: Of the output.
            shape: The shape it must have, without Triton's leading 1.

        Raises:
            EngineFaultError: The output is missing, or of another shape or size.
        """
        if name not in self._outputs:
            raise EngineFaultError(f"output {name} is missing")
        output, raw = self._outputs[name]
        if tuple(output.shape) != (1, *shape) or output.datatype not in DTYPE_OF_TRITON:
            found = f"{output.datatype} {list(output.shape)}"
            raise EngineFaultError(f"output {name} is {found}, where {[1, *shape]} was expected")
        values: npt.NDArray[Any] = np.frombuffer(raw, dtype=DTYPE_OF_TRITON[output.datatype])
        if values.size != math.prod(shape):
            raise EngineFaultError(f"output {name} has {values.size} values, where its shape promises {list(shape)}")
        return values.reshape(shape)

    def texts(self, name: str, count: int) -> list[str]:
        """Return a BYTES output of UTF-8, or empty texts where the output is absent.

        Raises:
            EngineFaultError: It has another number of elements than `count`.
        """
        if name not in self._outputs:
            return [""] * count
        return [value.decode("utf-8", "replace") for value in decode_bytes(self._outputs[name][1], count)]


def encode_bytes(values: Iterable[bytes]) -> bytes:
    """Return the content of a BYTES tensor."""
    return b"".join([part for value in values for part in (BYTES_LENGTH.pack(len(value)), value)])


def decode_bytes(raw: bytes, count: int) -> list[bytes]:
    """Return the elements of a BYTES tensor.

    Args:
        raw: Its content.
        count: How many elements its shape promises.

    Raises:
        EngineFaultError: The content does not hold exactly that many.
    """
    values = []
    offset = 0
    try:
        for _ in range(count):
            (length,) = BYTES_LENGTH.unpack_from(raw, offset)
            offset += BYTES_LENGTH.size
            values.append(raw[offset : offset + length])
            offset += length
    except struct.error as error:
        raise EngineFaultError(f"a BYTES output has fewer than {count} elements") from error
    if offset != len(raw):
        raise EngineFaultError(f"a BYTES output does not hold {count} elements")
    return values


def read_failures(entries: Sequence[str]) -> dict[int, ItemFailure]:
    """Return the failed items of a response, by index.

    Args:
        entries: The `errors` output: one entry per item, empty where it succeeded. An entry without a known code
            becomes a failure with an empty code.
    """
    return {index: read_failure(entry) for index, entry in enumerate(entries) if entry}


def read_failure(entry: str) -> ItemFailure:
    """Read one entry of an `errors` output."""
    found = FAILURE.search(entry)
    return clean(ItemFailure(*found.groups())) if found else clean(ItemFailure("", entry))


def read_refusal(error: grpc.aio.AioRpcError, count: int) -> Mapping[int, ItemFailure] | None:
    """Read what Triton says when it refuses a whole request, which it does if every item failed.

    Triton may put its own words before the first line, so each line is searched for a code.

    Args:
        error: Of the call.
        count: Items of the request.

    Returns:
        A failure for each item; None where the request itself was refused, which is a fault of the gateway.
    """
    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
        return None
    failures = [ItemFailure(*found) for found in FAILURE.findall(error.details() or "")]
    if len(failures) != count or any(failure.code == REQUEST_CODE for failure in failures):
        return None
    return {index: clean(failure) for index, failure in enumerate(failures)}


def all_failed(failures: Mapping[int, ItemFailure], dimensions: int) -> EmbedResult:
    """Return the result of a chunk none of whose items could be embedded."""
    zeros = np.zeros(len(failures), np.int32)
    vectors = np.full((len(failures), dimensions), np.nan, np.float32)
    return EmbedResult(vectors, zeros, zeros, zeros, zeros, failures)


def none_tokenized(failures: Mapping[int, ItemFailure]) -> TokenizeResult:
    """Return the result of a chunk none of whose items could be tokenised."""
    zeros = np.zeros(len(failures), np.int32)
    return TokenizeResult([[]] * len(failures), zeros, zeros, zeros, zeros, zeros, failures)


def clean(failure: ItemFailure) -> ItemFailure:
    """Return the failure with a message of bounded length and printable characters."""
    message = "".join(char if char.isprintable() else " " for char in failure.message[:MAX_MESSAGE_CHARS])
    return ItemFailure(failure.code, message)
