"""Prints the dependencies of `pyproject.toml`: `python -m deploy.requirements [EXTRA...]`, in the project's folder.

Images install them in a layer of their own, which a change of the code leaves as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tomllib


def list_requirements(pyproject: str, extras: list[str]) -> list[str]:
    """Return the requirements of the project and of some of its extras.

    Raises:
        KeyError: There is no such extra.
    """
    project = tomllib.loads(pyproject)["project"]
    return [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in list_requirements(Path("pyproject.toml").read_text(), sys.argv[1:]))
