"""What turns items into vectors and scores: the interface that the gateway calls, and Triton behind it."""

from gateway.engine.golden import Golden, GoldenScore
from gateway.engine.interface import (
    EmbedBatch,
    EmbedResult,
    Engine,
    ItemFailure,
    ServedModel,
    Slot,
    TokenizeResult,
)

__all__ = [
    "EmbedBatch",
    "EmbedResult",
    "Engine",
    "Golden",
    "GoldenScore",
    "ItemFailure",
    "ServedModel",
    "Slot",
    "TokenizeResult",
]
