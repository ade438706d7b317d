"""The flagship's graphs on this machine's GPU, against PyTorch on the same weights: `python -m bench.gpu`.

It needs no network and no server: weights of the real size are drawn from a seed and exported here. An engine whose
embeddings differ too much from float32's gets no figures of speed.
"""
