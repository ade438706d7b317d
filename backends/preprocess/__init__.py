"""The preprocessing steps of both ensembles, as a Triton backend written in Python."""
