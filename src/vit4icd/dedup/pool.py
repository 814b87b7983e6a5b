"""Work done by threads, in order, a little ahead of whoever takes it; it knows no pictures."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from vit4icd.describer import available_threads

__all__ = ["in_order"]

_AHEAD = 4  # items begun for each thread

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, n_workers: int | None = None
) -> Iterator[Result]:
    """Yield the results in the order of the items.

    Only a few items are begun ahead: an interrupt is soon through, and memory stays small.

    Example:
        >>> list(in_order(str.upper, ["a", "b", "c"], n_workers=2))
        ['A', 'B', 'C']
    """
    n_workers = n_workers or available_threads()
    with ThreadPoolExecutor(n_workers) as pool:
        remaining = iter(items)
        begun: deque[Future[Result]] = deque()
        try:
            while True:
                free = _AHEAD * n_workers - len(begun)
                begun.extend(pool.submit(work, item) for item in islice(remaining, free))
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
