"""The export service's command with real exports."""

import os
import subprocess
import sys

import pytest

from deploy.export_missing import ExportSettings
from export.verify import verify
from tests.export.tiny_bert import write_tiny_bert
from tests.service import PROJECT


@pytest.fixture
def run_command(tmp_path, services):
    """Run the service's command as Compose would, with paths below `tmp_path`."""
    program, *arguments = services["export"]["command"]
    assert program == "python"

    def run(**variables):
        environment = os.environ | {"NAME": "", "REVISION": "", "REPOSITORY": str(tmp_path / "models" / "repository")}
        return subprocess.run(
            [sys.executable, *arguments], cwd=PROJECT, env=environment | variables, capture_output=True, text=True
        )

    return run


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny_bert(tmp_path / "checkpoints" / "tiny-bert")


@pytest.mark.slow
def test_a_model_is_exported_once_and_again_for_another_target(run_command, checkpoint, tmp_path):
    repository = tmp_path / "models" / "repository"
    first = run_command(MODEL=str(checkpoint))
    assert first.returncode == 0, first.stderr
    assert list(verify(repository)) == ["tiny-bert"]
    published = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}

    second = run_command(MODEL=str(checkpoint))
    assert (second.returncode, second.stderr) == (0, f"{repository} already contains tiny-bert\n")
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == published

    other_target = run_command(MODEL=str(checkpoint), TARGET="cuda")
    assert other_target.returncode == 0, other_target.stderr
    assert "KIND_GPU" in (repository / "tiny_bert_embedder" / "config.pbtxt").read_text()

    [weights] = repository.glob("tiny_bert_embedder/1/*.data")
    weights.write_bytes(b"\x01" + weights.read_bytes()[1:])
    damaged = run_command(MODEL=str(checkpoint), TARGET="cuda")
    assert damaged.returncode == 1
    assert "tiny_bert_embedder" in damaged.stderr


def test_another_name_and_revision_are_passed_on(tmp_path):
    settings = ExportSettings(model="a/b", repository=tmp_path, name="c/d", revision="main")
    assert settings.public_id == "c/d"
    assert settings.arguments[:5] == ["a/b", "--name", "c/d", "--revision", "main"]


@pytest.mark.parametrize(
    ("variables", "status", "message"),
    [
        ({"MODEL": ""}, 2, "error: MODEL: Field required"),
        ({"MODEL": "a/b", "PRECISION": "fp8"}, 2, "error: PRECISION: Input should be"),
        ({"MODEL": "/checkpoints/not-mounted"}, 1, "error: /checkpoints/not-mounted is neither a folder nor a hub id"),
    ],
)
def test_an_export_that_is_impossible_ends_with_one_line(run_command, variables, status, message):
    refused = run_command(**variables)
    assert refused.returncode == status
    assert refused.stderr.startswith(message)
    assert refused.stderr.count("\n") == 1
