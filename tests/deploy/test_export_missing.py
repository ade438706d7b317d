"""The export service's command with real exports."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.export_missing import ExportSettings, find_differences
from deploy.remove_model import main as remove_model
from export.progress import Progress
from export.verify import verify_each
from tests.deploy.conftest import read_form
from tests.export.hub_server import COMMIT, Hub, serve_hub
from tests.export.tiny_bert import write_tiny_bert
from tests.service import PROJECT

PINNED = "sentence-transformers/all-MiniLM-L6-v2"
PINNED_COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "models" / "repository"


@pytest.fixture
def command(repository):
    """The service's command and environment, with paths below `tmp_path`."""
    program, *arguments = read_form("cpu")["services"]["export"]["command"]
    assert program == "python"
    environment = os.environ | {"NAME": "", "REVISION": "", "REPOSITORY": str(repository)}
    return [sys.executable, *arguments], environment


@pytest.fixture
def run_command(command):
    """Run the service's command as Compose would."""
    words, environment = command

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=PROJECT, env=environment | variables, capture_output=True, text=True)

    return run


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny_bert(tmp_path / "checkpoints" / "tiny-bert")


def damage(repository: Path) -> None:
    """Change a byte of the weights."""
    [weights] = repository.glob("tiny_bert_embedder/1/*.data")
    weights.write_bytes(b"\x01" + weights.read_bytes()[1:])


@pytest.mark.slow
def test_a_model_is_exported_once_and_again_if_it_differs_or_is_damaged(run_command, checkpoint, repository):
    first = run_command(MODEL=str(checkpoint))
    assert first.returncode == 0, first.stderr
    assert list(verify_each(repository).intact) == ["tiny-bert"]
    published = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}

    second = run_command(MODEL=str(checkpoint))
    assert second.returncode == 0
    assert re.fullmatch(rf"\[ .* s\] {repository} already contains tiny-bert\n", second.stderr)
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == published

    other = run_command(MODEL=str(checkpoint), TARGET="cuda", PRECISION="fp16")
    assert other.returncode == 0, other.stderr
    reason = "its precision is fp32, and fp16 is asked for; its target is cpu, and cuda is asked for"
    assert f"tiny-bert is exported again: {reason}\n" in other.stderr
    assert "KIND_GPU" in (repository / "tiny_bert_embedder" / "config.pbtxt").read_text()

    damage(repository)
    (repository / "tiny_bert_text" / "config.pbtxt").write_text("not a config")
    repaired = run_command(MODEL=str(checkpoint))
    assert repaired.returncode == 0, repaired.stderr
    assert "tiny_bert_text is damaged, and exported again: " in repaired.stderr
    assert list(verify_each(repository).intact) == ["tiny-bert"]

    damage(repository)
    refused = run_command(MODEL="org/another")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: tiny-bert is damaged: ")
    assert refused.stderr.endswith("docker compose run --rm export python -m deploy.remove_model tiny-bert\n")
    assert remove_model(["tiny-bert"], repository) == 0
    assert list(repository.iterdir()) == []


@pytest.mark.slow
def test_a_signal_to_stop_is_answered_and_leaves_nothing(command, checkpoint, repository):
    words, environment = command
    lines = []
    environment |= {"MODEL": str(checkpoint)}
    with subprocess.Popen(words, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True) as export:
        for line in export.stderr or ():
            lines.append(line)
            if "validate against the reference ..." in line:
                export.send_signal(signal.SIGTERM)
    assert export.returncode == 130
    assert lines[-2:] == ["SIGTERM: stopping the export\n", "error: interrupted; the repository is unchanged\n"]
    assert list(repository.parent.iterdir()) == []


def test_another_name_and_revision_are_passed_on(tmp_path):
    settings = ExportSettings(model="a/b", repository=tmp_path, name="c/d", revision="main")
    assert settings.public_id == "c/d"
    assert settings.arguments[:5] == ["a/b", "--name", "c/d", "--revision", "main"]


