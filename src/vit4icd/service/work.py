"""The engine's bounded queue: jobs of one kind, from many requests, are done in one go."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from vit4icd.service.problems import Problem

__all__ = ["Kind", "Work"]

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_BATCH = 16  # jobs done in one go; the engine gains nothing from more
_RETRY_S = 1


@runtime_checkable
class Kind(Hashable, Protocol[Item_contra, Result_co]):
    """What is to be done; jobs of equal kinds are done together."""

    def pictures(self, item: Item_contra) -> Sequence[bytes]:
        """Return what will be decoded of an item."""
        ...

    def run(self, items: Sequence[Item_contra]) -> Sequence[Result_co | Exception]:
        """Return a result, or what went wrong, for each of the items."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Job(Generic[Item, Result]):
    kind: Kind[Item, Result]
    item: Item
    future: "Future[Result]"


class Work:
    """A few threads that work off a queue of bounded length.

    A thread takes the oldest job and, with it, those of the same kind that wait already: nobody
    waits for others to come. With two threads, one prepares pictures while the other has the
    engine.
    """

    def __init__(
        self,
        *,
        n_threads: int = 2,
        max_waiting: int = 128,
        on_batch: Callable[[int], None] = lambda n_jobs: None,
    ) -> None:
        self._max_waiting, self._on_batch = max_waiting, on_batch
        self._waiting: deque[_Job[Any, Any]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"work-{number}", daemon=True)
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def n_waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def submit(self, kind: Kind[Item, Result], item: Item) -> "Future[Result]":
        """Queue a job.

        Raises:
            Problem: the queue is full (busy), or the service stops.
        """
        job: _Job[Item, Result] = _Job(kind, item, Future())
        with self._changed:
            if self._is_closed or len(self._waiting) >= self._max_waiting:
                raise Problem(
                    "busy",
                    f"{len(self._waiting)} requests wait already; try again in a moment",
                    headers={"Retry-After": str(_RETRY_S)},
                )
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Take no more jobs, finish those that wait, and end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            self._on_batch(len(jobs))
            self._run(jobs)

    def _next(self) -> list[_Job[Any, Any]]:
        """Return the oldest job and others of its kind; nothing when there will be no more."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if not self._waiting:
                return []
            first = self._waiting.popleft()
            alike = [job for job in self._waiting if job.kind == first.kind][: _BATCH - 1]
            taken = set(map(id, alike))
            self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        jobs = [first, *alike]
        return [job for job in jobs if job.future.set_running_or_notify_cancel()] or self._next()

    def _run(self, jobs: Sequence[_Job[Any, Any]]) -> None:
        try:
            results = jobs[0].kind.run([job.item for job in jobs])
        except Exception as error:  # the fault of all, told to each
            results = [error] * len(jobs)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
