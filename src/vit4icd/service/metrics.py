"""Figures that a monitor reads: requests, the queue, batches, collections; it judges none."""

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """One service's own figures; nothing is kept for the whole process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    batch: Histogram = field(init=False)
    decisions: Counter = field(init=False)

    def __post_init__(self) -> None:
        def set_(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        set_("requests", Counter(
            "vit4icd_requests", "Requests, by route and status.", ["method", "route", "status"],
            registry=self.registry,
        ))  # fmt: skip
        set_("seconds", Histogram(
            "vit4icd_request_seconds", "Seconds that requests took.", ["method", "route"],
            buckets=_SECONDS, registry=self.registry,
        ))  # fmt: skip
        set_("batch", Histogram(
            "vit4icd_batch_jobs", "Jobs that the engine did in one go.",
            buckets=(1, 2, 4, 8, 12, 16), registry=self.registry,
        ))  # fmt: skip
        set_("decisions", Counter(
            "vit4icd_decisions", "Decisions of people.", ["decision"], registry=self.registry,
        ))  # fmt: skip

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a figure that is read when it is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        return generate_latest(self.registry)
