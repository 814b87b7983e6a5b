"""Pictures whose decoding takes much memory come one at a time; it decodes none itself."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

from vit4icd.errors import ImageError
from vit4icd.headers import read_header
from vit4icd.service.problems import Problem

__all__ = ["Turns", "is_heavy"]

_HEAVY_PIXELS = 5_000_000  # some 24 bytes each while they are decoded: 120 MB
_HEAVY_JPEG_PIXELS = 16_000_000  # what a phone takes is light: libjpeg decodes it smaller
_MAX_WAITING = 16  # heavy pictures; further ones are told to come again
_RETRY_S = 5


class Turns:
    """One heavy picture at a time, in the order in which they came; light ones never wait here.

    A picture within the limits of an upload may be a few kB of a file and more than a GB once it
    is decoded. Were all that come at once decoded at once, their number would be the limit of
    memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets = deque[Future[None]]()  # the first has its turn

    @contextmanager
    def taken(self, *pictures: bytes) -> Iterator[None]:
        """Wait for the turn of these pictures, if one of them is heavy."""
        if not is_heavy(*pictures):
            yield
            return
        with self._ticket() as turn:
            turn.result()
            yield

    @asynccontextmanager
    async def awaited(self, *pictures: bytes) -> AsyncIterator[None]:
        """Wait for the turn of these pictures, if one of them is heavy, without a thread.

        Raises:
            Problem: too many wait already.
        """
        if not is_heavy(*pictures):
            yield
            return
        if len(self._tickets) > _MAX_WAITING:
            raise Problem(
                "busy", "too many large pictures are waiting; send smaller ones, or later",
                headers={"Retry-After": str(_RETRY_S)},
            )  # fmt: skip
        with self._ticket() as turn:
            await asyncio.shield(asyncio.wrap_future(turn))
            yield

    @contextmanager
    def _ticket(self) -> Iterator[Future[None]]:
        """Stand in the line; the turn comes when all before have left, and ends with the block."""
        ticket = Future[None]()
        with self._lock:
            self._tickets.append(ticket)
            if self._tickets[0] is ticket:
                ticket.set_result(None)
        try:
            yield ticket
        finally:
            with self._lock:
                was_first = self._tickets[0] is ticket
                self._tickets.remove(ticket)
                if was_first and self._tickets:
                    self._tickets[0].set_result(None)


def is_heavy(*pictures: bytes) -> bool:
    """Return whether one of the pictures may take much memory while it is decoded.

    Example:
        >>> is_heavy(b"no picture")
        False
    """
    return any(map(_is_heavy, pictures))


def _is_heavy(picture: bytes) -> bool:
    try:
        header = read_header(picture)
    except ImageError:  # it will not be decoded
        return False
    most = _HEAVY_JPEG_PIXELS if header.format == "JPEG" else _HEAVY_PIXELS
    return header.n_pixels > most
