"""Several processes that serve one address, and the one that watches them; it answers nothing."""

import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from vit4icd.describer import OnnxDescriber
from vit4icd.errors import Vit4icdError
from vit4icd.service.app import create_app
from vit4icd.service.metrics import forget_process, shared_figures
from vit4icd.service.server import bound, server_of
from vit4icd.service.state import ServiceConfig, State

__all__ = ["serve_together"]

_LOOK_S = 0.3  # between two looks at the signals
_STOP_S = 45.0  # for requests in hand when the service stops; then processes are killed
_MOST_ENDS, _WITHIN_S = 5, 60.0  # so many processes that end unasked are more than bad luck

_spawn = multiprocessing.get_context("spawn")
_log = logging.getLogger(__name__)

OpenDescriber = Callable[[], OnnxDescriber]


def serve_together(
    config: ServiceConfig,
    open_describer: OpenDescriber,
    *,
    port: int,
    on_start: Callable[[int], None],
) -> None:
    """Serve by several processes until stopped; tell ``on_start`` the port once all of them do.

    On SIGTERM or SIGINT each finishes what it has in hand. One that ends unasked is replaced; if
    that happens again and again, or before it served at all, the service ends.

    Raises:
        ConfigError, StoreError, FormatError, MismatchError: what is to be served cannot be.
        Vit4icdError: processes keep ending.
    """
    State(config, open_describer()).close()  # what is wrong is said now, by one process
    with bound(config.host, port) as listener, shared_figures() as figures:
        watch = _Watch(replace(config, create=False), open_describer, listener, figures)
        watch.run(lambda: on_start(listener.getsockname()[1]))


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and where it says that it serves."""

    process: SpawnProcess
    said: Connection
    serves: bool = False


@dataclass(slots=True, eq=False)
class _Watch:
    """All processes of a service."""

    config: ServiceConfig
    open_describer: OpenDescriber
    listener: socket.socket
    figures: Path
    workers: list[_Worker] = field(default_factory=list, init=False)
    ends: list[float] = field(default_factory=list, init=False)
    """When processes ended unasked."""

    def run(self, on_start: Callable[[], None]) -> None:
        has_started = False
        with _stop_asked() as asked:
            try:
                self.workers += [self._begun() for _ in range(self.config.n_processes)]
                while not asked.is_set():
                    wait([it for worker in self.workers for it in _signs(worker)], _LOOK_S)
                    if any(_may_have_obeyed(worker.process) for worker in self.workers):
                        asked.wait(_LOOK_S)  # a signal to all of us may reach them first
                    if asked.is_set():
                        break
                    self.workers = [self._alive(worker) for worker in self.workers]
                    if not has_started and all(worker.serves for worker in self.workers):
                        has_started = True
                        on_start()
            finally:
                self._stop()

    def _begun(self) -> _Worker:
        said, says = _spawn.Pipe(duplex=False)
        process = _spawn.Process(
            target=_serve, args=(self.config, self.open_describer, self.listener, says),
            name="vit4icd-serve",
        )  # fmt: skip
        process.start()
        says.close()
        return _Worker(process, said)

    def _alive(self, worker: _Worker) -> _Worker:
        """Return the process, or another in its place if it ended."""
        if not worker.serves and worker.said.poll():
            worker.serves = _heard(worker.said)
        if worker.process.is_alive():
            return worker
        number, code = worker.process.pid, worker.process.exitcode
        assert number is not None
        forget_process(number, self.figures)
        worker.said.close()
        now = time.monotonic()
        self.ends = [*(at for at in self.ends if now - at < _WITHIN_S), now]
        if not worker.serves or len(self.ends) > _MOST_ENDS:
            how = "before it served" if not worker.serves else "and others before it"
            raise Vit4icdError(f"process {number} of the service ended with {code}, {how}")
        _log.error("process %d of the service ended with %s; another takes its place", number, code)
        return self._begun()

    def _stop(self) -> None:
        for worker in self.workers:
            worker.process.terminate()
        ends = time.monotonic() + _STOP_S
        for worker in self.workers:
            worker.process.join(max(0.0, ends - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.said.close()


def _may_have_obeyed(process: SpawnProcess) -> bool:
    return process.exitcode in (0, -signal.SIGTERM, -signal.SIGINT)


def _signs(worker: _Worker) -> list[Connection | int]:
    """Return what to wait for: that it ends, and until it serves, that it says so."""
    return [worker.process.sentinel, *([] if worker.serves else [worker.said])]


def _heard(said: Connection) -> bool:
    try:
        return bool(said.recv())
    except EOFError:  # it ended
        return False


def _serve(
    config: ServiceConfig, open_describer: OpenDescriber, listener: socket.socket, says: Connection
) -> None:
    """Serve in a process of its own, until told to stop or left alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the server itself listens to it
    app = create_app(config, open_describer())
    server = server_of(
        app,
        host=config.host,
        port=0,
        is_shared=True,
        on_start=lambda _: says.send(True),
    )
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        server.should_exit = True

    threading.Thread(target=follow, name="parent", daemon=True).start()
    server.run(sockets=[listener])


@contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """Take the signals that ask to stop as an event."""
    asked = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: asked.set()) for number in signals]
    try:
        yield asked
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
