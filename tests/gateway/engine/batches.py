"""Batches for engines under test."""

from gateway.engine import EmbedBatch, ServedModel
from gateway.engine.chunking import estimate_tokens
from gateway.engine.interface import Enter, enter_freely
from gateway.types import Deadline, InputType, Item, Truncate


def make_batch(
    model: ServedModel,
    *items: Item,
    input_type: InputType = "passage",
    truncate: Truncate = "NONE",
    enter: Enter = enter_freely,
    deadline: Deadline | None = None,
    query: str | None = None,
) -> EmbedBatch:
    tokens = [estimate_tokens(item, model) for item in items]
    return EmbedBatch(model, items, tokens, input_type, truncate, enter, deadline=deadline, query=query)
