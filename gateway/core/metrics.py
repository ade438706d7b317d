"""Prometheus metrics of the gateway: `GET /v1/metrics`. Triton has its own."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.core.admission import Admission
from gateway.core.results import Usage

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers of one port share their metrics; prometheus_client reads it on import."""

NO_ROUTE = "unmatched"

M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of one application, in a registry of their own.

    Args:
        admission: Whose gates are shown.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        self._registry = CollectorRegistry()
        self._is_multiprocess = MULTIPROCESS_DIR in os.environ
        self.in_flight = self._gauge("tessera_requests_in_flight", "Requests in flight.")
        self.connections = self._gauge("tessera_connections", "Open connections.")
        self._refusals = self._counter(
            "tessera_refused_connections_total", "Connections refused or closed by the server.", ["reason"]
        )
        self._tokens_in_flight = self._gauge(
            "tessera_tokens_in_flight", "Estimated tokens that the engine works on.", ["model", "gate"]
        )
        self._tokens_queued = self._gauge(
            "tessera_tokens_queued", "Estimated tokens that wait for their turn.", ["model", "gate"]
        )
        self._tokens_limit = self._gauge(
            "tessera_tokens_limit", "Estimated tokens that may be in flight at the moment.", ["model", "gate"]
        )
        self._requests = self._counter(
            "tessera_requests_total", "Requests completed.", ["route", "dialect", "model", "status"]
        )
        self._seconds = self._histogram("tessera_request_seconds", "Time from arrival to response.", ["route"])
        self._stage_seconds = self._histogram(
            "tessera_stage_seconds", "Time in each stage of an inference request.", ["stage"]
        )
        self._items = self._counter("tessera_items_total", "Items embedded or ranked.", ["model"])
        self._tokens = self._counter("tessera_tokens_total", "Tokens embedded or ranked.", ["model", "modality"])
        self._tiles = self._counter("tessera_tiles_total", "Image tiles embedded or ranked.", ["model"])
        self._image_bytes = self._counter(
            "tessera_image_bytes_total", "Bytes of encoded images embedded or ranked.", ["model"]
        )

    def _gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(name, description, labels, registry=self._registry, multiprocess_mode="livesum")

    def _counter(self, name: str, description: str, labels: Sequence[str]) -> Counter:
        return Counter(name, description, labels, registry=self._registry)

    def _histogram(self, name: str, description: str, labels: Sequence[str]) -> Histogram:
        return Histogram(name, description, labels, buckets=BUCKETS_S, registry=self._registry)

    def _child(self, metric: M, *labels: str) -> M:
        """Return a cached `metric.labels(...)`, which locks, checks and converts on each call."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return cast(M, child)

    def _set_gates(self) -> None:
        """Set the gauges of this worker's gates; those of other workers are as of their last request."""
        for key, gate in self._admission.gates.items():
            self._child(self._tokens_in_flight, *key).set(gate.in_flight)
            self._child(self._tokens_queued, *key).set(gate.queued)
            self._child(self._tokens_limit, *key).set(gate.limit)

    def count_request(self, route: str, dialect: str, model: str, status: int, seconds: float) -> None:
        """Count a completed request.

        Args:
            route: Path template, or empty if no route matched.
            dialect: Name of the route's dialect, or empty.
            model: Public id of a served model, so that label values stay few; or empty.
            status: HTTP status.
            seconds: From arrival to response.
        """
        if self._is_multiprocess:  # for scrapes that another worker answers
            self._set_gates()
        self._child(self._requests, route or NO_ROUTE, dialect, model, str(status)).inc()
        self._child(self._seconds, route or NO_ROUTE).observe(seconds)

    def count_refusal(self, reason: str) -> None:
        """Count a connection that was refused, or closed by the server before its client did."""
        self._child(self._refusals, reason).inc()

    def observe_stages(self, stage_s: Mapping[str, float]) -> None:
        """Record the seconds that a request spent in each stage, by its name."""
        for stage, seconds in stage_s.items():
            self._child(self._stage_seconds, stage).observe(seconds)

    def count_usage(self, model: str, items: int, usage: Usage) -> None:
        """Count what a successful request consumed."""
        self._child(self._items, model).inc(items)
        self._child(self._tokens, model, "text").inc(usage.text_tokens)
        if usage.image_bytes:
            self._child(self._tokens, model, "image").inc(usage.image_tokens)
            self._child(self._tiles, model).inc(usage.tiles)
            self._child(self._image_bytes, model).inc(usage.image_bytes)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics of all workers in Prometheus' text format, and its content type."""
        self._set_gates()
        registry = self._registry
        if self._is_multiprocess:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
