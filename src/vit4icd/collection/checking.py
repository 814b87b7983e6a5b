"""Whether a collection is whole: every row read and compared with its checksums; it mends none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from vit4icd.collection.blocks import files_of, read_blocks
from vit4icd.collection.descriptors import Stored, sketches_in, vectors_in
from vit4icd.collection.failures import without_hint
from vit4icd.collection.features import features_in
from vit4icd.collection.records import decode, records_in
from vit4icd.collection.rows import Seal, seal_of
from vit4icd.collection.sketches import sketches_of
from vit4icd.collection.table import Snapshot, Table
from vit4icd.errors import FormatError, Vit4icdError

__all__ = ["Verification", "require_restorable", "verify"]

_UNIT = 0.01  # by which the length of a stored descriptor may differ from 1
_ROUNDED = 0.1  # share of a sketch that may differ, as another processor rounds otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What a check of all rows found."""

    n_images: int
    n_files: int
    problems: tuple[str, ...]
    """What is wrong, a sentence each; none where the collection is whole."""


def verify(table: Table, *, thorough: bool = True) -> Verification:
    """Read every row: ids unique, descriptors of length 1, checksums right, none missing.

    Snapshots and local features, which cost only a proof, are left out if it is not thorough.

    Raises:
        StoreError: the table cannot be opened at all.
    """
    problems: list[str] = []
    seen: set[bytes] = set()
    data = table.latest()  # others may go on writing
    found, files = Seal(), files_of(table, data)
    for file in files:
        try:
            for rows in file.rows():
                problems.extend(_problems(rows, seen))
                problems.extend(features_in(rows).unreadable if thorough else ())
                found = found.plus(seal_of(rows))
        except Vit4icdError as error:
            problems.append(f"file {file.name}: {error}")
    problems.extend(_complaint(lambda: _require_seal(found, table.seal(data))))
    if thorough:
        problems.extend(_lost_snapshots(table))
    return Verification(n_images=found.n_rows, n_files=len(files), problems=tuple(problems))


def require_restorable(table: Table, snapshot: Snapshot) -> None:
    """Read the sketches of all that a snapshot holds.

    Raises:
        FormatError: it cannot be read, or not all of it is there.
    """
    try:
        read_blocks(Table(table.uri, version=snapshot.version), kind="sketches")
    except Vit4icdError as error:
        problem = without_hint(str(error))
        raise FormatError(f"the snapshot {snapshot.name!r} is damaged: {problem}") from error


def _lost_snapshots(table: Table) -> Iterator[str]:
    try:
        for snapshot in table.snapshots():
            yield from _complaint(partial(require_restorable, table, snapshot))
    except Vit4icdError as error:
        yield f"snapshots: {error}"


def _problems(rows: pa.Table, seen: set[bytes]) -> Iterator[str]:
    for id_ in rows["id"].to_pylist():
        if id_ in seen:
            yield f"the id {decode(id_)!r} stands there twice"
        seen.add(id_)
    yield from _complaint(lambda: _require_unit(rows))
    yield from _complaint(lambda: _require_sketches(rows))
    yield from _complaint(lambda: records_in(rows))


def _complaint(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except Vit4icdError as error:
        yield str(error)


def _require_unit(rows: pa.Table) -> None:
    stored = vectors_in(rows)
    lengths = np.linalg.norm(stored.values.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT))
    if len(wrong):
        name, length = _name(stored, wrong), lengths[wrong[0]]
        raise FormatError(f"a descriptor of {name!r} has length {length:.3f}, not 1")


def _require_sketches(rows: pa.Table) -> None:
    stored, expected = sketches_in(rows), sketches_of(vectors_in(rows).values)
    wrong = np.flatnonzero((stored.values != expected).mean(axis=1) > _ROUNDED)
    if len(wrong):
        name = _name(stored, wrong)
        raise FormatError(f"a sketch of {name!r} is not that of its descriptor")


def _name(stored: Stored, wrong: np.ndarray) -> str:
    return decode(stored.ids[int(stored.pictures[wrong[0]])].as_py())


def _require_seal(found: Seal, expected: Seal) -> None:
    if found != expected:
        raise FormatError(f"{found} are there whole, but {expected} were added and not removed")