@pytest.mark.parametrize(
    ("model", "revision", "held", "difference"),
    [
        ("org/model", None, "f" * 40, None),
        ("org/model", "f" * 40, "f" * 40, None),
        ("org/model", "0" * 40, "f" * 40, f"its revision is {'f' * 40}, and {'0' * 40} is asked for"),
        (PINNED, None, PINNED_COMMIT, None),
        (PINNED, None, "f" * 40, f"its revision is {'f' * 40}, and {PINNED_COMMIT} is asked for"),
    ],
)
def test_another_revision_is_a_difference(tmp_path, model, revision, held, difference):
    settings = ExportSettings(model=model, repository=tmp_path, revision=revision)
    manifest = {"source": model, "precision": "fp32", "target": "cpu", "revision": held}
    assert list(find_differences(manifest, settings, Progress())) == ([difference] if difference else [])


def test_a_branch_is_looked_up_on_the_hub(tmp_path, checkpoint, monkeypatch):
    settings = ExportSettings(model="org/model", repository=tmp_path, revision="main")
    manifest = {"source": "org/model", "precision": "fp32", "target": "cpu", "revision": "f" * 40}
    with serve_hub(Hub("org/model", checkpoint)) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        [difference] = find_differences(manifest, settings, Progress())
    assert difference == f"its revision is {'f' * 40}, and {COMMIT} is asked for"


def test_without_the_hub_a_branch_is_what_is_held(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = ExportSettings(model="org/model", repository=tmp_path, revision="main")
    manifest = {"source": "org/model", "precision": "fp32", "target": "cpu", "revision": "f" * 40}
    assert list(find_differences(manifest, settings, Progress())) == []
    assert "so what main stands for now is unknown" in capsys.readouterr().err


def test_another_checkpoint_under_the_same_name_is_a_difference(tmp_path):
    settings = ExportSettings(model="org/new", repository=tmp_path, name="mine")
    manifest = {"source": "org/old", "precision": "fp32", "target": "cpu", "revision": None}
    assert list(find_differences(manifest, settings, Progress())) == ["its source is org/old, and org/new is asked for"]


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


@pytest.mark.parametrize("folder", ["", "weights"])
def test_a_checkpoint_that_must_not_be_read_is_named_in_one_line(command, checkpoint, folder):
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and not setpriv:
        pytest.skip("root reads everything, and setpriv, which takes that away, is not installed")
    unreadable = checkpoint / "model.safetensors" if folder else checkpoint.parent
    unreadable.chmod(0)
    words, environment = command
    if os.geteuid() == 0:
        words = [str(setpriv), "--bounding-set=-dac_override,-dac_read_search", *words]
    refused = subprocess.run(
        words, cwd=PROJECT, env=environment | {"MODEL": str(checkpoint)}, capture_output=True, text=True
    )
    unreadable.chmod(0o700)
    assert refused.returncode == 1
    *_, last = refused.stderr.splitlines()
    assert last.startswith("error: ") and f"cannot be read by user {os.geteuid()}" in last
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("name", ["x", "x_preprocess"])
def test_a_model_is_removed_by_the_name_of_one_of_its_folders(tmp_path, name):
    """Where its configuration cannot be read any more, that is all that is known of it."""
    for folder in ("x_preprocess_text", "x_embedder", "x_text", "x_preprocess_embedder", "y_text"):
        (tmp_path / "repository" / folder).mkdir(parents=True)
    if name == "x":
        (tmp_path / "repository" / "x_preprocess_embedder").rmdir()
    assert remove_model(["x_text"], tmp_path / "repository") == 0
    left = {"y_text"} if name == "x" else {"y_text", "x_preprocess_embedder"}
    assert {path.name for path in (tmp_path / "repository").iterdir()} == left


def test_a_reranker_is_removed_and_a_model_with_a_similar_name_is_not(tmp_path):
    for folder in ("x_text", "x_rank_text", "x_rank_image", "y_rank", "y_rank_image", "y_reranker"):
        (tmp_path / "repository" / folder).mkdir(parents=True)
    assert remove_model(["org/x", "org/y"], tmp_path / "repository") == 0
    assert {path.name for path in (tmp_path / "repository").iterdir()} == {"x_rank_text", "x_rank_image"}


def test_a_model_that_is_not_there_cannot_be_removed(tmp_path, capsys):
    assert remove_model(["org/model"], tmp_path / "repository") == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/repository contains no model org/model\n"
