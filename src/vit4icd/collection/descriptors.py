"""Descriptors of a picture and of its parts, and their sketches, as checked Arrow columns."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float16, Int64, Shaped, UInt8

from vit4icd.collection.records import as_written, damaged, decode, pictures_in
from vit4icd.collection.sketches import Sketches, sketches_of

__all__ = [
    "PART_MARGIN",
    "SEALED_COLUMNS",
    "SKETCH_COLUMNS",
    "VECTOR_COLUMNS",
    "WHOLE_COLUMNS",
    "Parts",
    "Stored",
    "descriptor_columns",
    "ids_having",
    "sketches_in",
    "vectors_in",
]

PART_MARGIN = 0.1
"""By how much more similar a part must be than a whole picture to be as near to a query: parts
show less, and so are like more. Measured: docs/decisions/0012-parts-of-references.md."""
SEALED_COLUMNS = ["id", "vector_check", "part_numbers", "parts_check"]
"""What the seal counts and sums up; the columns below hold them all."""
WHOLE_COLUMNS = [*SEALED_COLUMNS, "vector"]
VECTOR_COLUMNS = [*WHOLE_COLUMNS, "parts"]
SKETCH_COLUMNS = [
    *SEALED_COLUMNS, "sketch", "sketch_check", "part_sketches", "part_sketches_check",
]  # fmt: skip

Values = Shaped[np.ndarray, "descriptor number"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Parts:
    """Which parts of a picture are described, by number from 1, and their descriptors."""

    numbers: Sequence[int]
    vectors: Float[np.ndarray, "part dim"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """Descriptors of rows, or sketches: of the whole pictures first, then of all their parts."""

    ids: pa.Array
    values: Values
    pictures: Int64[np.ndarray, " descriptor"]
    """Whose each is, by place among the ids."""
    numbers: UInt8[np.ndarray, " descriptor"]
    """Of which part each is; 0 is the whole picture."""


def descriptor_columns(
    ids: Sequence[bytes],
    vectors: Float16[np.ndarray, "row dim"],
    parts: Sequence[Parts | None],
) -> dict[str, Any]:
    """Return descriptors as columns, but for the id, with their sketches and checksums."""
    dim, sketches = vectors.shape[1], sketches_of(vectors)
    numbers = [None if one is None else bytes(one.numbers) for one in parts]
    of_parts = [None if one is None else one.vectors.astype(np.float16) for one in parts]
    part_sketches = [None if one is None else sketches_of(one) for one in of_parts]
    return {
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
        "sketch": list(map(bytes, sketches)),
        "vector_check": list(map(_check, ids, vectors)),
        "sketch_check": list(map(_check, ids, sketches)),
        "part_numbers": numbers,
        "parts": _bytes(of_parts),
        "part_sketches": _bytes(part_sketches),
        "parts_check": list(map(_part_check, ids, numbers, _bytes(of_parts))),
        "part_sketches_check": list(map(_part_check, ids, numbers, _bytes(part_sketches))),
    }


def vectors_in(table: pa.Table) -> Stored:
    """Return the descriptors of the pictures among the rows.

    Of their parts, too, if the table has that column.

    Raises:
        FormatError: a row that is not what was written.
    """
    return _stored(table, ("vector", "parts"), _vectors, np.float16, "descriptor")


def sketches_in(table: pa.Table) -> Stored:
    """Return the sketches of the pictures among the rows, and of their parts.

    Raises:
        FormatError: a row that is not what was written.
    """
    return _stored(table, ("sketch", "part_sketches"), _sketches, np.uint8, "sketch")


def ids_having(table: pa.Table, column: str) -> set[str]:
    """Return the ids of the pictures that have something in a column."""
    if column not in table.column_names:
        return set()
    return set(map(decode, table.filter(pc.field(column).is_valid())["id"].to_pylist()))


def _stored(
    table: pa.Table,
    names: tuple[str, str],
    wholes_in: Callable[[pa.Table], Values],
    kind: type,
    what: str,
) -> Stored:
    """Return what lies in the columns of these names: of the wholes, of the parts."""
    with as_written():
        rows = pictures_in(table)
        ids, wholes = rows["id"].combine_chunks(), wholes_in(rows)
        keys = ids.to_pylist()
    checks = np.fromiter(map(_check, keys, wholes), np.uint32, len(keys))
    wrong = np.flatnonzero(checks != rows[f"{names[0]}_check"].to_numpy())
    if len(wrong):
        raise damaged(keys[int(wrong[0])], what)
    numbers, data = _parts_in(rows, keys, names[1], f"{what} of a part")
    with as_written():
        counts = np.fromiter(map(len, numbers), np.int64, len(numbers))
        parts: Values = np.frombuffer(b"".join(data), kind).reshape(counts.sum(), wholes.shape[1])
    rows_of_parts = np.repeat(np.arange(len(numbers)), counts)
    return Stored(
        ids=ids,
        values=np.concatenate([wholes, parts]) if len(parts) else wholes,
        pictures=np.concatenate([np.arange(len(keys)), rows_of_parts]),
        numbers=np.frombuffer(bytes(len(keys)) + b"".join(numbers), np.uint8),
    )


def _vectors(rows: pa.Table) -> Float16[np.ndarray, "row dim"]:
    dim = rows.schema.field("vector").type.list_size
    return np.asarray(rows["vector"].combine_chunks().flatten()).reshape(len(rows), dim)


def _sketches(rows: pa.Table) -> Sketches:
    width, data = rows.schema.field("sketch").type.byte_width, rows["sketch"].to_pylist()
    return np.frombuffer(b"".join(data), np.uint8).reshape(len(rows), width)


def _parts_in(
    rows: pa.Table, ids: Sequence[bytes], name: str, what: str
) -> tuple[list[bytes], list[bytes]]:
    """Return each row's numbers of parts and their bytes, checked; no rows without the column."""
    if name not in rows.column_names:
        return [], []
    numbers, data, checks = (
        rows[column].to_pylist() for column in ("part_numbers", name, f"{name}_check")
    )
    for id_, check, *written in zip(ids, checks, numbers, data, strict=True):
        if len({value is None for value in written}) > 1 or check != _part_check(id_, *written):
            raise damaged(id_, what)
    return [one or b"" for one in numbers], [one or b"" for one in data]


def _bytes(parts: Sequence[np.ndarray | None]) -> list[bytes | None]:
    return [None if one is None else one.tobytes() for one in parts]


def _check(id_: bytes, values: np.ndarray) -> int:
    return zlib.crc32(values.data, zlib.crc32(id_))


def _part_check(id_: bytes, numbers: bytes | None, data: bytes | None) -> int | None:
    if numbers is None or data is None:
        return None
    return zlib.crc32(data, zlib.crc32(numbers, zlib.crc32(id_)))
