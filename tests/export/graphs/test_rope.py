import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from export.graphs.rope import record_rotation, rope_frequencies, rotate

LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
        {"rope_theta": 10000.0, "rope_scaling": None},
        {"rope_theta": 500000.0, "rope_scaling": {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 512}},
    ],
    ids=["llama3", "default", "llama3 of other numbers"],
)
def test_rotation_equals_transformers(config, run_graph):
    llama = LlamaConfig(hidden_size=128, num_attention_heads=2, head_dim=64, max_position_embeddings=131072, **config)
    position = np.array([0, 1, 2, 77, 1800])
    x = np.random.default_rng(0).standard_normal((5, 128)).astype(np.float32)

    heads = torch.from_numpy(x.reshape(1, 5, 2, 64)).transpose(1, 2)
    cosine, sine = LlamaRotaryEmbedding(llama)(heads, torch.from_numpy(position)[None])
    expected = apply_rotary_pos_emb(heads, heads, cosine, sine)[0].transpose(1, 2).reshape(5, 128).numpy()

    frequencies = rope_frequencies(config, head_size=64)
    rotated = run_graph(
        lambda op, x, position: [rotate(op, x, record_rotation(op, position, frequencies), 64)], x, position
    )[0]
    np.testing.assert_allclose(rotated, expected, atol=5e-4)
    np.testing.assert_allclose(rotated[:4], expected[:4], atol=3e-5)


def test_both_forms_of_the_config_give_the_same_frequencies():
    newer = {"rope_parameters": {**LLAMA3, "rope_theta": 500000.0}}
    older = {"rope_scaling": LLAMA3, "rope_theta": 500000.0}
    np.testing.assert_array_equal(rope_frequencies(newer, 64), rope_frequencies(older, 64))


def test_unknown_scaling_is_refused_by_name():
    with pytest.raises(ValueError, match="yarn"):
        rope_frequencies({"rope_scaling": {"rope_type": "yarn"}}, 64)
