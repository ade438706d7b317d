"""A stand-in for the flagship with random weights: `python -m export.tiny_checkpoint OUT [--hidden-size N] ...`.

It has the files, names and geometry of nvidia/llama-nemotron-embed-vl-1b-v2, so that everything around the model can be
tried without its weights; `--full-size` gives it the real widths too.
"""
