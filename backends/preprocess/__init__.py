"""The first steps of both ensembles, as a Python-based Triton backend."""
