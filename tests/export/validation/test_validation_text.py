import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from export.checkpoint import Checkpoint
from export.graphs.text_embedder import SentenceHead
from export.validation.text import embed_with_transformers


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "last"])
def test_embedding_does_not_depend_on_other_sequences(pooling, tmp_path):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=16,
    )  # fmt: skip
    bert = BertModel(config).half()
    bert.save_pretrained(tmp_path)
    long, short = [3, 4, 5, 6, 7], [8, 9]

    together = embed_with_transformers(Checkpoint(tmp_path), [long, short], SentenceHead(pooling))
    alone = embed_with_transformers(Checkpoint(tmp_path), [short], SentenceHead(pooling))

    assert together.dtype == np.float32 and together.shape == (2, 32)
    np.testing.assert_array_equal(together[1], alone[0])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)
