"""A model hub with one model, on loopback: as much of the HTTP API as its client requests."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The model that the hub serves.

    Attributes:
        model: Its id.
        folder: Its files.
        published_sums: Sums of its weights, which may be wrong.
        failures: Statuses of the next responses, each to be sent instead of one.
        url: Where it is served.
    """

    model: str
    folder: Path
    published_sums: dict[str, str] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    url: str = ""

    def describe(self) -> dict[str, object]:
        """Return the response of the model API, with the sums of large files."""
        siblings: list[dict[str, object]] = []
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name, content = path.relative_to(self.folder).as_posix(), path.read_bytes()
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": sha1(content)}
            if name.endswith(".safetensors"):
                sum_ = self.published_sums.get(name, hashlib.sha256(content).hexdigest())
                entry["lfs"] = {"sha256": sum_, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {"id": self.model, "modelId": self.model, "sha": COMMIT, "private": False, "siblings": siblings}


def sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.respond()

        def do_GET(self) -> None:
            self.respond()

        def respond(self) -> None:
            if hub.failures:
                self.send(hub.failures.pop(0), b"", {})
                return
            path = self.path.split("?")[0]
            file = re.fullmatch(rf"/{hub.model}/resolve/{COMMIT}/(.*)", path)
            if re.fullmatch(rf"/api/models/{hub.model}(/revision/(main|{COMMIT}))?", path):
                self.send(200, json.dumps(hub.describe()).encode(), {"Content-Type": "application/json"})
            elif file and (hub.folder / file.group(1)).is_file():
                content = (hub.folder / file.group(1)).read_bytes()
                self.send(200, content, {"ETag": f'"{sha1(content)}"', "X-Repo-Commit": COMMIT})
            elif path.startswith(f"/api/models/{hub.model}/revision/"):
                self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

        def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
