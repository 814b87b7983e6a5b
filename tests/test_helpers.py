"""Threads that work for another thread: the same ones again, until it ends."""

import threading
from concurrent.futures import ThreadPoolExecutor

from vit4icd.helpers import helpers


def test_gives_every_thread_helpers_of_its_own_that_end_with_it() -> None:
    mine = helpers("test", 1)
    found: list[tuple[ThreadPoolExecutor, threading.Thread]] = []

    def work() -> None:
        pool = helpers("test", 1)
        assert pool is helpers("test", 1)
        assert pool is not helpers("test", 2)
        found.append((pool, pool.submit(threading.current_thread).result()))

    other = threading.Thread(target=work)
    other.start()
    other.join()
    pool, helper = found.pop()
    assert pool is not mine
    assert mine is helpers("test", 1)
    del pool
    helper.join(30)
    assert not helper.is_alive()
    assert mine.submit(lambda: 1).result() == 1
