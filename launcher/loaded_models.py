"""Which models Triton has loaded, as it says itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

CALL_TIMEOUT_S = 5.0

UNLOADED = "unloaded"
"""Triton's reason for a model that is unavailable because it was removed."""

STATES = ("UNAVAILABLE", "", "UNLOADING", "LOADING", "READY")
"""Of a version of a model; of several versions, the last one here counts."""

UNKNOWN = ("", "")


class LoadError(Exception):
    """Triton did not load a model. The message is the reason."""


class TritonLostError(Exception):
    """Triton does not respond any more."""


class LoadedModels:
    """Questions to Triton about its models.

    Args:
        address: Of its gRPC API.
    """

    def __init__(self, address: str) -> None:
        channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def is_live(self) -> bool:
        """Return whether Triton responds, and has tried to load the models that it started with."""
        try:
            return bool(self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=CALL_TIMEOUT_S).live)
        except grpc.RpcError:
            return False

    def have_loaded(self, names: Iterable[str]) -> bool:
        """Return whether Triton has loaded all these steps.

        Raises:
            LoadError: It could not load one.
            TritonLostError: It does not respond.
        """
        states = self._read_states()
        found = {name: states.get(name, UNKNOWN) for name in names}
        for name, (state, reason) in found.items():
            if state == "UNAVAILABLE" and reason != UNLOADED:
                raise LoadError(f"{name}: {' '.join(reason.split())}")
        return all(state == "READY" for state, _ in found.values())

    def have_swapped(self, entries: Iterable[str], ensembles: Mapping[str, tuple[str, ...]]) -> bool:
        """Return whether Triton serves the entries of a model, and its ensembles by their new steps.

        An entry that could not be loaded may still be the one before, until Triton has looked at its folder again.

        Raises:
            TritonLostError: It does not respond.
        """
        states = self._read_states()
        is_ready = all(states.get(entry, UNKNOWN)[0] == "READY" for entry in entries)
        return is_ready and all(self._read_steps(ensemble) == steps for ensemble, steps in ensembles.items())

    def have_left(self, names: Iterable[str]) -> bool:
        """Return whether Triton has unloaded all these models.

        Raises:
            TritonLostError: It does not respond.
        """
        states = self._read_states()
        return not any(states.get(name, UNKNOWN)[0] in ("READY", "LOADING", "UNLOADING") for name in names)

    def _read_states(self) -> Mapping[str, tuple[str, str]]:
        """Return the state of each model, and the reason for it."""
        try:
            index = self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and self.is_live():
                return self._read_states()
            raise TritonLostError from error
        ordered = sorted(index.models, key=lambda model: STATES.index(model.state) if model.state in STATES else 0)
        return {model.name: (model.state, model.reason) for model in ordered}

    def _read_steps(self, ensemble: str) -> tuple[str, ...]:
        """Return the steps of an ensemble as Triton serves it; none while it does not."""
        try:
            response = self._stub.ModelConfig(service_pb2.ModelConfigRequest(name=ensemble), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError:
            return ()
        return tuple(step.model_name for step in response.config.ensemble_scheduling.step)
