"""The Dockerfiles, as far as they can be checked without Docker."""

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.conftest import read_instructions
from tests.service import PROJECT

DOCKERFILES = sorted((PROJECT / "deploy").glob("*.Dockerfile"))
PINNED = {line.partition("==")[0] for line in (PROJECT / "constraints.txt").read_text().splitlines()}
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def list_sources(dockerfile: Path) -> list[str]:
    """Return the files and folders of the project that are copied into the image."""
    copies = [words.split() for words in read_instructions(dockerfile, "COPY") if "--from=" not in words]
    return [source for *sources, _ in copies for source in sources]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.stem)
def dockerfile(request):
    return request.param


def test_base_images_are_pinned_to_a_version(dockerfile):
    arguments = dict(argument.split("=", 1) for argument in read_instructions(dockerfile, "ARG"))
    bases = [base.split()[0] for base in read_instructions(dockerfile, "FROM")]
    bases = [arguments.get(base.removeprefix("$"), base) for base in bases]
    assert bases
    for base in bases:
        assert re.fullmatch(
            r"(python:3\.11|gcc:14\.2)\.\d+(-slim)?-\w+|nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", base
        )


def test_dependencies_are_pinned(dockerfile):
    commands = "\n".join(read_instructions(dockerfile, "RUN"))
    installs = re.findall(r"pip (?:install|download) [^&\n]*", commands)
    assert installs
    assert all(re.search(r"--constraint \S*constraints\.txt", command) for command in installs)


def test_copied_files_exist_and_are_in_the_build_context(dockerfile):
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    sources = list_sources(dockerfile)
    assert sources
    for source in sources:
        assert (PROJECT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in sent)


def test_the_last_user_is_not_root(dockerfile):
    assert read_instructions(dockerfile, "USER")[-1] == "1000:1000"


def test_dependencies_are_installed_before_the_code_is_copied(dockerfile):
    text = dockerfile.read_text()
    last_install = max(match.start() for match in re.finditer(r"pip install", text))
    code = [text.index(f"COPY {source}") for source in list_sources(dockerfile) if (PROJECT / source).is_dir()]
    assert code
    assert min(code) > last_install


def test_telemetry_is_off(dockerfile):
    assert "ORT_DISABLE_TELEMETRY=1" in " ".join(read_instructions(dockerfile, "ENV"))


@pytest.mark.parametrize("folder", ["gateway", "export"])
def test_an_image_installs_the_packages_that_its_code_imports(folder):
    commands = "\n".join(read_instructions(PROJECT / "deploy" / f"{folder}.Dockerfile", "RUN"))
    assert "--requirements pyproject.toml" in commands
    extras = re.findall(r"--extra (\w+)", commands)
    requirements = [*PYPROJECT["dependencies"]]
    for extra in extras:
        requirements += PYPROJECT["optional-dependencies"][extra]
    installed = {canonicalize_name(Requirement(line).name) for line in requirements}
    assert third_party_packages(PROJECT / folder) <= installed


@pytest.mark.parametrize("module", ["gateway.__main__", "export.pipeline", "deploy.export_missing"])
def test_an_image_contains_the_modules_that_its_command_imports(module, tmp_path):
    name = "gateway" if module.startswith("gateway") else "export"
    for source in list_sources(PROJECT / "deploy" / f"{name}.Dockerfile"):
        copy(PROJECT / source, tmp_path / source)
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}; print({module}.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def test_triton_gets_only_the_packages_that_preprocessing_imports():
    commands = "\n".join(read_instructions(PROJECT / "deploy" / "triton.Dockerfile", "RUN"))
    [install] = re.findall(r"pip install --no-deps --constraint \S+ (.+)", commands)
    assert {*install.split(), "numpy"} == third_party_packages(PROJECT / "backends" / "preprocess")
    assert set(install.split()) <= PINNED


def third_party_packages(folder: Path) -> set[str]:
    """Return the distributions of all imports in a folder, including those inside functions."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    own = {folder.name, "triton_python_backend_utils"}
    distributions = {**packages_distributions(), "google": ["protobuf"]}  # google: a namespace of several
    top_level = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - own
    return {canonicalize_name(distributions.get(name, [name])[0]) for name in top_level}


def test_preprocessing_needs_no_package_beside_those():
    """They are installed without what they depend on."""
    script = "import sys; sys.modules['huggingface_hub'] = None; import preprocess.steps, preprocess.decode_pool"
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "backends")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_the_onnxruntime_backend_stays_nvidias_own():
    sources = list_sources(PROJECT / "deploy" / "triton.Dockerfile")
    assert [source for source in sources if source.startswith("backends")] == ["backends/preprocess"]
