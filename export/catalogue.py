"""What can be exported: the architectures, and published checkpoints of them; and what a repository holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from export import names
from export.architectures import ARCHITECTURES
from export.repository import CONFIG, read_config
from export.spec import Precision, Target, Task

_PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_TARGETS: tuple[Target, ...] = get_args(Target)

UNKNOWN = "see the model card"


@dataclass(frozen=True)
class Architecture:
    """Checkpoints that are exported in the same way.

    Attributes:
        name: For people.
        model_types: `model_type` of their `config.json`.
        items: What an embedding may stand for, or what a query is ranked with.
        pooling: How the hidden states of a text become its vector, or those of a pair its score.
        precisions: That they are exported in.
        targets: That they are exported for; int8 is for CPUs only.
        task: What they do.
    """

    name: str
    model_types: Sequence[str]
    items: str = "text"
    pooling: str = "mean, cls, max, last"
    precisions: Sequence[Precision] = _PRECISIONS
    targets: Sequence[Target] = _TARGETS
    task: Task = "embed"


CATALOGUE: Sequence[Architecture] = (
    Architecture("BERT family", ("bert", "camembert", "roberta", "xlm-roberta")),
    Architecture("ModernBERT", ("modernbert",), targets=("cpu", "cuda", "tensorrt-dense")),
    Architecture("Qwen3", ("qwen3",)),
    Architecture("Gemma 3", ("gemma3_text",), targets=("cpu", "cuda", "tensorrt-dense")),
    Architecture("bidirectional Llama", ("llama_bidirec",)),
    Architecture("Llama Nemotron VL", ("llama_nemotron_vl",), "text, image, or both", "mean, cls"),
    Architecture("SigLIP, and SigLIP 2 of a fixed resolution", ("siglip",), "text or image", "last"),
    Architecture("CLIP", ("clip",), "text or image", "last"),
    Architecture(
        "other encoders, by optimum",
        tuple(model_type for model_type, module in ARCHITECTURES.items() if module == "padded"),
        precisions=("fp32",),
        targets=("cpu",),
    ),
    Architecture(
        "cross-encoders of the BERT family", ("bert", "camembert", "roberta", "xlm-roberta"), pooling="cls",
        targets=("cpu", "cuda"), task="rank",
    ),
    Architecture("ModernBERT reranker", ("modernbert",), pooling="mean, cls", targets=("cpu", "cuda"), task="rank"),
    Architecture("Qwen3 reranker", ("qwen3",), pooling="last", targets=("cpu", "cuda"), task="rank"),
    Architecture(
        "bidirectional Llama reranker", ("llama_bidirec",), pooling="mean, cls, last", targets=("cpu", "cuda"),
        task="rank",
    ),
    Architecture(
        "Llama Nemotron Rerank VL", ("llama_nemotron_vl_rerank",), "text, image, or both", "mean, cls",
        targets=("cpu", "cuda"), task="rank",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A published checkpoint, by its model card.

    Attributes:
        hub_id: Its name on the hub.
        model_type: Of its `config.json`.
        dimensions: Components of an embedding; None for a reranker.
        max_tokens: Longest text, or query and text together; None if it is not known here.
        pooling: How the hidden states of a text become its vector, or those of a pair its score.
        license: Name or SPDX id.
        task: What it does.
        tried: What has been exported and served: its published weights, or random ones of its size; empty for neither.
        memory: What serving it took, in Markdown; empty if it was not measured.
        speed: Page that says how fast it was; empty if it was not measured.
    """

    hub_id: str
    model_type: str
    dimensions: int | None
    max_tokens: int | None
    pooling: str
    license: str
    task: Task = "embed"
    tried: str = ""
    memory: str = ""
    speed: str = ""

    @property
    def architecture(self) -> Architecture:
        """The architecture that it is exported as."""
        return next(each for each in CATALOGUE if each.task == self.task and self.model_type in each.model_types)


