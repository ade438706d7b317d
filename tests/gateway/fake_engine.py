"""An engine without weights: vectors and scores from a hash of the item, tokens from its length."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.core.health import CANARY
from gateway.engine import EmbedBatch, EmbedResult, ItemFailure, ServedModel, TokenizeResult
from gateway.errors import EngineUnavailableError, GatewayError
from gateway.types import ImageItem, Item, TextImageItem, TextItem, TokensItem

TEXT_MODEL = ServedModel("sentence-transformers/all-MiniLM-L6-v2", 384, 256, takes_images=False)
IMAGE_MODEL = ServedModel(
    "nvidia/llama-nemotron-embed-vl-1b-v2",
    2048,
    10240,
    takes_images=True,
    takes_pdfs=True,
    max_tiles=7,
    tokens_per_tile=256,
)
RANK_MODEL = ServedModel("cross-encoder/ms-marco-MiniLM-L6-v2", 1, 512, takes_images=False, task="rank")
IMAGE_RANK_MODEL = replace(IMAGE_MODEL, public_id="nvidia/llama-nemotron-rerank-vl-1b-v2", dimensions=1, task="rank")


def item_bytes(item: Item, input_type: str) -> bytes:
    """What the vector of an item depends on."""
    match item:
        case TextItem(text):
            return f"{input_type}: {text}".encode()
        case TokensItem(token_ids):
            return f"{input_type}: {token_ids}".encode()
        case ImageItem(bytes(image), page):
            return b"image " + image + b"page %d" % page * bool(page)
        case TextImageItem(text, bytes(image)):
            return text.encode() + b" image " + image
    raise AssertionError(f"not for an engine: {item}")


def fake_vector(item: Item, input_type: str, dimensions: int) -> np.ndarray:
    """A unit vector that is always the same for the same item."""
    seed = int.from_bytes(hashlib.sha256(item_bytes(item, input_type)).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def fake_score(item: Item, query: str) -> float:
    """A score that is always the same for the same item and query, from -10 to 10."""
    digest = hashlib.sha256(query.encode() + b"|" + item_bytes(item, "passage")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 * 20 - 10


@dataclass
class FakeEngine:
    """An `Engine` in memory.

    Attributes:
        served: its models.
        available: whether it answers at all.
        unavailable: models that it could not load.
        make_vector, make_score: what it returns for an item.
        fail_item: why an item fails, or None.
        delay_s: how long an answer takes.
        canary_delay_s: how long an answer about the readiness text takes.
        embeds: whether it embeds, while it still lists its models.
        error: what a batch ends with, or None.
        batches: that it was asked, in order.
        cancelled: batches whose client did not wait.
    """

    served: tuple[ServedModel, ...] = (TEXT_MODEL, IMAGE_MODEL)
    available: bool = True
    unavailable: frozenset[str] = frozenset()
    fail_item: Callable[[Item], ItemFailure | None] = lambda item: None
    make_vector: Callable[[Item, str, int], np.ndarray] = fake_vector
    make_score: Callable[[Item, str], float] = fake_score
    delay_s: float = 0.0
    canary_delay_s: float = 0.0
    embeds: bool = True
    error: GatewayError | None = None
    batches: list[EmbedBatch] = field(default_factory=list)
    cancelled: int = 0
    started: bool = False

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.started = False

    async def models(self, *, refresh: bool = False) -> Mapping[str, ServedModel]:
        if not self.available:
            raise EngineUnavailableError
        return {model.public_id: model for model in self.served}

    def unavailable_models(self) -> frozenset[str]:
        return self.unavailable

    async def embed(self, batch: EmbedBatch) -> EmbedResult:
        await self.models()
        with await batch.enter(sum(batch.item_tokens)):
            return await self.compute(batch)

    async def compute(self, batch: EmbedBatch) -> EmbedResult:
        self.batches.append(batch)
        if self.error:
            raise self.error
        if not self.embeds:
            raise EngineUnavailableError
        if self.canary_delay_s and list(batch.items) == [CANARY]:
            await asyncio.sleep(self.canary_delay_s)
        if self.delay_s:
            try:
                await asyncio.sleep(self.delay_s)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        count = len(batch.items)
        size = batch.model.dimensions
        tiles = np.array([isinstance(item, ImageItem | TextImageItem) for item in batch.items], np.int32)
        failures = {i: failure for i, item in enumerate(batch.items) if (failure := self.fail_item(item))}
        texts = np.array([len(item_bytes(item, "").split()) for item in batch.items], np.int32)
        assert (batch.query is not None) == (batch.model.task == "rank")
        if batch.query is not None:
            texts += len(batch.query.split())
            embeddings = np.array([[self.make_score(item, batch.query)] for item in batch.items], np.float32)
        else:
            embeddings = np.stack([self.make_vector(item, batch.input_type, size) for item in batch.items])
        embeddings[list(failures)] = np.nan
        assert embeddings.shape == (count, size)
        tokens = texts + 256 * tiles
        return EmbedResult(embeddings, np.minimum(tokens, size_limit(batch)), tokens, 256 * tiles, tiles, failures)

    async def tokenize(self, batch: EmbedBatch) -> TokenizeResult:
        result = await self.embed(batch)
        ids = [list(range(count)) for count in result.token_counts]
        return TokenizeResult(
            ids,
            result.token_counts,
            result.untruncated_token_counts,
            result.image_token_counts,
            result.tile_counts,
            np.array([count_pages(item) for item in batch.items], np.int32),
            result.failures,
        )


def count_pages(item: Item) -> int:
    """Pages of a PDF as the tests make them."""
    if isinstance(item, ImageItem) and isinstance(item.file, bytes) and item.page:
        return item.file.count(b"/Type/Page/")
    return 0


def size_limit(batch: EmbedBatch) -> int:
    """Tokens to which a text is cut; the fake model never refuses a long one."""
    return batch.model.max_tokens if batch.truncate != "NONE" else 2**31 - 1
