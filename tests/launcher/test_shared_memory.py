import mmap
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from export.repository import CONFIG
from launcher.errors import SharedMemoryFullError
from launcher.shared_memory import check_room, count_stubs, remove_dead_regions

NAME = "triton_preprocess_backend_shm_region_6f2"


def test_regions_of_dead_servers_are_removed_and_those_of_others_stay() -> None:
    with TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        dead, mapped, foreign = folder / f"{NAME}_dead", folder / f"{NAME}_mapped", folder / "other_software"
        for path in (dead, mapped, foreign):
            path.write_bytes(bytes(4096))
        descriptor = os.open(mapped, os.O_RDWR)
        with mmap.mmap(descriptor, 4096):
            os.close(descriptor)
            assert remove_dead_regions(folder) == 1
            assert set(folder.iterdir()) == {mapped, foreign}
        assert remove_dead_regions(folder) == 1
        assert set(folder.iterdir()) == {foreign}


def test_regions_of_other_processes_stay_while_they_are_open() -> None:
    with TemporaryDirectory(dir="/dev/shm") as name:
        region = Path(name) / NAME
        code = f"import sys; file = open({str(region)!r}, 'w+b'); print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            assert remove_dead_regions(Path(name)) == 0
            owner.communicate()
        assert remove_dead_regions(Path(name)) == 1


def write_config(repository: Path, name: str, content: str) -> None:
    (repository / name).mkdir(parents=True)
    (repository / name / CONFIG).write_text(content)


def test_every_instance_of_a_step_has_a_stub(tmp_path: Path) -> None:
    write_config(tmp_path, "m_text", "ensemble_scheduling { step { model_name: 'm_embedder' model_version: -1 } }")
    write_config(tmp_path, "m_embedder", "instance_group [ { count: 3 kind: KIND_CPU } ]")
    write_config(tmp_path, "m_preprocess_text", "")
    write_config(tmp_path, "damaged", "{{")
    assert count_stubs(tmp_path) == 4


def test_too_little_shared_memory_is_an_error_that_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, "m_embedder", "")
    check_room(tmp_path, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: _Usage())
    with pytest.raises(SharedMemoryFullError, match="has 8 MiB free, and these models need 32 MiB"):
        check_room(tmp_path, tmp_path)


class _Usage:
    free = 8 << 20
