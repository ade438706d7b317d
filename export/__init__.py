"""Checkpoints to Triton model repositories: read, build, validate, publish."""
