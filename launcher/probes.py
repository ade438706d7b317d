"""Questions to the gateway and to Triton: do they respond, and do they make progress?"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from export import names

CALL_TIMEOUT_S = 1.0
READY_TIMEOUT_S = 5.0

MIN_CANARY_INTERVAL_S = 1.0
CANARY_INTERVAL_FACTOR = 10
"""The next canary is sent after this many times what the last one took, so that they cost little of any machine."""

CANARY_PATIENCE_S = 2.0
"""After this time without a response to its canary, an ensemble counts as silent."""

CANARY = b"Are you alive?"
CANARY_IMAGE = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""One pixel, and so one tile."""

DECODER = "preprocess.decode_worker"
"""Module that runs in the processes which decode images."""

WHOLE = ""
"""In place of an ensemble's name: the process as a whole."""


class Probe(Protocol):
    """Questions to one kind of process."""

    def find_silent(self) -> Collection[str]:
        """Return what does not respond in time: `WHOLE`, or the names of ensembles; empty if everything does."""
        ...

    def count_progress(self, name: str) -> int:
        """Return a number that grows while what has that name gets work done."""
        ...

    def works_for(self, process: psutil.Process, name: str) -> bool:
        """Return whether a process of the family does the work of what has that name."""
        ...

    def reset(self) -> None:
        """Forget the process: another takes its place."""
        ...


class GatewayProbe:
    """Questions to the gateway.

    Args:
        host: Address that the gateway listens on.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        reachable = host if host not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
        self._url = f"http://{reachable}:{port}/v1/health"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_ready(self) -> bool:
        """Return whether inferences through the gateway have succeeded."""
        return self._succeeds("ready", READY_TIMEOUT_S)

    def find_silent(self) -> Collection[str]:
        """Return `WHOLE` unless the gateway says that it is live."""
        return () if self._succeeds("live", CALL_TIMEOUT_S) else (WHOLE,)

    def count_progress(self, name: str) -> int:
        """Return 0: while it does not respond, only its processor time shows what the gateway does."""
        return 0

    def works_for(self, process: psutil.Process, name: str) -> bool:
        """Return True: all processes do the same."""
        return True

    def reset(self) -> None:
        """Do nothing: every question has a connection of its own."""

    def _succeeds(self, question: str, timeout_s: float) -> bool:
        try:
            with self._opener.open(f"{self._url}/{question}", timeout=timeout_s):
                return True
        except (urllib.error.URLError, OSError):
            return False


class TritonProbe:
    """Questions to Triton; a canary through each ensemble shows whether its Python stubs respond too.

    Args:
        address: Address of its gRPC API.
        list_ensembles: Returns the ensembles that it is to serve at the moment, each with the names of its steps.
    """

    def __init__(self, address: str, list_ensembles: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        self._address = address
        self._list_ensembles = list_ensembles
        self._channel: Any = None
        self.reset()

    def reset(self) -> None:
        """Connect again, and drop the canaries."""
        if self._channel is not None:
            self._channel.close()
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500)]
        self._channel = grpc.insecure_channel(self._address, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._canaries: dict[str, Canary] = {}

    def is_live(self) -> bool:
        """Return whether Triton says that it is live, which it does once it has tried to load every model."""
        try:
            return bool(self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=CALL_TIMEOUT_S).live)
        except grpc.RpcError:
            return False

    def find_silent(self) -> Collection[str]:
        """Return `WHOLE` unless Triton is live, else the ensembles whose canaries wait too long; send the next ones."""
        if not self.is_live():
            return (WHOLE,)
        now_s = time.monotonic()
        ensembles = self._list_ensembles()
        self._canaries = {name: canary for name, canary in self._canaries.items() if name in ensembles}
        due = [name for name in ensembles if name not in self._canaries or self._canaries[name].is_spent(now_s)]
        if due:
            self._canaries |= {name: Canary(self._stub, name) for name in self.list_loaded() if name in due}
        return [name for name, canary in self._canaries.items() if canary.is_overdue(now_s)]

    def count_progress(self, name: str) -> int:
        """Return how many inferences and executions of an ensemble's steps, or of all, have ended; 0 if unknown."""
        try:
            request = service_pb2.ModelStatisticsRequest()
            models = self._stub.ModelStatistics(request, timeout=CALL_TIMEOUT_S).model_stats
        except grpc.RpcError:
            return 0
        return sum(
            model.execution_count + model.inference_stats.success.count + model.inference_stats.fail.count
            for model in models
            if name == WHOLE or model.name in self._list_steps(name)
        )

    def works_for(self, process: psutil.Process, name: str) -> bool:
        """Return whether a process does the work of the ensemble's steps; all processes work for `WHOLE`."""
        if name == WHOLE:
            return True
        try:
            words = process.cmdline()
        except psutil.Error:
            return False
        if DECODER in words:
            return is_image(name)
        return any(step in Path(word).parts for word in words[:2] for step in self._list_steps(name))

    def _list_steps(self, ensemble: str) -> Sequence[str]:
        return self._list_ensembles().get(ensemble, ())

    def list_loaded(self) -> set[str]:
        """Return the models that Triton has loaded; none if it does not say."""
        try:
            request = service_pb2.RepositoryIndexRequest(ready=True)
            index = self._stub.RepositoryIndex(request, timeout=CALL_TIMEOUT_S).models
        except grpc.RpcError:
            return set()
        return {model.name for model in index if model.state == "READY"}


def is_image(ensemble: str) -> bool:
    """Return whether an ensemble embeds or ranks images."""
    return ensemble.endswith(f"_{names.IMAGE}")


class Canary:
    """A request to embed one short text or one small image, or to rank it.

    It has no timeout and is never cancelled: either can crash Triton's front end (its issues 7368 and 8034).

    Attributes:
        took_s: Time until it was answered, in whatever way; None while it waits.
    """

    def __init__(self, stub: Any, ensemble: str) -> None:
        self._sent_s = time.monotonic()
        self.took_s: float | None = None
        contents = {"image": CANARY_IMAGE} if is_image(ensemble) else {"text": CANARY}
        if ensemble.endswith((f"_{names.RANK}", f"_{names.RANK_IMAGE}")):
            contents["query"] = CANARY
        request: Any = service_pb2.ModelInferRequest(model_name=ensemble)
        for name, content in contents.items():
            request.inputs.add(name=name, datatype="BYTES", shape=(1, 1))
            request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
        self._call = stub.ModelInfer.future(request)
        self._call.add_done_callback(self._note_end)

    def is_overdue(self, now_s: float) -> bool:
        """Return whether it has waited too long."""
        return self.took_s is None and now_s - self._sent_s > CANARY_PATIENCE_S

    def is_spent(self, now_s: float) -> bool:
        """Return whether it has been answered, so long ago that it is time for the next one."""
        if self.took_s is None:
            return False
        pause_s = max(MIN_CANARY_INTERVAL_S, CANARY_INTERVAL_FACTOR * self.took_s)
        return now_s >= self._sent_s + self.took_s + pause_s

    def _note_end(self, call: Any) -> None:
        self.took_s = time.monotonic() - self._sent_s
