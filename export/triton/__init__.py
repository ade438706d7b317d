"""Triton's `config.pbtxt` files, written from typed specs through protobuf."""

from export.triton.render import render_repository, to_text

__all__ = ["render_repository", "to_text"]
