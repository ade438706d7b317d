"""Clients that embed the same few items again and again, and compare every vector with the first one."""

from __future__ import annotations

import base64
import io
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from PIL import Image

from bench.servers import post_json

Kind: TypeAlias = Literal["text", "image"]
Verdict: TypeAlias = Literal["right", "wrong", "refused"]

REQUEST_TIMEOUT_S = 60.0
PAUSE_S = 0.05
MAX_DIFFERENCE = 1e-3
TEXTS = ("A man is eating food.", "What is NVIDIA?", "Съешь же ещё этих мягких французских булок, да выпей чаю.")


@dataclass(frozen=True)
class Outcome:
    """How a request went, and when: on the clock of `time.monotonic`."""

    kind: Kind
    verdict: Verdict
    sent_s: float
    ended_s: float


def make_bodies(text_model: str, image_model: str, images: int = 1) -> Mapping[str, tuple[Kind, dict[str, Any]]]:
    """Return request bodies and their kinds, by a name for each: texts of both models, and images.

    Args:
        text_model: Public id of a model.
        image_model: Public id of a model that takes images.
        images: 1 for a small image; more are large ones, for which the stubs need further shared memory.
    """
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((256, 256) if images == 1 else (1536, 1024)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {
        "text": ("text", {"model": text_model, "input": list(TEXTS)}),
        "text of the image model": ("text", {"model": image_model, "input": TEXTS[0]}),
        "image": ("image", {"model": image_model, "input": [url] * images, "modality": ["image"] * images}),
    }


def post(url: str, body: Mapping[str, Any], timeout_s: float = REQUEST_TIMEOUT_S) -> np.ndarray[Any, Any]:
    """Return the vectors of a request, `(items, dimensions)`.

    Raises:
        OSError: It is refused, fails, or takes too long.
    """
    data = post_json(f"{url}/v1/embeddings", body, timeout_s)["data"]
    return np.array([item["embedding"] for item in data])


def read_status(url: str, timeout_s: float = 10.0) -> int:
    """Return the HTTP status of a GET; 0 if there is no response."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Traffic:
    """Clients of a service, one thread for each request body, from the start of the block to its end.

    Args:
        url: URL of the service, which has to be ready.
        bodies: What to send, as `make_bodies` returns it.
    """

    def __init__(self, url: str, bodies: Mapping[str, tuple[Kind, dict[str, Any]]]) -> None:
        self._url = url
        self._bodies = bodies
        self._references = {name: post(url, body) for name, (_, body) in bodies.items()}
        self._stopping = threading.Event()
        self._in_flight: dict[str, float] = {}
        self._threads = [threading.Thread(target=self._send, args=(name,), daemon=True) for name in bodies]
        self.outcomes: list[Outcome] = []

    def __enter__(self) -> Self:
        """Start the clients."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clients once their requests have ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT_S)

    def _send(self, name: str) -> None:
        kind, body = self._bodies[name]
        while not self._stopping.is_set():
            sent_s = self._in_flight[name] = time.monotonic()
            verdict: Verdict = "right"
            try:
                vectors = post(self._url, body)
                if not np.allclose(vectors, self._references[name], atol=MAX_DIFFERENCE):
                    verdict = "wrong"
            except (OSError, ValueError):
                verdict = "refused"
            del self._in_flight[name]
            self.outcomes.append(Outcome(kind, verdict, sent_s, time.monotonic()))
            self._stopping.wait(PAUSE_S)

    def since(self, moment_s: float) -> Sequence[Outcome]:
        """Return the outcomes of requests that ended after a moment."""
        return [outcome for outcome in list(self.outcomes) if outcome.ended_s >= moment_s]

    def is_calm(self, calm_s: float) -> bool:
        """Return whether every client has been answered rightly, and soon, for that long."""
        now_s = time.monotonic()
        recent = self.since(now_s - calm_s)
        slow = any(now_s - sent_s > calm_s for sent_s in list(self._in_flight.values()))
        kinds = {outcome.kind for outcome in recent}
        return not slow and len(kinds) == 2 and all(outcome.verdict == "right" for outcome in recent)
