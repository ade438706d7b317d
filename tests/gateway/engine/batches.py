"""Batches for engines under test."""

from gateway.engine import EmbedBatch, ServedModel, Slot
from gateway.engine.chunking import estimate_tokens
from gateway.types import Deadline, InputType, Item, Truncate


def make_batch(
    model: ServedModel,
    *items: Item,
    input_type: InputType = "passage",
    truncate: Truncate = "NONE",
    slot: Slot | None = None,
    deadline: Deadline | None = None,
) -> EmbedBatch:
    tokens = [estimate_tokens(item, model) for item in items]
    return EmbedBatch(model, items, tokens, input_type, truncate, slot or Slot(), deadline=deadline)
