from pathlib import Path

import pytest

from launcher.logs import TAIL_LINES, read_tail, rotate_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "triton.log"


def backups(log: Path) -> dict[str, str]:
    return {path.suffix: path.read_text() for path in log.parent.glob(f"{log.name}.*")}


def test_a_log_above_its_limit_is_moved_away_under_the_process_that_writes_it(log: Path) -> None:
    with log.open("a") as file:
        for content in ("first", "second", "third", "fourth"):
            file.write(content)
            file.flush()
            rotate_log(log, max_bytes=4, backups=2)
        assert log.stat().st_size == 0
        file.write("last")
    assert log.read_text() == "last"
    assert backups(log) == {".1": "fourth", ".2": "third"}


def test_a_log_within_its_limit_stays(log: Path) -> None:
    log.write_text("abcd")
    rotate_log(log, max_bytes=4, backups=2)
    assert log.read_text() == "abcd" and not backups(log)


def test_without_backups_the_content_is_dropped(log: Path) -> None:
    log.write_text("abcde")
    rotate_log(log, max_bytes=4, backups=0)
    assert log.read_text() == "" and not backups(log)


def test_a_log_that_cannot_be_copied_is_cut_off_all_the_same(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_to_a_full_disk(source: Path, target: Path) -> None:
        target.write_text("ab")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", copy_to_a_full_disk)
    log.write_text("abcde")
    rotate_log(log, max_bytes=4, backups=1)
    assert log.read_text() == "" and not backups(log)


def test_the_tail_has_the_last_lines(log: Path) -> None:
    log.write_text("\n".join(map(str, range(100_000))))
    assert read_tail(log).splitlines() == [str(number) for number in range(100_000 - TAIL_LINES, 100_000)]
