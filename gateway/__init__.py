"""The HTTP service: dialects in, items, engine, post-processing, dialects out."""
