"""What turns items into vectors: the interface the gateway calls, and Triton behind it."""

from gateway.engine.interface import EmbedBatch, Embedded, Engine, ItemFailure, ServedModel

__all__ = ["EmbedBatch", "Embedded", "Engine", "ItemFailure", "ServedModel"]
