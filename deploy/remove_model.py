"""Removes models from the repository: `python -m deploy.remove_model PUBLIC_ID ...`, where `REPOSITORY` is set."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from export import names
from export.errors import ExportError
from export.publish import Staging, recover


def main(models: Sequence[str], repository: Path) -> int:
    """Remove models, all or none of them, and return the exit status."""
    try:
        recover(repository)
        remove_models(models, repository)
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stderr.write(f"removed {', '.join(models)}; a running server stops serving them within seconds\n")
    return 0


def remove_models(models: Iterable[str], repository: Path) -> None:
    """Remove models in one publication.

    Args:
        models: Public ids; or, of a model whose configuration cannot be read any more, the name of one of its folders.
        repository: Triton model repository.

    Raises:
        ExportError: The repository contains no such model, or cannot be written.
    """
    folders = [name for model in models for name in list_folders(model, repository)]
    with Staging(repository) as staging:
        staging.publish([], retire=folders)


def list_folders(model: str, repository: Path) -> list[str]:
    """Return the folders of a model, ensembles before steps.

    Raises:
        ExportError: The repository contains no such model.
    """
    slugs = {model.removesuffix(suffix) for suffix in list_possible_folders("")} | {model}
    existing = {path.name for path in repository.glob("*") if not is_other(path)}
    candidates = [
        [name for name in list_possible_folders(slug) if name in existing]
        for slug in (slugs if (repository / model).is_dir() else [model])
    ]
    folders = max(candidates, key=len)  # x_preprocess_text may be a step of x, or the ensemble of x_preprocess
    if not folders:
        raise ExportError(f"{repository} contains no model {model}")
    return folders


def is_other(path: Path) -> bool:
    """Return whether `x_rank_image` is an ensemble of x-rank, which embeds images: then x has no ensemble `x_rank`."""
    reranker = path.with_name(path.name.removesuffix(f"_{names.IMAGE}"))
    return path.name.endswith(f"_{names.RANK_IMAGE}") and not reranker.exists()


def list_possible_folders(public_id: str) -> list[str]:
    """Return the names of all folders that a model may have, ensembles before steps."""
    return list(reversed(names.possible_model_names(public_id)))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m deploy.remove_model PUBLIC_ID ...")
    sys.exit(main(sys.argv[1:], Path(os.environ["REPOSITORY"])))
