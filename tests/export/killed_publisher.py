"""A script that publishes or recovers, and kills itself before its n-th matching call to the file system.

Run as `python killed_publisher.py REPOSITORY N PATTERN ACTION`, ACTION being `recover`, `publish` or `replace`.
"""

import os
import re
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from export.publish import Staging, recover  # noqa: E402

STEPS = ("m_preprocess_text", "m_embedder", "m_text")
OLD = (*STEPS, "m_image")
REQUESTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "fcntl.flock"}


def publish(
    repository: Path, names: tuple[str, ...] = STEPS, retire: tuple[str, ...] = (), content: str = "new"
) -> None:
    """Publish small models whose files contain `content`."""
    with Staging(repository) as staging:
        for name in names:
            (staging.models / name / "1").mkdir(parents=True)
            (staging.models / name / "config.pbtxt").write_text(f"{content} {name}")
        staging.publish(names, retire)


def kill_self_at(count: int, pattern: str) -> None:
    left = count

    def count_down(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in REQUESTS and re.search(pattern, f"{event} {arguments}"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_down)


if __name__ == "__main__":
    repository, count, pattern, action = sys.argv[1:]
    kill_self_at(int(count), pattern)
    if action == "recover":
        recover(Path(repository))
    else:
        publish(Path(repository), retire=tuple(reversed(OLD)) if action == "replace" else ())
