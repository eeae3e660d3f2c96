"""What the server counts: for Prometheus, and for the statistics of the Open Inference Protocol."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (*Histogram.DEFAULT_BUCKETS[:-1], 30.0, 60.0)  # explanations and large photographs take more than 10
_NANO = 10**9


@dataclass(slots=True)
class Statistics:
    """Of one model, since the server started; an ``Observer``. Seconds are sums, and by size of the batch."""

    name: str
    telemetry: Telemetry
    inferences: int = 0
    failures: int = 0
    last: float = 0.0
    waited: float = 0.0
    batches: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    seconds: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    _lock: Lock = field(default_factory=Lock)

    def batch(self, waited: Sequence[float], seconds: float, failed: int) -> None:
        with self._lock:
            self.inferences += len(waited) - failed
            self.failures += failed
            self.last = time.time()
            self.waited += sum(waited)
            self.batches[len(waited)] += 1
            self.seconds[len(waited)] += seconds
        self.telemetry.batch_images.labels(self.name).observe(len(waited))
        self.telemetry.model_seconds.labels(self.name).observe(seconds)

    def to_json(self, version: str) -> dict[str, Any]:
        """As the statistics extension of the protocol has it; what is not measured apart is 0."""
        with self._lock:
            total = self.waited + sum(size * seconds for size, seconds in self.seconds.items())
            spent = {
                "success": _spent(self.inferences, total),
                "fail": _spent(self.failures, 0.0),
                "queue": _spent(self.inferences + self.failures, self.waited),
                "compute_input": _spent(0, 0.0),
                "compute_infer": _spent(sum(self.batches.values()), sum(self.seconds.values())),
                "compute_output": _spent(0, 0.0),
            }
            each = [
                {"batch_size": size, "compute_infer": _spent(count, self.seconds[size])}
                for size, count in sorted(self.batches.items())
            ]
            return {
                "name": self.name,
                "version": version,
                "last_inference": round(1000 * self.last),
                "inference_count": self.inferences,
                "execution_count": sum(self.batches.values()),
                "inference_stats": spent,
                "batch_stats": each,
            }


def _spent(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(_NANO * seconds)}


class Telemetry:
    """A registry of its own, so that several servers in a process do not mix."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "snellen_requests", "Requests that were answered.", ["route", "method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "snellen_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue = Gauge(
            "snellen_queue_images", "Images taken in and not answered yet.", ["model"], registry=registry
        )
        self._refused = Counter("snellen_decode_errors", "Files that were not decoded.", ["reason"], registry=registry)
        self.batch_images = Histogram(
            "snellen_batch_images", "Images answered together.", ["model"], buckets=_BATCHES, registry=registry
        )
        self.model_seconds = Histogram("snellen_model_seconds", "A batch in the model.", ["model"], registry=registry)
        for reason in ("refused", "died"):
            self._refused.labels(reason)

    def watch_queue(self, model: str, length: Callable[[], int]) -> None:
        self._queue.labels(model).set_function(length)

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        self._requests.labels(route, method, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def decode_error(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
