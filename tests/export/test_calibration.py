import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.architectures import plan_export
from export.calibration import measure_columns
from export.checkpoint import Checkpoint
from export.pipeline import ExportRequest, export_model
from export.progress import Progress
from export.repository import read_config
from tests.export.golden_inputs import CHECKPOINT


@pytest.mark.parametrize(
    ("checkpoint", "products"),
    [
        ("tiny bert", ["encoder.layer.0.attention.self.query.weight", "encoder.layer.0.intermediate.dense.weight"]),
        (
            "tiny nemotron",
            [
                "vision_model.encoder.layers.0.self_attn.q_proj.weight",
                "language_model.layers.0.self_attn.q_proj.weight",
                "language_model.layers.0.mlp.down_proj.weight",
            ],
        ),
    ],
    ids=["texts", "texts and pages"],
)
def test_columns_are_measured_before_uneven_products(tiny_bert, tmp_path, checkpoint, products):
    folder = tiny_bert if checkpoint == "tiny bert" else CHECKPOINT
    plan = plan_export(Checkpoint(folder), "int8")
    assert plan.embed_samples is not None
    largest = measure_columns(plan.graphs, plan.embed_samples, tmp_path)
    for product in products:
        [columns] = [columns for name, columns in largest.items() if name.startswith(product)]
        assert columns.shape == (Checkpoint(folder).weights.shape(product)[1],)
        assert np.all(columns >= 0) and columns.any()
    assert not [name for name in largest if name.endswith(("output.dense.weight", "o_proj.weight", "up_proj.weight"))]
    assert list(tmp_path.iterdir()) == []


def test_an_int8_export_is_smoothed_and_reports_its_numbers(tiny_bert, tmp_path: Path):
    stream, repository = io.StringIO(), tmp_path / "repository"
    export_model(ExportRequest(str(tiny_bert), repository, public_id="tiny", precision="int8"), Progress(stream))
    parameters = read_config(repository / "tiny_text").parameters
    validation = json.loads(parameters["manifest"].string_value)["validation"]
    assert {"mean_cosine", "min_cosine", "nearest_kept", "samples"} <= validation.keys()
    assert f"mean cosine {validation['mean_cosine']:.5f}" in stream.getvalue()
    graph = onnx.load(repository / "tiny_embedder" / "1" / "model.onnx", load_external_data=False).graph
    unsmoothed = plan_export(Checkpoint(tiny_bert), "int8").graphs["embedder"]().graph
    assert "Identity" in [node.op_type for node in unsmoothed]
    assert "Identity" not in [node.op_type for node in graph.node]
