"""The engine's queue: jobs of one kind go together, too many are refused, none is lost."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from vit4icd.service.problems import Problem
from vit4icd.service.work import Work


@dataclass(frozen=True)
class _Doubling:
    """Doubles numbers once the gate is open; odd ones fail."""

    name: str
    gate: threading.Event = field(compare=False)
    batches: list[int] = field(compare=False)

    def pictures(self, item: int) -> Sequence[bytes]:
        return ()

    def run(self, items: Sequence[int]) -> list[int | Exception]:
        self.gate.wait(20)
        self.batches.append(len(items))
        return [ValueError(item) if item % 2 else 2 * item for item in items]


def test_does_jobs_of_one_kind_together_and_each_gets_its_own_result() -> None:
    gate, batches = threading.Event(), list[int]()
    seen: list[int] = []
    work = Work(n_threads=1, max_waiting=100, on_batch=seen.append)
    futures: list[Future[int]] = [
        work.submit(_Doubling("a" if item % 4 else "b", gate, batches), item) for item in range(40)
    ]
    gate.set()
    for item, future in enumerate(futures):
        if item % 2:
            with pytest.raises(ValueError, match=str(item)):
                future.result(20)
        else:
            assert future.result(20) == 2 * item
    work.close()
    assert sum(batches) == 40
    assert max(batches) == 16 == max(seen)
    assert len(batches) < 8


def test_refuses_what_cannot_wait_and_says_when_to_come_again() -> None:
    gate = threading.Event()
    kind = _Doubling("a", gate, [])
    work = Work(n_threads=1, max_waiting=3)
    work.submit(kind, 0)
    while work.n_waiting:  # until the thread holds the first
        time.sleep(0.01)
    waiting = [work.submit(kind, item) for item in (2, 4, 6)]
    with pytest.raises(Problem) as refused:
        work.submit(kind, 8)
    assert refused.value.status == 429
    assert refused.value.headers["Retry-After"] == "1"
    gate.set()
    assert [future.result(20) for future in waiting] == [4, 8, 12]
    work.close()


def test_finishes_what_it_accepted_before_it_ends() -> None:
    gate = threading.Event()
    kind = _Doubling("a", gate, [])
    work = Work(n_threads=2, max_waiting=50)
    futures = [work.submit(kind, 2 * item) for item in range(30)]
    threading.Timer(0.1, gate.set).start()
    work.close()
    assert [future.result(0) for future in futures] == [4 * item for item in range(30)]
    with pytest.raises(Problem):
        work.submit(kind, 2)
