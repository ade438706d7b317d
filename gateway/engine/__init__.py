"""What turns items into vectors: the interface that the gateway calls, and Triton behind it."""

from gateway.engine.interface import (
    EmbedBatch,
    EmbedResult,
    Engine,
    Golden,
    ItemFailure,
    ServedModel,
    Slot,
    TokenizeResult,
)

__all__ = ["EmbedBatch", "EmbedResult", "Engine", "Golden", "ItemFailure", "ServedModel", "Slot", "TokenizeResult"]
