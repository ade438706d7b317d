"""The HTTP service: dialects in; admission, inference and post-processing; dialects out."""
