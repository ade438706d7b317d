"""Starts and supervises the embedded Triton and the gateway."""
