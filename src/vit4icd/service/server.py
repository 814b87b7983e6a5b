"""Runs the application on an address, patient with neither slow nor endless heads of requests."""

import asyncio
import gc
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from vit4icd.errors import ConfigError, StoreError
from vit4icd.service.keys import Keys

__all__ = ["HEAD_SECONDS", "bound", "is_loopback", "require_safe", "serve", "server_of"]

HEAD_SECONDS = 10.0
"""Seconds in which the head of a request must have come."""

_MAX_HEAD = 32_768  # bytes
_STOP_S = 30  # for requests in hand when the service stops
_BACKLOG = 2_048  # connections that wait to be taken
_SHARED_BACKLOG = 1  # taken at once by one of several processes: the next goes to one that is idle


class _ImpatientProtocol(H11Protocol):
    """Closes connections on which no request has begun in time, or which dribble its head."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_between():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()

    def _is_between(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._is_between() and not self.transport.is_closing():
            self.transport.close()


def serve(app: FastAPI, *, host: str, port: int, on_start: Callable[[int], None]) -> None:
    """Serve until stopped; tell ``on_start`` the port once connections are accepted.

    On SIGTERM or SIGINT requests in hand are finished, and no new ones are taken.

    Raises:
        StoreError: the address is taken.
    """
    with bound(host, port) as listener:
        server_of(app, host=host, port=port, on_start=on_start).run(sockets=[listener])


def server_of(
    app: FastAPI,
    *,
    host: str,
    port: int,
    on_start: Callable[[int], None],
    is_shared: bool = False,
) -> uvicorn.Server:
    """Return the server of an application, not yet running.

    With ``is_shared`` it runs on a socket that other processes accept connections from, too.
    """
    config = uvicorn.Config(
        app, host=host, port=port, http=_ImpatientProtocol, log_level="warning", access_log=False,
        h11_max_incomplete_event_size=_MAX_HEAD, timeout_graceful_shutdown=_STOP_S,
        server_header=False, lifespan="on", backlog=_SHARED_BACKLOG if is_shared else _BACKLOG,
    )  # fmt: skip
    return _Server(config, on_start)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when asked to, and end well: uvicorn would end by the signal itself."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # a fifth of a second each time, were all modules looked through for garbage
        for listener in sockets or ():
            listener.listen(_BACKLOG)  # many may wait, though each process takes one at a time
        if self.started:
            self._on_start(self.servers[0].sockets[0].getsockname()[1])


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Take an address before anything is loaded; who serves will listen on it.

    Raises:
        StoreError: it is taken, or none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise StoreError(f"{host}:{port} cannot be listened on: {error.strerror}") from error
        yield listener


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_safe(host: str, keys: Keys | None) -> None:
    """Refuse to listen on more than the loopback without keys.

    Raises:
        ConfigError: so it would be.
    """
    if keys is None and not is_loopback(host):
        raise ConfigError(
            f"without keys, everybody who reaches {host} could read and remove pictures. Make a "
            "key (vit4icd serve --make-key admin >> keys.txt) and give --keys keys.txt, or listen "
            "on 127.0.0.1"
        )
