"""Threads that last: every thread has helpers of its own, and calls the same ones again."""

import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ["helpers"]

_of_this_thread = threading.local()


def helpers(kind: str, n_threads: int) -> ThreadPoolExecutor:
    """Return so many threads that work for the calling one, and end when it does.

    They are the same at every call of one ``kind`` and number. Nobody shuts them down: what was
    submitted is waited for, or cancelled. OpenCV 5.0.0 keeps 900 bytes of every thread that it was
    ever called in, so that threads made anew for each query would be a leak.

    Example:
        >>> helpers("decode", 2) is helpers("decode", 2)
        True
    """
    pools: dict[str, ThreadPoolExecutor] = vars(_of_this_thread)
    key = f"{kind} {n_threads}"
    if key not in pools:
        pools[key] = ThreadPoolExecutor(n_threads, kind)
    return pools[key]
