"""What Prometheus can read: `GET /v1/metrics`."""

import os
from typing import Any, TypeVar, cast

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.admission import Admission
from gateway.record import RequestRecord

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Upper bounds of the histograms' buckets."""

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers of one port share their numbers; prometheus_client reads it when it is imported."""

NO_ROUTE = "unmatched"


M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """The gateway's own numbers; Triton has its own port for its own."""

    def __init__(self, admission: Admission) -> None:
        """Starts every number at 0, in a registry of this application alone.

        Args:
            admission: whose gates are shown.
        """
        self._admission = admission
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        self._registry = CollectorRegistry()
        self.in_flight = Gauge(
            "tessera_requests_in_flight",
            "Requests being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._inside = Gauge(
            "tessera_tokens_inside",
            "Estimated tokens of requests that are worked on.",
            ("gate",),
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "tessera_tokens_waiting",
            "Estimated tokens of requests that wait for their turn.",
            ("gate",),
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._requests = Counter(
            "tessera_requests_total",
            "Requests answered.",
            ("route", "dialect", "model", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tessera_request_seconds",
            "Time from arrival to answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._stage_seconds = Histogram(
            "tessera_stage_seconds",
            "Time in each stage of an embeddings request.",
            ("stage",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._items = Counter("tessera_items_total", "Items embedded.", ("model",), registry=self._registry)
        self._tokens = Counter(
            "tessera_tokens_total", "Tokens embedded.", ("model", "modality"), registry=self._registry
        )
        self._tiles = Counter("tessera_tiles_total", "Image tiles embedded.", ("model",), registry=self._registry)
        self._image_bytes = Counter(
            "tessera_image_bytes_total", "Bytes of encoded images embedded.", ("model",), registry=self._registry
        )

    def _show_gates(self) -> None:
        """Reads the gates as they are now; other workers' are shown as of their last request."""
        for name, gate in (("text", self._admission.text), ("image", self._admission.image)):
            self._child(self._inside, name).set(gate.inside)
            self._child(self._waiting, name).set(gate.waiting)

    def _child(self, metric: M, *labels: str) -> M:
        """What `metric.labels` returns, remembered: it locks, checks and converts each time."""
        key = (metric, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return cast(M, child)

    def observe(self, record: RequestRecord, status: int) -> None:
        """Counts a request that has been answered.

        Args:
            record: of the request; its model is one that is served, so that labels stay few.
            status: of HTTP.
        """
        self._show_gates()
        route = record.route or NO_ROUTE
        self._child(self._requests, route, record.dialect.name, record.model, str(status)).inc()
        self._child(self._seconds, route).observe(record.age_s())
        for stage, seconds in record.stage_s.items():
            self._child(self._stage_seconds, stage).observe(seconds)
        if record.result is None:
            return
        usage = record.result.usage
        self._child(self._items, record.model).inc(record.items)
        self._child(self._tokens, record.model, "text").inc(usage.text_tokens)
        if usage.image_bytes:
            self._child(self._tokens, record.model, "image").inc(usage.image_tokens)
            self._child(self._tiles, record.model).inc(usage.tiles)
            self._child(self._image_bytes, record.model).inc(usage.image_bytes)

    def render(self) -> tuple[bytes, str]:
        """All numbers of all workers.

        Returns:
            Prometheus' text, and its content type.
        """
        self._show_gates()
        registry = self._registry
        if MULTIPROCESS_DIR in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
