"""Whether a collection is whole: every row read and compared with its checksums; it mends none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vit4icd.collection.blocks import files_of
from vit4icd.collection.features import features_in
from vit4icd.collection.rows import (
    Seal,
    decode,
    pictures_in,
    records_in,
    sketches_in,
    vectors_in,
)
from vit4icd.collection.sketches import sketches_of
from vit4icd.collection.table import Table
from vit4icd.errors import FormatError, Vit4icdError

__all__ = ["Verification", "verify"]

_UNIT = 0.01  # by which the length of a stored descriptor may differ from 1
_ROUNDED = 0.1  # share of a sketch that may differ, as another processor rounds otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What a check of all rows found."""

    n_images: int
    n_files: int
    problems: tuple[str, ...]
    """What is wrong, a sentence each; none where the collection is whole."""


def verify(table: Table) -> Verification:
    """Read every row: ids unique, descriptors of length 1, checksums right, none missing.

    Raises:
        StoreError: the table cannot be opened at all.
    """
    problems: list[str] = []
    seen: set[bytes] = set()
    found, files = Seal(), files_of(table)
    for file in files:
        try:
            for rows in file.rows():
                problems.extend(_problems(rows, seen))
                found = found.plus(pictures_in(rows)["vector_check"].to_pylist())
        except Vit4icdError as error:
            problems.append(f"file {file.name}: {error}")
    problems.extend(_complaint(lambda: _require_seal(found, table.seal())))
    return Verification(n_images=found.n_rows, n_files=len(files), problems=tuple(problems))


def _problems(rows: pa.Table, seen: set[bytes]) -> Iterator[str]:
    for id_ in rows["id"].to_pylist():
        if id_ in seen:
            yield f"the id {decode(id_)!r} stands there twice"
        seen.add(id_)
    yield from _complaint(lambda: _require_unit(rows))
    yield from _complaint(lambda: _require_sketches(rows))
    yield from _complaint(lambda: records_in(rows))
    yield from features_in(rows).unreadable


def _complaint(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except Vit4icdError as error:
        yield str(error)


def _require_unit(rows: pa.Table) -> None:
    ids, vectors, _ = vectors_in(rows)
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT))
    if len(wrong):
        row = int(wrong[0])
        raise FormatError(
            f"the descriptor of {decode(ids[row].as_py())!r} has length {lengths[row]:.3f}, not 1"
        )


def _require_sketches(rows: pa.Table) -> None:
    ids, sketches, _ = sketches_in(rows)
    expected = sketches_of(vectors_in(rows)[1])
    wrong = np.flatnonzero((sketches != expected).mean(axis=1) > _ROUNDED)
    if len(wrong):
        name = decode(ids[int(wrong[0])].as_py())
        raise FormatError(f"the sketch of {name!r} is not that of its descriptor")


def _require_seal(found: Seal, expected: Seal) -> None:
    if found != expected:
        raise FormatError(
            f"{found.n_rows} whole rows are there, but {expected.n_rows} were added and not removed"
        )
