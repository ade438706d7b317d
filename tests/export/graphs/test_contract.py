"""What Triton requires of every graph, whatever its architecture and precision."""

import onnx_ir as ir
import pytest
from safetensors.numpy import load_file
from transformers import BertConfig, BertModel

from export.graphs.builder import CONTRIB, TENSORRT
from export.graphs.nemotron_vl import build_embedder, build_vision_encoder
from export.spec import Precision, Target
from tests.export.array_weights import ArrayWeights
from tests.export.golden_inputs import CHECKPOINT, CONFIG
from tests.export.tiny_bert import build_bert_embedder

DOMAINS = {"cuda": [CONTRIB], "tensorrt": [TENSORRT]}
INPUTS = {
    "text_embedder": {"input_ids": "INT64", "sequence_lengths": "INT32"},
    "embedder": {"input_ids": "INT64", "image_embeds": "FLOAT", "sequence_lengths": "INT32", "image_rows": "INT32"},
    "vision_encoder": {"patches": "UINT8"},
}
OUTPUTS = {"text_embedder": ("embeddings", 48), "embedder": ("embeddings", 96), "vision_encoder": ("image_embeds", 96)}


FORMS: dict[str, tuple[Precision, Target]] = {
    "fp32": ("fp32", "cpu"),
    "fp16": ("fp16", "cpu"),
    "int8": ("int8", "cpu"),
    "cuda": ("fp16", "cuda"),
    "tensorrt": ("fp16", "tensorrt"),
    "tensorrt-dense": ("fp16", "tensorrt-dense"),
}


def build_bert(precision: Precision, target: Target = "cpu") -> ir.Model:
    config = BertConfig(vocab_size=99, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=80)
    state = BertModel(config, add_pooling_layer=False).state_dict()
    weights = ArrayWeights({name: tensor.numpy() for name, tensor in state.items()})
    return build_bert_embedder(config.to_dict(), weights, "mean", precision=precision, target=target)


def build_flagship(build, precision: Precision, target: Target) -> ir.Model:
    return build(CONFIG, ArrayWeights(load_file(CHECKPOINT / "model.safetensors")), precision, target)


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


@pytest.fixture(params=["text_embedder", "embedder", "vision_encoder"])
def model(request, form) -> ir.Model:
    if request.param == "text_embedder":
        return build_bert(*FORMS[form])
    return build_flagship(
        {"embedder": build_embedder, "vision_encoder": build_vision_encoder}[request.param], *FORMS[form]
    )


def test_every_triton_since_24_10_can_load_it(model, form):
    assert model.ir_version <= 9
    assert model.graph.opset_imports[""] <= 20
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    operators = {node.op_type for node in nodes}
    assert {node.domain for node in nodes} == {"", *DOMAINS.get(form, [])}, "other operators depend on the build"
    if FORMS[form][1] == "cpu":
        assert "Loop" in operators
    else:
        assert not {"Loop", "If", "NonZero"} & operators, "they keep a GPU waiting"


def test_inputs_are_those_of_the_contract_with_rank_1(model):
    assert {value.name: value.dtype.name for value in model.graph.inputs} == INPUTS[model.graph.name]
    for value in model.graph.inputs:
        assert value.shape.rank() == 1 and isinstance(value.shape[0], ir.SymbolicDim)


def test_output_is_float32_with_a_fixed_width(model):
    (output,) = model.graph.outputs
    assert (output.name, output.shape[1]) == OUTPUTS[model.graph.name]
    assert output.dtype == ir.DataType.FLOAT
    assert isinstance(output.shape[0], ir.SymbolicDim)


def test_names_are_unique_across_subgraphs(model):
    names = [value.name for node in ir.traversal.RecursiveGraphIterator(model.graph) for value in node.outputs]
    assert len(names) == len(set(names))


def test_weights_of_lower_precisions_are_smaller(form):
    precision, target = FORMS[form]
    model = build_bert(precision, target)
    sizes = set()
    for name, value in model.graph.initializers.items():
        assert value.shape is not None and value.dtype is not None
        if "dense.weight" in name and value.shape.rank() == 2:
            sizes.add(value.dtype.itemsize)
    assert sizes == {{"fp32": 4, "fp16": 2, "int8": 1}[precision]}
