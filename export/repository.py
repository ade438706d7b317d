"""What a model repository already holds."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export import names
from export.errors import ModelExistsError, RepositoryError
from export.manifest import CONFIG


def read_config(model: Path) -> pb.ModelConfig:
    """Parse the config of a model folder.

    Raises:
        RepositoryError: it cannot be read, or is not Triton's text format.
    """
    try:
        return text_format.Parse((model / CONFIG).read_text("utf-8"), pb.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise RepositoryError(f"{model / CONFIG} cannot be read: {error}") from error


def clear_names(repository: Path, public_id: str, *, replace: bool) -> tuple[str, ...]:
    """Return the models that a new model of that public id puts away: none, unless it may replace them.

    Raises:
        ModelExistsError: the repository holds a model of one of the names, and `replace` is false; or it belongs to
            another public id of the same slug.
    """
    possible = names.model_names(public_id, ("text", "image"))
    taken = [name for name in possible if (repository / name).exists()]
    if not taken:
        return ()
    owner = _owner(repository, names.slug(public_id))
    if owner not in (None, public_id):
        raise ModelExistsError(
            f"{repository} serves {owner}, whose Triton models have the names that {public_id} needs"
            f" ({taken[0]}): choose another --name"
        )
    if not replace:
        raise ModelExistsError(f"{repository} already holds {public_id} ({taken[0]}): --replace exports it anew")
    return tuple(reversed(possible))


def _owner(repository: Path, slug: str) -> str | None:
    """Return the public id whose text ensemble has that slug."""
    ensemble = repository / f"{slug}_{names.TEXT}"
    if not (ensemble / CONFIG).is_file():
        return None
    return str(read_config(ensemble).parameters["public_id"].string_value) or None
