"""An image embedder around any image tower: packed patches in, one embedding per item out."""

from collections.abc import Callable

import onnx_ir as ir

from export.graphs.builder import GraphBuilder, build_model
from export.graphs.layers import Layers, Precision
from export.graphs.pooling import normalize_rows
from export.graphs.targets import Target, bind_layers
from export.graphs.towers import PixelScale, normalize_pixels
from export.graphs.weights import Weights

RecordTower = Callable[[Layers, ir.Value], ir.Value]
"""Records a tower: normalised patches `(patches, bytes of a patch)` to vectors `(images, dimensions)`, both float32."""


def build_image_tower(
    weights: Weights,
    record_tower: RecordTower,
    patch_size: int,
    scale: PixelScale,
    dimensions: int,
    precision: Precision = "fp32",
    target: Target = "cpu",
) -> ir.Model:
    """Build the embedder of an image tower.

    Args:
        weights: Tensors of the checkpoint.
        record_tower: Records the tower.
        patch_size: Width and height of a patch, in pixels.
        scale: How pixels are normalised.
        dimensions: Components of an embedding.
        precision: Precision of matrices and their products.
        target: Device that the graph will run on.

    Returns:
        A model with the inputs `patches` uint8 `(patches * bytes of a patch,)`, in whole images, and `image_rows` int32
        `(items,)`, the patches of each item: those of an image, or 0. Its output is `embeddings` float32
        `(items, dimensions)`, NaN for an item without patches.
    """
    op = GraphBuilder()
    layers = bind_layers(op, weights, precision, target)
    patches = op.input("patches", ir.DataType.UINT8, ["patch_bytes"])
    image_rows = op.input("image_rows", ir.DataType.INT32, ["items"])
    with op.scope("pixels"):
        normalized = normalize_pixels(layers, patches, patch_size**2, scale)
    with op.scope("vision"):
        vectors = record_tower(layers, normalized)
    with op.scope("items"):
        is_image = op.Greater(op.Cast(image_rows, to=ir.DataType.INT64), 0)
        image = op.Sub(op.CumSum(op.Cast(is_image, to=ir.DataType.INT64), 0), 1)
        of_items = op.Gather(normalize_rows(op, vectors), op.Max(image, 0))
        embeddings = op.Where(op.Unsqueeze(is_image, [1]), of_items, float("nan"))
    return build_model(op, "image_tower", "embeddings", embeddings, dimensions)
