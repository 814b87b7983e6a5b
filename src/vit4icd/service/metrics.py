"""Figures that a monitor reads: requests, the queue, batches, collections; it judges none."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from vit4icd.errors import Vit4icdError

__all__ = ["Metrics", "forget_process", "shared_figures"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # by which the client library knows that figures are shared


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """One service's own figures; with ``is_shared``, of all its processes together."""

    is_shared: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    seconds: Histogram = field(init=False)
    batch: Histogram = field(init=False)
    decisions: Counter = field(init=False)
    _own: list[tuple[Gauge, Callable[[], float]]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        def set_(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        registry = self._registry()
        if registry is not None:  # of several processes, those of the one that answers mean little
            ProcessCollector(registry=registry)
        set_("requests", Counter(
            "vit4icd_requests", "Requests, by route and status.", ["method", "route", "status"],
            registry=registry,
        ))  # fmt: skip
        set_("seconds", Histogram(
            "vit4icd_request_seconds", "Seconds that requests took.", ["method", "route"],
            buckets=_SECONDS, registry=registry,
        ))  # fmt: skip
        set_("batch", Histogram(
            "vit4icd_batch_jobs", "Jobs that the engine did in one go.",
            buckets=(1, 2, 4, 8, 12, 16), registry=registry,
        ))  # fmt: skip
        set_("decisions", Counter(
            "vit4icd_decisions", "Decisions of people.", ["decision"], registry=registry,
        ))  # fmt: skip

    def watch(
        self,
        name: str,
        meaning: str,
        value: Callable[[], float],
        *,
        over: Literal["livesum", "livemin"] | None = None,
    ) -> None:
        """Show a figure that is read when it is asked for.

        ``over`` says what it comes to over several processes; without it, all have the same.
        """
        if self.is_shared and over is not None:
            gauge = Gauge(name, meaning, registry=None, multiprocess_mode=over)
            self._own.append((gauge, value))
        else:
            self.registry.register(_Watched(name, meaning, value))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)
        self.tell()

    def tell(self) -> None:
        """Let the other processes know the figures of this one."""
        for gauge, value in self._own:
            gauge.set(value())

    def text(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        text = generate_latest(self.registry)
        if not self.is_shared:
            return text
        self.tell()
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return text + generate_latest(together)

    def _registry(self) -> CollectorRegistry | None:
        return None if self.is_shared else self.registry


@contextmanager
def shared_figures() -> Iterator[Path]:
    """Have the processes that are started within share their figures, in files of a folder."""
    with tempfile.TemporaryDirectory(prefix="vit4icd-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[_FOLDER]


def forget_process(number: int, folder: Path) -> None:
    """Leave what a process that ended was doing out of the figures; what it did stays."""
    mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, eq=False)
class _Watched:
    name: str
    meaning: str
    value: Callable[[], float]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the figure as it is now; none while it cannot be read."""
        with suppress(Vit4icdError):
            yield GaugeMetricFamily(self.name, self.meaning, value=float(self.value()))
