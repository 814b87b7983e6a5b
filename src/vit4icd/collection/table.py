"""The Lance table of a collection: versions, commits and their errors; it sees no pictures."""

import json
import random
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from vit4icd.collection.descriptors import SEALED_COLUMNS
from vit4icd.collection.disk import flushing
from vit4icd.collection.failures import HINT, explained
from vit4icd.collection.records import RECORD_COLUMNS, SEAL_ID, Record, encode
from vit4icd.collection.rows import Seal, restamped, schema_of, seal_in, seal_of, sealed
from vit4icd.collection.sums import forget_gone, whole_files
from vit4icd.collection.versions import is_free, last_number
from vit4icd.errors import ConfigError, DataError, FormatError, StoreError

__all__ = ["FORMAT_VERSION", "KEPT_FOR", "Snapshot", "Table"]

FORMAT_VERSION = 2
"""Of the table's columns; a newer one is refused. The first had none for parts of pictures."""
KEPT_FOR = timedelta(minutes=30)
"""How long a version stays when it is the newest no more, for those who are reading it."""

_KEY, _CHECK = "vit4icd", "vit4icd_check"  # of the table's own metadata
_ATTEMPTS = 100  # at a commit that other writers keep winning
_TIDY_EVERY = 1_000  # commits of one process
_WAIT_S = 0.05  # between two of them, about
_FRAGMENT_ROWS = 16_384  # rows of one file of the table, once it is compacted
_COMPACT_ROWS = 256  # rows held in memory at a time while compacting
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A version that is kept, under a name."""

    name: str
    version: int
    created: datetime | None


class Table:
    """One Lance table at a path or an object store's address; rows are unique by id.

    Every commit replaces the seal, the one row that says which rows there are. So two writers
    cannot both commit on top of one version: the later one fails, reads what the other wrote, and
    tries again. Readers see one version from start to end. Of a given ``version``, the table is
    only to be read. Unless it is ``checked``, damaged files are no error before they are read.

    Raises:
        StoreError: the table cannot be read.
        FormatError: it is no collection, is damaged, or is of a newer version.
    """

    def __init__(self, uri: str, *, version: int | None = None, checked: bool = True) -> None:
        self.uri, self._version, self._is_checked = uri, version, checked
        self._whole: tuple[int, frozenset[Path]] = 0, frozenset()  # a version, and its files
        if not self.exists(uri):
            raise StoreError(
                f"there is no collection at {uri}; make one with: vit4icd index add {uri} PICTURES"
            )
        data = self.latest()
        with explained(uri, "read"):
            self.schema: pa.Schema = data.schema
        self.metadata: Mapping[str, Any] = _metadata_in(self.schema, uri)
        self._n_commits = 0

    @classmethod
    def create(cls, uri: str, *, dim: int, metadata: Mapping[str, Any]) -> "Table":
        """Make an empty table.

        Raises:
            ConfigError: there is something already.
            StoreError: the place cannot be written.
        """
        folder = Path(uri)
        if "://" not in uri and not is_free(folder):
            raise ConfigError(f"{uri} exists already; name another place, or open it")
        text = json.dumps({"format_version": FORMAT_VERSION, "dim": dim, **metadata})
        named = {_KEY: text, _CHECK: str(zlib.crc32(text.encode()))}
        schema = schema_of(dim, named, with_parts=FORMAT_VERSION > 1)
        with flushing(uri):
            first = sealed(schema.empty_table(), Seal(), schema)
            lance.write_dataset(first, uri, mode="create")
        return cls(uri)

    @staticmethod
    def exists(uri: str) -> bool:
        """Return whether there is a table.

        Raises:
            StoreError: the place is out of reach.
        """
        if "://" not in uri:
            return (Path(uri) / "_versions").is_dir()
        try:
            with explained(uri, "read"):
                lance.dataset(uri)
        except StoreError as error:
            if "was not found" in str(error.__cause__):
                return False
            raise
        return True

    def latest(self) -> lance.LanceDataset:
        """Open the newest version, or the one that was asked for.

        Raises:
            StoreError: it cannot be read.
            FormatError: a file is not what was written.
        """
        is_checked = self._is_checked and "://" not in self.uri
        last = last_number(Path(self.uri)) if is_checked and self._version is None else 0
        with explained(self.uri, "read"):
            data = lance.dataset(self.uri, version=self._version)
            number, known = int(data.version), self._whole[1]
            if number < last:
                raise FormatError(f"version {last} of {self.uri} is lost{HINT} {self.uri}")
            if is_checked and number != self._whole[0]:
                self._whole = number, whole_files(self.uri, data.get_fragments(), known)
        return data

    @property
    def has_parts(self) -> bool:
        """Whether there are columns for parts of pictures."""
        return "parts" in self.schema.names

    @property
    def version(self) -> int:
        """Number of the newest version."""
        return int(self.latest().version)

    def seal(self, data: lance.LanceDataset | None = None) -> Seal:
        """Return how many pictures and parts are in a version, and the sum of their checksums."""
        data = self.latest() if data is None else data
        return seal_in(self._read(data, RECORD_COLUMNS, filter=pc.field("id") == SEAL_ID))

    def having(self, columns: Sequence[str]) -> list[str]:
        """Return those of the columns that there are in a table of this format."""
        return [name for name in columns if name in self.schema.names]

    def find(
        self,
        ids: Sequence[bytes],
        columns: Sequence[str],
        *,
        contents: Sequence[bytes] = (),
        data: lance.LanceDataset | None = None,
    ) -> pa.Table:
        """Return the rows of a version that have one of these ids, or contents, in any order."""
        wanted = pc.field("id").isin(list(ids))
        if contents:
            wanted |= pc.field("sha256").isin(list(contents))
        return self._read(self.latest() if data is None else data, columns, filter=wanted)

    def take(
        self,
        data: lance.LanceDataset,
        places: Sequence[int],
        ids: Sequence[bytes],
        columns: Sequence[str],
    ) -> pa.Table:
        """Return the rows at ascending places of a version, which have these ids.

        Where the files of that version are gone, the rows of these ids in the newest one, in any
        order.
        """
        try:
            with explained(self.uri, "read"):
                found = data.take(list(places), columns=self.having(columns))
            if found["id"].to_pylist() == list(ids):
                return found
        except StoreError:
            pass
        return self.find(ids, columns)

    def page(self, after: bytes, limit: int) -> pa.Table:
        """Return the records of the next ids after one, in the order of their bytes."""
        return self._read(
            self.latest(), RECORD_COLUMNS, filter=pc.field("id") > after, limit=limit,
            order_by=["id"],
        )  # fmt: skip

    def upsert(
        self,
        rows: pa.Table,
        *,
        beside: Callable[[lance.LanceDataset, pa.Table], pa.Table] = lambda data, rows: rows,
    ) -> None:
        """Add rows, in place of those that have their ids; when it returns, they are stored.

        What is added may depend on the version that is added to: ``beside`` returns it.
        """
        ids = rows["id"].to_pylist()

        def commit(data: lance.LanceDataset) -> int:
            added, replaced = beside(data, rows), self._seal_of(data, ids)
            self._merge(data, added, self.seal(data).plus(replaced, -1).plus(seal_of(added)))
            return len(rows)

        self._committed(commit)

    def restamp(self, records: Sequence[Record]) -> None:
        """Give rows the stamps of these records, unless their content changed meanwhile."""
        by_id = {record.id: record for record in records}
        ids = [*map(encode, by_id)]

        def commit(data: lance.LanceDataset) -> int:
            found = self._read(data, self.schema.names, filter=pc.field("id").isin(ids))
            rows = restamped(found.cast(self.schema), by_id)
            if len(rows):
                self._merge(data, rows, self.seal(data))
            return len(rows)

        self._committed(commit)

    def delete(self, ids: Sequence[bytes]) -> int:
        """Remove the rows of these ids and return how many there were."""

        def commit(data: lance.LanceDataset) -> int:
            removed = self._seal_of(data, ids)
            if removed.n_rows:
                seal = self.seal(data).plus(removed, -1)
                listed = ", ".join(f"X'{id_.hex()}'" for id_ in ids)
                merge = data.merge_insert("id").when_matched_update_all()
                merge.when_not_matched_by_source_delete(f"id IN ({listed})").conflict_retries(
                    0
                ).execute(sealed(self.schema.empty_table(), seal, self.schema))
            return removed.n_rows

        return self._committed(commit)

    def compact(self, *, keep: timedelta = KEPT_FOR) -> int:
        """Join small files and drop versions older than ``keep``; return the bytes that it freed.

        Versions with a snapshot stay.
        """

        def commit(data: lance.LanceDataset) -> int:
            data.optimize.compact_files(
                target_rows_per_fragment=_FRAGMENT_ROWS, batch_size=_COMPACT_ROWS
            )
            return self._clean(data, keep)

        return self._committed(commit)

    def snapshots(self) -> list[Snapshot]:
        """Return the versions that are kept, oldest first."""
        data = self.latest()
        with explained(self.uri, "read"):
            found = [
                Snapshot(name=name, version=tag["version"], created=tag["created_at"])
                for name, tag in data.tags.list().items()
            ]
        return sorted(found, key=lambda snapshot: snapshot.version)

    def snapshot(self, name: str) -> int:
        """Keep the newest version under a name, and return its number."""
        if _SNAPSHOT_NAME.fullmatch(name) is None:
            raise ConfigError(f"a snapshot's name has letters, digits, . _ and -, not {name!r}")
        if name in (known.name for known in self.snapshots()):
            raise ConfigError(f"there is a snapshot {name!r} already; forget it, or take another")
        data = self.latest()
        with flushing(self.uri):
            data.tags.create(name, data.version)
        return int(data.version)

    def forget(self, name: str) -> None:
        """Keep a snapshot no longer."""
        self.named(name)
        with explained(self.uri, "written"):
            self.latest().tags.delete(name)

    def restore(self, name: str) -> int:
        """Make a snapshot the newest version, and return its new number."""
        return self._renewed(self.named(name).version)

    def go_back(self, version: int, *, above: int) -> int:
        """Make a version the newest, under a number above that one, and return the number."""
        newest = self.version
        while newest <= above:
            newest = self._renewed(version)
        return newest

    def drop(self, parts: Sequence[int], seal: Seal) -> int:
        """Leave out parts of the table, unread, and seal the others; return the new version."""
        with flushing(self.uri):
            data = self.latest()
            if parts:
                without = lance.LanceOperation.Delete([], parts, "damaged")
                data = lance.LanceDataset.commit(self.uri, without, read_version=data.version)
            self._merge(data, self.schema.empty_table(), seal)
        return self.version

    def _renewed(self, version: int) -> int:
        """Make a version the newest, and return its new number."""
        data = self.latest()
        with flushing(self.uri):
            data.checkout_version(version).restore()  # type: ignore[no-untyped-call]
        return self.version

    def named(self, name: str) -> Snapshot:
        """Return a snapshot.

        Raises:
            DataError: there is none of this name.
        """
        known = {snapshot.name: snapshot for snapshot in self.snapshots()}
        if name not in known:
            listed = ", ".join(known) or "none"
            raise DataError(f"{self.uri} has no snapshot {name!r}; it has: {listed}")
        return known[name]

    def _read(self, data: lance.LanceDataset, columns: Sequence[str], **options: Any) -> pa.Table:
        with explained(self.uri, "read"):
            return data.scanner(columns=self.having(columns), **options).to_table()

    def _merge(self, data: lance.LanceDataset, rows: pa.Table, seal: Seal) -> None:
        merge = data.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.conflict_retries(0).execute(sealed(rows, seal, self.schema))

    def _seal_of(self, data: lance.LanceDataset, ids: Sequence[bytes]) -> Seal:
        return seal_of(self._read(data, SEALED_COLUMNS, filter=pc.field("id").isin(list(ids))))

    def _committed(self, commit: Callable[[lance.LanceDataset], int]) -> int:
        """Commit on top of the newest version, again and again while others are faster."""
        for _ in range(_ATTEMPTS):
            data = self.latest()
            try:
                with flushing(self.uri):
                    done = commit(data)
                self._tidy_if_due()
                return done
            except StoreError as error:
                if not _is_conflict(error, self.uri):
                    raise
                time.sleep(_WAIT_S * (0.5 + random.random()))  # noqa: S311 - not for secrets
        raise StoreError(f"others keep writing to the collection {self.uri}; try again later")

    def _tidy_if_due(self) -> None:
        """Drop versions that nobody reads any more, once in many commits."""
        self._n_commits += 1
        if self._n_commits % _TIDY_EVERY == 0:
            with suppress(StoreError):  # others tidy up, too; then the next time
                self._clean(self.latest(), KEPT_FOR)

    def _clean(self, data: lance.LanceDataset, keep: timedelta) -> int:
        """Drop versions older than ``keep``, but for snapshots; return the bytes that it freed."""
        with explained(self.uri, "written"):
            cleaned = data.cleanup_old_versions(
                older_than=max(keep, timedelta(microseconds=1)), error_if_tagged_old_versions=False
            )
            if "://" not in self.uri:
                forget_gone(Path(self.uri))
        return int(cleaned.bytes_removed)


def _is_conflict(error: StoreError, uri: str) -> bool:
    text = str(error.__cause__).replace(uri.strip("/"), "").lower()  # lest the path says so
    return "concurrent" in text or "conflict" in text


def _metadata_in(schema: pa.Schema, uri: str) -> Mapping[str, Any]:
    found = {
        key.decode("utf-8", "replace"): value for key, value in (schema.metadata or {}).items()
    }
    if _KEY not in found:
        raise FormatError(f"{uri} is a Lance table, but no collection of vit4icd")
    text = found[_KEY]
    if found.get(_CHECK) != str(zlib.crc32(text)).encode():
        raise FormatError(f"what the collection {uri} says of itself is damaged")
    metadata: dict[str, Any] = json.loads(text)
    if metadata["format_version"] > FORMAT_VERSION:
        raise FormatError(
            f"the collection {uri} has format {metadata['format_version']}; this version reads up "
            f"to {FORMAT_VERSION}: upgrade vit4icd"
        )
    expected = schema_of(metadata["dim"], {}, with_parts=metadata["format_version"] > 1)
    if not schema.equals(expected, check_metadata=False):
        raise FormatError(f"the columns of the collection {uri} are damaged")
    return metadata
