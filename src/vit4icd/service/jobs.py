"""Bulk additions from .tar files: begun at once, finished later, gone on with after a stop."""

import json
import logging
import secrets
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vit4icd.datasets import members_of
from vit4icd.errors import StoreError, Vit4icdError
from vit4icd.service.database import Database
from vit4icd.service.library import Adding, Library, New, require_id
from vit4icd.service.previews import Previews
from vit4icd.service.problems import Problem, problem_of
from vit4icd.service.turns import Turns, is_heavy
from vit4icd.service.uploads import Limits
from vit4icd.storage import name_fields

__all__ = ["Job", "Jobs"]

_BEAT_S = 10.0  # between two signs of life of a job, and between two looks for jobs to take
_GONE_S = 60.0  # without a sign of life, after which another process takes a job over
_BATCH = 16  # pictures of one commit
_MAX_LISTED = 1_000  # pictures left out that a job tells of

_log = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One .tar, and how far it is."""

    id: str
    collection: str
    state: State
    at: str
    regions: bool = False
    """Whether parts of the pictures are described, too."""
    n_done: int = 0
    n_stored: int = 0
    n_unchanged: int = 0
    n_skipped: int = 0
    skipped: tuple[dict[str, str], ...] = ()
    """The first thousand pictures that were left out, and why."""
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "skipped": list(self.skipped)}


@dataclass(frozen=True, slots=True)
class _Refused:
    """A member of a .tar that is not even read."""

    id: str
    problem: Problem


class Jobs:
    """All jobs: the table of them, the files that wait, and the thread that adds one at a time.

    Several processes may share them: each job is worked on by the one that claimed it, until that
    shows no sign of life for a minute.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        library: Library,
        previews: Previews,
        *,
        limits: Limits,
        turns: Turns,
    ) -> None:
        self._folder, self._database, self._library = folder, database, library
        self._previews, self._limits, self._turns = previews, limits, turns
        self._owner, self._in_hand = secrets.token_hex(12), ""
        self._wake, self._closing = threading.Event(), threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._threads = [
            threading.Thread(target=self._work, name="jobs", daemon=True),
            threading.Thread(target=self._beat, name="jobs-beat", daemon=True),
        ]

    def start(self) -> None:
        """Begin to work; jobs that a stop interrupted come first, what a kill left over goes."""
        known = {job.id for job in self._in("waiting", "running")}
        for path in self._folder.glob("*.tar"):
            with suppress(FileNotFoundError):  # another process cleared it away
                age_s = time.time() - path.stat().st_mtime
                if path.stem not in known and age_s > self._limits.max_tar_seconds:
                    path.unlink()
        self._wake.set()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End after the batch in hand; the rest is done when the service starts again."""
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def place(self) -> tuple[str, Path]:
        """Return a name for a new job, and where its .tar is to be written."""
        id_ = secrets.token_hex(12)
        return id_, self._file(id_)

    def add(self, id_: str, collection: str, *, regions: bool = False) -> Job:
        """Queue a job whose .tar is written.

        Raises:
            Problem: the file is no uncompressed .tar.
        """
        try:
            with tarfile.open(self._file(id_), "r:") as archive:
                archive.next()
        except (tarfile.TarError, OSError, ValueError) as error:
            self._file(id_).unlink(missing_ok=True)
            raise Problem("unsupported_format", f"no uncompressed .tar: {error}") from error
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        job = Job(id=id_, collection=collection, state="waiting", at=at, regions=regions)
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO jobs (id, at, state, collection, fields) VALUES (?, ?, ?, ?, ?)",
                (job.id, job.at, job.state, job.collection, json.dumps(job.to_json())),
            )
        self._wake.set()
        return job

    def get(self, id_: str) -> Job:
        """Return a job.

        Raises:
            Problem: there is none of this name.
        """
        rows = self._database.read("SELECT state, fields FROM jobs WHERE id = ?", (id_,))
        if not rows:
            raise Problem("not_found", f"there is no job {id_!r}")
        return _job(*rows[0])

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(_BEAT_S)
            self._wake.clear()
            try:
                self._work_off()
            except Exception:  # a job in hand falls silent, and is taken again after that
                _log.exception("jobs cannot be worked on now; trying again")

    def _work_off(self) -> None:
        for job in self._in("waiting", "running"):
            if self._closing.is_set():
                return
            if self._claim(job):
                self._run(job)

    def _beat(self) -> None:
        """Show that the job in hand is being worked on, however long a batch takes."""
        while not self._closing.wait(_BEAT_S):
            if not self._in_hand:
                continue
            try:
                with self._database.writing() as connection:
                    connection.execute(
                        "UPDATE jobs SET beat = ? WHERE id = ? AND owner = ?",
                        (time.time(), self._in_hand, self._owner),
                    )
            except Vit4icdError as error:
                _log.warning("a sign of life could not be written: %s", error)

    def _in(self, *states: State) -> list[Job]:
        marks = ", ".join("?" * len(states))
        rows = self._database.read(
            f"SELECT state, fields FROM jobs WHERE state IN ({marks}) ORDER BY at, id",  # noqa: S608
            states,
        )
        return [_job(state, fields) for state, fields in rows]

    def _claim(self, job: Job) -> bool:
        """Take a job, unless another process has it and lives."""
        now = time.time()
        with self._database.writing() as connection:
            taken = connection.execute(
                "UPDATE jobs SET state = 'running', owner = ?, beat = ? WHERE id = ? AND "
                "(state = 'waiting' OR (state = 'running' AND beat < ?))",
                (self._owner, now, job.id, now - _GONE_S),
            )
        return taken.rowcount == 1

    def _run(self, job: Job) -> None:
        """Work on a job that was claimed, from its beginning: what is stored is not added twice.

        Raises:
            StoreError: the collection or the folder cannot be reached now; a minute later the job
                is tried again.
        """
        self._in_hand = job.id
        try:
            afresh = Job(
                id=job.id, collection=job.collection, state="running", at=job.at,
                regions=job.regions,
            )  # fmt: skip
            job = self._worked(afresh)
            if self._keep(job) and job.state in ("done", "failed"):
                self._file(job.id).unlink(missing_ok=True)
        except StoreError as error:
            self._keep(replace(job, state="running", error=f"{error}; this is tried again"))
            raise
        finally:
            self._in_hand = ""

    def _worked(self, job: Job) -> Job:
        """Return the job as it ended; waiting if the service stops, running if it was lost."""
        try:
            adding = Adding(
                shelf=self._library.get(job.collection),
                previews=self._previews,
                regions=job.regions,
                max_pixels=self._limits.max_pixels,
            )
            for batch in self._batches(job.id):
                if self._closing.is_set():
                    return replace(job, state="waiting")
                with self._turns.taken(*(item.data for item in batch if isinstance(item, New))):
                    job = _advanced(job, batch, adding)
                if not self._keep(job):
                    return job
            return replace(job, state="done")
        except StoreError:
            raise
        except Exception as error:  # whatever it is, it ends this job and no other
            _log.exception("the job %s failed", job.id)
            return replace(job, state="failed", error=_reason(error))

    def _batches(self, id_: str) -> Iterator[list[New | _Refused]]:
        with tarfile.open(self._file(id_), "r:") as archive:
            batch: list[New | _Refused] = []
            for member in members_of(archive):
                item = self._read(archive, member) if member.isreg() else None
                if isinstance(item, New) and is_heavy(item.data):
                    if batch:  # before it: of two pictures with one id, the later one stays
                        yield batch
                        batch = []
                    yield [item]
                elif item is not None:
                    batch.append(item)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _read(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> New | _Refused:
        name, most = member.name.removeprefix("./"), self._limits.max_bytes
        if member.size > most:
            message = f"{member.size} bytes exceed the limit of {most}"
            return _Refused(name, Problem("too_large", message))
        try:
            require_id(name)
        except Problem as problem:
            return _Refused(name, problem)
        file = archive.extractfile(member)  # into memory; nothing is unpacked
        assert file is not None
        return New(name, file.read())

    def _keep(self, job: Job) -> bool:
        """Write how far a job is, unless another process took it over."""
        with self._database.writing() as connection:
            kept = connection.execute(
                "UPDATE jobs SET state = ?, fields = ?, beat = ? "
                "WHERE id = ? AND owner = ? AND state = 'running'",
                (job.state, json.dumps(job.to_json()), time.time(), job.id, self._owner),
            )
        return kept.rowcount == 1

    def _file(self, id_: str) -> Path:
        return self._folder / f"{id_}.tar"


def _job(state: State, fields: str) -> Job:
    read: dict[str, Any] = json.loads(fields)
    return Job(**{**read, "state": state, "skipped": tuple(read["skipped"])})


def _advanced(job: Job, batch: Sequence[New | _Refused], adding: Adding) -> Job:
    """Add a batch, and count what became of it.

    Raises:
        StoreError: a picture or its preview could not be written.
    """
    added = iter(adding.run([item for item in batch if isinstance(item, New)]))
    results = [next(added) if isinstance(item, New) else item.problem for item in batch]
    for result in results:
        if isinstance(result, StoreError):
            raise result
    skipped = [
        name_fields("id", item.id) | {"reason": problem_of(result).code, "message": str(result)}
        for item, result in zip(batch, results, strict=True)
        if isinstance(result, Exception)
    ]
    outcomes = [result.outcome for result in results if not isinstance(result, Exception)]
    return replace(
        job,
        n_done=job.n_done + len(batch),
        n_stored=job.n_stored + outcomes.count("stored"),
        n_unchanged=job.n_unchanged + outcomes.count("unchanged"),
        n_skipped=job.n_skipped + len(skipped),
        skipped=(*job.skipped, *skipped)[:_MAX_LISTED],
    )


def _reason(error: Exception) -> str:
    """Return what ended a job; an error that is not ours says of which kind it is."""
    is_told = isinstance(error, Vit4icdError | tarfile.TarError | OSError)
    return str(error) if is_told else f"{type(error).__name__}: {error}".removesuffix(": ")
