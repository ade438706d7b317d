"""A Triton model repository: the folders of one public id's models, and what the repository already holds."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import names
from export.errors import ModelExistsError, RepositoryError
from export.serving import ServedModel, ServingSpec
from export.spec import ImageTowerSpec, ModelSpec, is_tensorrt
from export.triton import render_repository, to_text
from export.triton.profiles import PROFILES_FILE, list_profiles, render_profiles
from export.triton.steps import warmup_files

CONFIG = "config.pbtxt"
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class ModelFolders:
    """The folders of one public id's Triton models, below `root`."""

    root: Path
    public_id: str

    def version(self, step: str, version: int = 1) -> Path:
        """Return the version folder of a step or an ensemble, created if necessary."""
        folder = self.root / f"{names.slug(self.public_id)}_{step}" / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def write_tokenizer(self, tokenizer: bytes, spec: ModelSpec) -> None:
        """Write the tokenizer of each preprocessing step that reads texts; the second is a hard link to the first."""
        modalities = ("text",) if isinstance(spec.image, ImageTowerSpec) else spec.modalities
        ensembles = [names.ENSEMBLES[spec.task][modality] for modality in modalities]
        first, *others = [self.version(names.PREPROCESSING[ensemble]) / _TOKENIZER for ensemble in ensembles]
        first.write_bytes(tokenizer)
        for path in others:
            _link_or_copy(first, path)

    def write_warmup(self, spec: ModelSpec) -> None:
        """Write the warm-up inputs that cannot be zeros."""
        for step, files in warmup_files(spec).items():
            folder = self.version(step).parent / "warmup"
            folder.mkdir(exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)

    def write_profiles(self, spec: ModelSpec, serving: ServingSpec) -> None:
        """Write the profiles of the engines beside the graphs, if they are for TensorRT."""
        if not is_tensorrt(serving.target):
            return
        head = names.HEADS[spec.task]
        for step in (head, names.VISION_ENCODER) if spec.image else (head,):
            profiles = render_profiles(list_profiles(step, spec, serving))
            (self.version(step) / PROFILES_FILE).write_text(profiles, "utf-8")

    def write_configs(self, model: ServedModel) -> None:
        """Write every `config.pbtxt`, and the version folders of the ensembles, which Triton requires too."""
        write_configs(self.root, model)
        for modality in model.spec.modalities:
            ensemble = names.ENSEMBLES[model.spec.task][modality]
            self.version(ensemble, names.ensemble_version(model.identity.fingerprint))


def write_configs(repository: Path, model: ServedModel) -> None:
    """Write the `config.pbtxt` of each Triton model of `model`."""
    for name, config in render_repository(model).items():
        (repository / name).mkdir(parents=True, exist_ok=True)
        (repository / name / CONFIG).write_text(to_text(config), "utf-8")


def read_config(model: Path) -> pb.ModelConfig:
    """Parse the config of a model folder.

    Raises:
        RepositoryError: The config cannot be read, or is not in Triton's text format.
    """
    try:
        return text_format.Parse((model / CONFIG).read_text("utf-8"), pb.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise RepositoryError(f"{model / CONFIG} cannot be read: {error}") from error


def list_replaced_models(repository: Path, public_id: str, *, replace: bool) -> tuple[str, ...]:
    """Return the models to remove for a new model with that public id: none, unless it may replace them.

    Raises:
        ModelExistsError: The repository holds a model with one of the names, and `replace` is false or the model
            belongs to another public id with the same slug.
    """
    possible, prefix = names.possible_model_names(public_id), f"{names.slug(public_id)}_"
    taken = [name for name in possible if (repository / name).exists()]
    if not taken:
        return ()
    for name in taken:
        owner = _owner(repository / name) if name.removeprefix(prefix) in names.PREPROCESSING else None
        if owner not in (None, public_id):
            raise ModelExistsError(
                f"{repository} serves {owner}, whose Triton models have the names that {public_id} needs"
                f" ({name}): choose another --name"
            )
    if not replace:
        raise ModelExistsError(f"{repository} already holds {public_id} ({taken[0]}): use --replace to replace it")
    return tuple(reversed(possible))


def _owner(model: Path) -> str | None:
    """Return the public id that an ensemble serves."""
    if not (model / CONFIG).is_file():
        return None
    return str(read_config(model).parameters["public_id"].string_value) or None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
