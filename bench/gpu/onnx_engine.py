"""An engine, and the one under test: the exported graphs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bench.gpu.workloads import Batch
from export.names import EMBEDDER, VISION_ENCODER, slug

Device = Literal["cuda", "cpu"]
# Embeds a batch that is on the device already; returns embeddings (items, dimensions) on the host.
Run = Callable[[], NDArray[np.float32]]

PROVIDERS: Mapping[Device, str] = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class Engine(Protocol):
    """Something that embeds batches.

    Attributes:
        name: Name in tables.
    """

    name: str

    def prepare(self, batch: Batch) -> Run:
        """Copy a batch to the device, and return what embeds it."""


def check_provider(device: Device) -> None:
    """Check that this build of ONNX Runtime has the execution provider of a device.

    Raises:
        RuntimeError: It has not.
    """
    if PROVIDERS[device] not in ort.get_available_providers():
        raise RuntimeError(f"absent: this build of ONNX Runtime lacks {PROVIDERS[device]}")


class OnnxEngine:
    """The graphs of a Triton repository, in ONNX Runtime.

    Args:
        repository: Repository with the model.
        public_id: Public id of the model.
        device: Where to run it.

    Raises:
        RuntimeError: This ONNX Runtime cannot use the device.
    """

    def __init__(self, repository: Path, public_id: str, device: Device) -> None:
        self.name = f"ONNX Runtime {ort.__version__}, {device}, fp16"
        self._device = device
        check_provider(device)
        if device == "cuda":
            ort.preload_dlls()  # CUDA and cuDNN from PyTorch's packages
        folders = {step: repository / f"{slug(public_id)}_{step}" / "1" for step in (VISION_ENCODER, EMBEDDER)}
        self._vision, self._embedder = (self._load(folder / "model.onnx") for folder in folders.values())
        image_embeds = next(each for each in self._embedder.get_inputs() if each.name == "image_embeds")
        self._embeds_type: type[np.floating[Any]] = np.float16 if "float16" in image_embeds.type else np.float32
        self._width = self._embedder.get_outputs()[0].shape[1]

    def _load(self, graph: Path) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.enable_mem_pattern = False  # as in the backend: row counts differ from run to run
        provider = PROVIDERS[self._device]
        providers = list(dict.fromkeys((provider, PROVIDERS["cpu"])))
        session = ort.InferenceSession(str(graph), options, providers=providers)
        if session.get_providers()[0] != provider:  # it would go on without a word
            raise RuntimeError(f"ONNX Runtime could not start {provider}")
        return session

    def prepare(self, batch: Batch) -> Run:
        """Copy packed rows to the device; a text brings one row of `image_embeds`, which is never read."""
        images = [item.patches for item in batch if item.patches is not None]
        if images and len(images) < len(batch):
            raise ValueError("a batch has to consist of texts or of images")
        rows = np.ones(len(batch), np.int32) if not images else np.array([len(each) for each in images], np.int32)
        tensors: dict[str, NDArray[Any]] = {
            "input_ids": np.concatenate([np.asarray(item.input_ids, np.int64) for item in batch]),
            "sequence_lengths": np.array([len(item.input_ids) for item in batch], np.int32),
            "image_rows": rows,
        }
        if images:
            patches = self._upload(np.concatenate(images).ravel())
        else:
            tensors["image_embeds"] = np.full(len(batch) * self._width, np.nan, self._embeds_type)
        inputs = {name: self._upload(tensor) for name, tensor in tensors.items()}

        def run() -> NDArray[np.float32]:
            embedder = self._embedder.io_binding()
            for name, value in inputs.items():
                embedder.bind_ortvalue_input(name, value)
            if images:
                vectors = self._encode(patches)  # referred to until the embedder is done
                shape = [int(rows.sum()) * self._width]
                embedder.bind_input("image_embeds", self._device, 0, self._embeds_type, shape, vectors.data_ptr())
            embedder.bind_output("embeddings", "cpu")
            self._embedder.run_with_iobinding(embedder)
            embeddings: NDArray[np.float32] = embedder.get_outputs()[0].numpy()
            return embeddings

        return run

    def _encode(self, patches: ort.OrtValue) -> ort.OrtValue:
        """Return the vectors of image tokens, which stay on the device."""
        vision = self._vision.io_binding()
        vision.bind_ortvalue_input("patches", patches)
        vision.bind_output("image_embeds", self._device)
        self._vision.run_with_iobinding(vision)
        vision.synchronize_outputs()
        return vision.get_outputs()[0]

    def _upload(self, tensor: NDArray[Any]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor), self._device, 0)
