"""What glibc's allocator keeps of freed memory; elsewhere, and for other allocators, nothing."""

import ctypes
import os

__all__ = ["keep_freed_memory", "share_arenas"]

_ARENAS = 4  # two batches, the main thread, and those who store
_ARENAS_SET_BY = "MALLOC_ARENA_MAX"  # what glibc reads when a process starts
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # from malloc.h


def share_arenas() -> None:
    """Have all threads of this process, and of those that it will start, share a few arenas.

    By default glibc makes up to eight for each processor, and each keeps as much as was once in use
    in it at a time: two batches of pixels and more. Has to be called before there are threads.
    What the environment says (MALLOC_ARENA_MAX) comes first.
    """
    if _ARENAS_SET_BY not in os.environ:
        os.environ[_ARENAS_SET_BY] = str(_ARENAS)
        _set(_ARENA_MAX, _ARENAS)


def keep_freed_memory() -> None:
    """Keep what is freed, large blocks too, for whoever wants memory next.

    By default glibc gives large blocks back to the system and gets them anew, page by page: two
    fifths of a training step's time on a processor (decision 14). It is for work whose memory is at
    its peak again and again.
    """
    _set(_MMAP_MAX, 0)
    _set(_TRIM_THRESHOLD, 2**31 - 1)


def _set(parameter: int, value: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # there is no glibc
        return
    mallopt(parameter, value)
