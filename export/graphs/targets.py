"""The forms of a graph: what a model is written in terms of, by the device that it will run on."""

from collections.abc import Mapping
from typing import Literal

from export.graphs.builder import GraphBuilder
from export.graphs.cuda import CudaLayers
from export.graphs.layers import Layers, Precision
from export.graphs.tensorrt import DenseTensorrtLayers, TensorrtLayers
from export.graphs.weights import Weights

Target = Literal["cpu", "cuda", "tensorrt", "tensorrt-dense"]

_FORMS: Mapping[Target, type[Layers]] = {
    "cpu": Layers,
    "cuda": CudaLayers,
    "tensorrt": TensorrtLayers,
    "tensorrt-dense": DenseTensorrtLayers,
}


def bind_layers(op: GraphBuilder, weights: Weights, precision: Precision, target: Target) -> Layers:
    """Return a recorder of layers in the form for a device.

    Raises:
        ValueError: The form has no such precision.
    """
    if precision == "int8" and target != "cpu":
        raise ValueError(f"there are no int8 graphs for {target}")
    return _FORMS[target](op, weights, precision)