PUBLISHED: Sequence[Published] = (
    Published(
        "sentence-transformers/all-MiniLM-L6-v2", "bert", 384, 256, "mean", "Apache-2.0", tried="published weights",
        speed="benchmarks.md",
    ),
    Published("BAAI/bge-small-en-v1.5", "bert", 384, 512, "cls", "MIT"),
    Published("intfloat/multilingual-e5-small", "bert", 384, 512, "mean", "MIT"),
    Published("Alibaba-NLP/gte-modernbert-base", "modernbert", 768, 8192, "cls", "Apache-2.0"),
    Published("Qwen/Qwen3-Embedding-0.6B", "qwen3", 1024, 32768, "last", "Apache-2.0"),
    Published("google/embeddinggemma-300m", "gemma3_text", 768, 2048, "mean", "Gemma"),
    Published("nvidia/llama-nemotron-embed-1b-v2", "llama_bidirec", 2048, 8192, "mean", "NVIDIA Open Model License"),
    Published(
        "nvidia/llama-nemotron-embed-vl-1b-v2", "llama_nemotron_vl", 2048, 10240, "mean", "NVIDIA Open Model License",
        tried="random weights", memory="8 GiB; int8: 5 GiB", speed="flagship.md",
    ),
    Published(
        "google/siglip-base-patch16-224", "siglip", 768, 64, "last", "Apache-2.0", tried="random weights",
        memory="1.5 GiB",
    ),
    Published("google/siglip2-base-patch16-224", "siglip", 768, 64, "last", "Apache-2.0"),
    Published(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "clip", 512, 77, "last", "MIT", tried="random weights",
        memory="1.1 GiB",
    ),
    Published("openai/clip-vit-large-patch14", "clip", 768, 77, "last", "none stated"),
    Published("cross-encoder/ms-marco-MiniLM-L6-v2", "bert", None, 512, "cls", "Apache-2.0", "rank"),
    Published("BAAI/bge-reranker-v2-m3", "xlm-roberta", None, 8192, "cls", "Apache-2.0", "rank"),
    Published(
        "Alibaba-NLP/gte-reranker-modernbert-base", "modernbert", None, 8192, UNKNOWN, "Apache-2.0",
        "rank",
    ),
    Published("Qwen/Qwen3-Reranker-0.6B", "qwen3", None, 32768, "last", "Apache-2.0", "rank"),
    Published(
        "nvidia/llama-nemotron-rerank-1b-v2", "llama_bidirec", None, 8192, "mean", "NVIDIA Open Model License", "rank",
    ),
    Published(
        "nvidia/llama-nemotron-rerank-vl-1b-v2", "llama_nemotron_vl_rerank", None, None, "mean",
        "NVIDIA Open Model License", "rank",
    ),
)  # fmt: skip
"""Facts of model cards. A checkpoint that was not tried may still hold something that an export refuses, by name."""


def describe_catalogue() -> str:
    """Return what can be exported, as lines of text."""
    architectures = [
        (each.name, each.task, each.items, each.pooling, ", ".join(each.precisions), ", ".join(each.targets))
        for each in CATALOGUE
    ]
    published = [
        (each.hub_id, each.task, each.architecture.items, str(each.dimensions or ""), str(each.max_tokens or UNKNOWN),
         each.pooling, each.license, each.tried or "not tried")
        for each in PUBLISHED
    ]  # fmt: skip
    architecture_heads = ("architecture", "task", "input", "pooling", "precisions", "targets")
    published_heads = ("checkpoint", "task", "input", "dimensions", "tokens", "pooling", "licence", "tried with")
    return "\n".join([*_align([architecture_heads, *architectures]), "", *_align([published_heads, *published])])


def describe_repository(repository: Path) -> str:
    """Return the models that a repository holds, as lines of text.

    Raises:
        RepositoryError: The configuration of a model cannot be read.
    """
    heads = ("model", "task", "architecture", "input", "dimensions", "tokens", "precision", "target", "MB")
    rows: list[tuple[str, ...]] = [heads]
    ensembles = [ensemble["text"] for ensemble in names.ENSEMBLES.values()]
    for config in sorted(config for name in ensembles for config in repository.glob(f"*_{name}/{CONFIG}")):
        parameters = read_config(config.parent).parameters
        if "manifest" in parameters:
            rows.append(_describe_manifest(json.loads(parameters["manifest"].string_value)))
    return "\n".join(_align(rows))


def _describe_manifest(manifest: dict[str, Any]) -> tuple[str, ...]:
    size = sum(file["bytes"] for file in manifest["files"])
    values = (
        manifest["public_id"], manifest.get("task", "embed"),  # the manifests of older exports name no task
        manifest["architecture"], ", ".join(manifest["modalities"]), manifest["dimensions"] or "",
        manifest["max_tokens"], manifest["precision"], manifest["target"], f"{size / 1e6:.0f}",
    )  # fmt: skip
    return tuple(map(str, values))


def _align(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
