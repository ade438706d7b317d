"""Triton configurations of a served model: tensors, steps, ensembles, and their text."""

from export.triton.configs import render_repository, to_text

__all__ = ["render_repository", "to_text"]
