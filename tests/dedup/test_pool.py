"""Threads: results in order, little begun ahead, and an end at once when it is asked for."""

import threading
import time

import pytest

from vit4icd.dedup.pool import in_order


@pytest.mark.parametrize("n_workers", [1, 3, None])
def test_keeps_the_order(n_workers: int | None) -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    found = list(in_order(slow_if_even, range(40), n_workers=n_workers))
    assert found == [number * number for number in range(40)]
    assert list(in_order(slow_if_even, [], n_workers=n_workers)) == []


def test_begins_little_ahead_and_stops_at_once() -> None:
    begun, lock = [], threading.Lock()

    def noted(number: int) -> int:
        with lock:
            begun.append(number)
        time.sleep(0.001)
        return number

    with pytest.raises(KeyboardInterrupt):
        for number in in_order(noted, range(10_000), n_workers=2):
            if number == 5:
                raise KeyboardInterrupt
    time.sleep(0.05)
    assert len(begun) < 30
    assert not [each for each in threading.enumerate() if "ThreadPool" in each.name]


def test_passes_errors_on() -> None:
    def fail(number: int) -> int:
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        list(in_order(fail, range(100), n_workers=2))
