"""What a running service holds, opened once and closed once; it answers nothing."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from fastapi import Request

from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ConfigError, StoreError
from vit4icd.service.access import Access
from vit4icd.service.database import DATABASE, Database
from vit4icd.service.decisions import Decisions
from vit4icd.service.fetching import Fetcher
from vit4icd.service.findings import Findings
from vit4icd.service.jobs import Jobs
from vit4icd.service.keys import Keys
from vit4icd.service.library import Library
from vit4icd.service.metrics import Metrics
from vit4icd.service.previews import PREVIEWS, Previews, held_as
from vit4icd.service.problems import Problem, problem_of
from vit4icd.service.queueing import Queueing
from vit4icd.service.sessions import Sessions, read_secret
from vit4icd.service.sifting import Sifting
from vit4icd.service.turns import Turns
from vit4icd.service.uploads import Limits, Uploads
from vit4icd.service.work import Kind, Work

__all__ = ["ServiceConfig", "State", "state_of"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_AGAIN_S = 5.0  # between two tries to load

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceConfig:
    """What is served, and how."""

    collections: Sequence[str]
    """Places, or NAME=PLACE."""
    data: Path | None = None
    """Folder of previews, decisions and jobs; beside the first collection by default."""
    pictures: Path | None = None
    """Folder below which the sources of references may be opened, to show them."""
    host: str = "127.0.0.1"
    keys: Keys | None = None
    create: bool = False
    allow_urls: bool = False
    """Whether pictures are fetched from public URLs that clients send."""
    limits: Limits = field(default_factory=Limits)
    n_threads: int = 2
    """Batches that a process works on at a time: one is prepared while the engine has another."""
    n_processes: int = 1
    """Processes that serve together, and share out what may wait."""
    max_waiting: int = 128
    """Requests that may wait for the engine; further ones are told to come again (429)."""
    keep_findings: int = 20_000
    """Undecided pairs that are kept for review; of more, the oldest are forgotten."""

    def __post_init__(self) -> None:
        if not self.collections:
            raise ConfigError("name at least one collection to serve")
        for name in ("n_threads", "n_processes", "max_waiting", "keep_findings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def own_waiting(self) -> int:
        """How many requests may wait in one of the processes."""
        return -(-self.max_waiting // self.n_processes)

    @property
    def own_limits(self) -> Limits:
        """What uploads may cost one of the processes; each can take a pair of pictures."""
        share = self.limits.max_held_bytes // self.n_processes
        return replace(self.limits, max_held_bytes=max(share, 2 * self.limits.max_bytes))

    @property
    def folder(self) -> Path:
        """The folder of what the service itself writes.

        Raises:
            ConfigError: the collection lies in an object store, and no folder is named.
        """
        if self.data is not None:
            return self.data
        place = self.collections[0].rpartition("=")[2]
        if "://" in place:
            raise ConfigError("a collection in an object store needs a folder: --data DIR")
        return Path(f"{place.rstrip('/')}.service")


class State:
    """Collections, engine, log of decisions: everything that requests share.

    Raises:
        ConfigError, StoreError, FormatError, MismatchError: what is to be served cannot be.
    """

    def __init__(self, config: ServiceConfig, describer: OnnxDescriber) -> None:
        self.config, self.describer = config, describer
        self.metrics = Metrics(is_shared=config.n_processes > 1)
        self.library = Library.open(config.collections, describer, create=config.create)
        folder = config.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            secret = read_secret(folder / "secret")
        except OSError as error:
            raise StoreError(f"{folder} cannot be written: {error.strerror}") from error
        self.access = Access(keys=config.keys, sessions=Sessions(secret), host=config.host)
        self.database = Database(folder / DATABASE)
        self.decisions = Decisions(self.database)
        self.previews = Previews(
            folder / PREVIEWS, self.database, pictures=config.pictures,
            max_pixels=config.limits.max_pixels, on_replaced=self._replaced,
        )  # fmt: skip
        self.findings = Findings(
            self.database, keep=config.keep_findings, on_forgotten=self.previews.sweep
        )
        self.sifting = Sifting(findings=self.findings, previews=self.previews)
        self.queueing = Queueing(decisions=self.decisions, findings=self.findings)
        self.fetcher = Fetcher(config.limits.max_bytes) if config.allow_urls else None
        self.uploads, self.turns = Uploads(config.own_limits, self.fetcher), Turns()
        self.work = Work(
            n_threads=config.n_threads,
            max_waiting=config.own_waiting,
            on_batch=self.metrics.batch.observe,
        )
        self.jobs = Jobs(
            folder / "jobs",
            self.database,
            self.library,
            self.previews,
            limits=config.limits,
            turns=self.turns,
        )
        self.not_ready: Problem | None = _loading("starting")
        self._closing = threading.Event()
        self._loader = threading.Thread(target=self._load, name="load", daemon=True)
        self._watch()

    def start(self) -> None:
        """Load: in the background, saying so, or first, where other processes serve meanwhile."""
        if self.config.n_processes == 1 or not self._loaded():
            self._loader.start()

    def close(self) -> None:
        """Finish what was accepted, and close everything."""
        self._closing.set()
        if self._loader.is_alive():
            self._loader.join()
        if self.fetcher is not None:
            self.fetcher.close()
        self.jobs.close()
        self.work.close()
        self.database.close()

    def require_ready(self) -> None:
        """Refuse work while loading.

        Raises:
            Problem: the service is not ready.
        """
        if (why := self.not_ready) is not None:
            raise Problem(why.code, why.detail, headers=why.headers)

    async def do(self, kind: Kind[Item, Result], item: Item) -> Result:
        """Have the engine do a job, with others of its kind; heavy pictures wait for their turn.

        Raises:
            Problem: the queue is full, or the service is loading.
        """
        self.require_ready()
        async with self.turns.awaited(*kind.pictures(item)):
            return await asyncio.wrap_future(self.work.submit(kind, item))

    def _replaced(self, holder: bytes, sha256: str) -> None:
        self.findings.forget(*held_as(holder), sha256)

    def _load(self) -> None:
        while not self._closing.is_set() and not self._loaded():
            self._closing.wait(_AGAIN_S)

    def _loaded(self) -> bool:
        """Load, and return whether that is over; what cannot be reached now is tried again."""
        try:
            for shelf in self.library.shelves.values():
                self.not_ready = _loading(f"reading the collection {shelf.name}")
                shelf.warm_up()
            self.jobs.start()
            self.not_ready = None
        except StoreError as error:
            self.not_ready = problem_of(error)
            _log.warning("not ready, trying again: %s", error)
            return False
        except Exception as error:  # nothing else would tell why it never is ready
            self.not_ready = problem_of(error)
            _log.exception("not ready")
        finally:
            self.metrics.tell()
        return True

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch(
            "vit4icd_waiting_jobs", "Jobs that wait for the engine.",
            lambda: self.work.n_waiting, over="livesum",
        )  # fmt: skip
        watch(
            "vit4icd_held_bytes", "Bytes of uploads in memory.",
            lambda: self.uploads.held_bytes, over="livesum",
        )  # fmt: skip
        watch(
            "vit4icd_ready", "1 once everything is loaded.",
            lambda: self.not_ready is None, over="livemin",
        )  # fmt: skip
        watch(
            "vit4icd_images", "Pictures in all collections.",
            lambda: sum(len(shelf.collection) for shelf in self.library.shelves.values()),
        )  # fmt: skip
        watch(
            "vit4icd_undecided_pairs", "Pairs that wait for somebody's judgement.",
            lambda: self.findings.n_undecided,
        )  # fmt: skip


def _loading(what: str) -> Problem:
    return Problem("loading", what, headers={"Retry-After": "2"})


def state_of(request: Request) -> State:
    """Return what the service of a request holds."""
    state = request.app.state.service
    assert isinstance(state, State)
    return state
