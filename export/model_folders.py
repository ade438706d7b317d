"""The folders that Triton loads: what each holds besides its graph."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from export import names
from export.manifest import CONFIG
from export.spec import ModelSpec, ServedModel
from export.triton import render_repository, to_text
from export.triton.steps import warmup_files

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class ModelFolders:
    """The folders of one public id's Triton models, below `root`."""

    root: Path
    public_id: str

    def version(self, part: str) -> Path:
        """Return the version folder of a step or an ensemble, made if it is not there yet."""
        folder = self.root / f"{names.slug(self.public_id)}_{part}" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_tokenizer(self, tokenizer: bytes, spec: ModelSpec) -> None:
        """Give the tokenizer to each preprocess step; a second one is the same file under another name."""
        first = self.version(names.PREPROCESS_TEXT) / _TOKENIZER
        first.write_bytes(tokenizer)
        if names.IMAGE in spec.modalities:
            _link_or_copy(first, self.version(names.PREPROCESS_IMAGE) / _TOKENIZER)

    def write_configs(self, model: ServedModel) -> None:
        """Write every `config.pbtxt`."""
        for name, config in render_repository(model).items():
            folder = self.root / name
            (folder / "1").mkdir(parents=True, exist_ok=True)  # Triton wants a version of ensembles too
            (folder / CONFIG).write_text(to_text(config), "utf-8")

    def write_warmup(self, spec: ModelSpec) -> None:
        """Write the inputs of the steps' warm-ups that cannot be zeros."""
        for step, files in warmup_files(spec).items():
            folder = self.version(step).parent / "warmup"
            folder.mkdir(exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
