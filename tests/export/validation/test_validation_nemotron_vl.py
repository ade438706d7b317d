import numpy as np
import pytest
from safetensors.numpy import load_file

from export.validation.nemotron_vl import SampleItem, embed_with_transformers
from tests.export.array_weights import ArrayWeights
from tests.export.golden_inputs import CHECKPOINT, CONFIG, load_golden_inputs


@pytest.mark.parametrize("older_layout", [False, True], ids=["newer layout", "older layout"])
def test_reference_reproduces_golden_embeddings(older_layout):
    tensors = load_file(CHECKPOINT / "model.safetensors")
    if older_layout:
        tensors = {name.replace("vision_model.", "vision_model.vision_model."): x for name, x in tensors.items()}
    golden = [load_golden_inputs()[index] for index in (0, 3, 12, 20, 24, 25)]
    items = [SampleItem(item.input_ids.tolist(), item.patches if len(item.patches) else None) for item in golden]

    embeddings = embed_with_transformers(CONFIG, ArrayWeights(tensors), items)

    np.testing.assert_allclose(embeddings, [item.embedding for item in golden], atol=1e-6)
