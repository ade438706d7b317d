import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from export.graphs.bert import max_tokens
from tests.export.array_weights import ArrayWeights
from tests.export.tiny_bert import build_bert_embedder

RAGGED = [3, 14, 0, 1, 61, 14, 0]


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def weights_of(module):
    return ArrayWeights({name: tensor.numpy() for name, tensor in module.state_dict().items()})


def random_ids(lengths, vocab_size=99):
    return np.random.default_rng(1).integers(3, vocab_size, sum(lengths))


def pack_inputs(ids, lengths):
    return {"input_ids": ids, "sequence_lengths": np.array(lengths, np.int32)}


def embeddings_by_torch(module, ids, lengths, pooling):
    reduce = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0).values, "cls": lambda x: x[0]}[pooling]
    rows = []
    for sequence in np.split(ids, np.cumsum(lengths)[:-1]):
        if not len(sequence):
            rows.append(torch.full((module.config.hidden_size,), torch.nan))
            continue
        with torch.no_grad():
            hidden = module(input_ids=torch.from_numpy(sequence)[None]).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(reduce(hidden), dim=0))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_embeddings_equal_transformers(bert, load, pooling, target):
    if pooling == "max" and target.startswith("tensorrt"):
        with pytest.raises(ValueError, match="pooling 'max' is not supported for TensorRT"):
            build_bert_embedder(bert.config.to_dict(), weights_of(bert), pooling, target=target)
        return
    ids = random_ids(RAGGED)
    embed = load(build_bert_embedder(bert.config.to_dict(), weights_of(bert), pooling, target=target))
    expected = embeddings_by_torch(bert, ids, RAGGED, pooling)
    np.testing.assert_allclose(embed(**pack_inputs(ids, RAGGED)), expected, atol=2e-6)


def test_a_sequence_has_the_same_embedding_alone_and_in_any_order(bert, load, target):
    embed = load(build_bert_embedder(bert.config.to_dict(), weights_of(bert), "mean", target=target))
    sequences = np.split(random_ids(RAGGED), np.cumsum(RAGGED)[:-1])
    together = embed(**pack_inputs(np.concatenate(sequences), RAGGED))
    order = [4, 6, 0, 5, 3, 2, 1]
    shuffled = embed(**pack_inputs(np.concatenate([sequences[i] for i in order]), [RAGGED[i] for i in order]))
    np.testing.assert_allclose(shuffled, together[order], atol=1e-6)
    for sequence, embedding in zip(sequences, together, strict=True):
        if len(sequence):
            np.testing.assert_allclose(embed(**pack_inputs(sequence, [len(sequence)]))[0], embedding, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "target", "least_cosine"),
    [
        ("fp16", "cpu", 0.9999),
        ("int8", "cpu", 0.998),
        ("fp16", "cuda", 0.9999),
        ("fp16", "tensorrt", 0.9999),
        ("fp16", "tensorrt-dense", 0.9999),
    ],
)
def test_lower_precisions_keep_the_direction(bert, load, precision, target, least_cosine):
    ids = random_ids([20, 7])
    graph = build_bert_embedder(bert.config.to_dict(), weights_of(bert), "mean", precision=precision, target=target)
    embed = load(graph)
    cosines = (embed(**pack_inputs(ids, [20, 7])) * embeddings_by_torch(bert, ids, [20, 7], "mean")).sum(axis=1)
    assert least_cosine < cosines.min() < 0.9999999


def test_without_normalization_rows_keep_their_length(bert, load):
    inputs = pack_inputs(random_ids([9, 4]), [9, 4])
    plain = load(build_bert_embedder(bert.config.to_dict(), weights_of(bert), "mean", normalize=False))(**inputs)
    unit = load(build_bert_embedder(bert.config.to_dict(), weights_of(bert), "mean"))(**inputs)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert not np.allclose(lengths, 1, atol=0.1)
    np.testing.assert_allclose(plain / lengths, unit, atol=1e-6)


def test_roberta_positions_begin_after_the_padding_row(load):
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=99, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
        max_position_embeddings=34, type_vocab_size=1, initializer_range=0.3,
    )  # fmt: skip
    roberta = RobertaModel(config, add_pooling_layer=False).eval()
    ids = random_ids([5, 32])
    embed = load(build_bert_embedder(config.to_dict(), weights_of(roberta), "mean"))
    expected = embeddings_by_torch(roberta, ids, [5, 32], "mean")
    np.testing.assert_allclose(embed(**pack_inputs(ids, [5, 32])), expected, atol=2e-6)
    assert max_tokens(config.to_dict()) == 32


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_every_activation_equals_transformers(load, activation, target):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80,
        max_position_embeddings=64, initializer_range=0.3, hidden_act=activation,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    ids = random_ids([12, 5])
    embed = load(build_bert_embedder(config.to_dict(), weights_of(model), "mean", target=target))
    expected = embeddings_by_torch(model, ids, [12, 5], "mean")
    np.testing.assert_allclose(embed(**pack_inputs(ids, [12, 5])), expected, atol=3e-6)


def test_there_is_no_int8_form_for_a_gpu(bert):
    with pytest.raises(ValueError, match="no int8 graphs for cuda"):
        build_bert_embedder(bert.config.to_dict(), weights_of(bert), "mean", precision="int8", target="cuda")


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "electra"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"hidden_act": "mish"},
    ],
)
def test_unsupported_config_is_refused_by_name(bert, change):
    with pytest.raises(ValueError, match=f"{next(iter(change.values()))}|{next(iter(change))}"):
        build_bert_embedder(bert.config.to_dict() | change, weights_of(bert), "mean")


def test_a_checkpoint_without_the_model_is_refused(bert):
    with pytest.raises(ValueError, match="word_embeddings"):
        build_bert_embedder(bert.config.to_dict(), ArrayWeights({}), "mean")
