"""The same models by transformers' own modules: the formulation that exported graphs are judged by."""
