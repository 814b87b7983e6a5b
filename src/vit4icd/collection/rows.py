"""What is kept of a picture, as Arrow columns with checksums; it opens no table."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float16, Float32, Int64

from vit4icd.collection.sketches import Sketches, sketch_bytes, sketches_of
from vit4icd.errors import FormatError
from vit4icd.storage import name_fields

__all__ = [
    "RECORD_COLUMNS",
    "SEAL_ID",
    "SKETCH_COLUMNS",
    "VECTOR_COLUMNS",
    "Record",
    "Row",
    "Seal",
    "Vectors",
    "damaged",
    "decode",
    "encode",
    "pictures_in",
    "places_in",
    "records_in",
    "restamped",
    "schema_of",
    "seal_in",
    "sealed",
    "shown",
    "sketches_in",
    "to_table",
    "vectors_in",
]

SEAL_ID = b""
"""Id of the one row that is no picture: it says which rows there are."""
VECTOR_COLUMNS = ["id", "vector", "vector_check"]
SKETCH_COLUMNS = ["id", "sketch", "sketch_check", "vector_check"]
RECORD_COLUMNS = [
    "id", "sha256", "stamp", "source", "width", "height", "metadata", "added", "record_check",
]  # fmt: skip

# Lance refuses to commit two rows of one key that were added at once only when it knows the key.
_KEY = {"lance-schema:unenforced-primary-key": "true"}
_SUM = 2**64

Vectors = Float16[np.ndarray, "row dim"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a collection knows of a picture, beside its descriptor and local features."""

    id: str
    source: str
    """Where the picture came from, as it was given; empty for a picture from memory."""
    sha256: str
    """Of the file's bytes, or of the pixels of a picture from memory."""
    width: int
    height: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    added: datetime
    stamp: str = ""
    """Size and times of the file when it was read, by which an unchanged one is told."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, but for the stamp."""
        return name_fields("id", self.id) | {
            **name_fields("source", self.source),
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "metadata": dict(self.metadata),
            "added": self.added.isoformat(),
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """A record with its descriptor and, if they were taken, its local features as bytes."""

    record: Record
    vector: Float32[np.ndarray, " dim"]
    features: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """How many rows there are and the sum of their checksums, so that none is lost unnoticed."""

    n_rows: int = 0
    total: int = 0

    def plus(self, checks: Sequence[int], sign: int = 1) -> "Seal":
        """Return the seal once rows of these checksums are added, or removed (sign -1)."""
        return Seal(
            n_rows=self.n_rows + sign * len(checks), total=(self.total + sign * sum(checks)) % _SUM
        )


def schema_of(dim: int, metadata: Mapping[str, str]) -> pa.Schema:
    """Return the columns of a collection of descriptors of that length."""
    columns: list[tuple[str, pa.DataType]] = [
        ("id", pa.binary()),  # bytes, for paths need not be UTF-8
        ("vector", pa.list_(pa.float16(), dim)),
        ("sketch", pa.binary(sketch_bytes(dim))),
        ("sha256", pa.binary(32)),
        ("stamp", pa.binary()),
        ("source", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("metadata", pa.binary()),
        ("added", pa.timestamp("us", "UTC")),
        ("features", pa.large_binary()),
        ("vector_check", pa.uint32()),
        ("sketch_check", pa.uint32()),
        ("record_check", pa.uint32()),
        ("features_check", pa.uint32()),
    ]
    fields = [
        pa.field(
            name,
            kind,
            nullable=name.startswith("features"),
            metadata=_KEY if name == "id" else None,
        )
        for name, kind in columns
    ]
    return pa.schema(fields, metadata=dict(metadata))


def encode(name: str) -> bytes:
    """Return a name as the bytes that are stored; any path survives."""
    return name.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """Return the name that :func:`encode` was given."""
    return data.decode("utf-8", "surrogateescape")


def damaged(id_: bytes, what: str) -> FormatError:
    """Return the error that says that a part of this row is not what was written."""
    return FormatError(f"the {what} of {shown(id_)!r} is damaged")


def shown(id_: bytes) -> str:
    """Return an id that can be printed: stray bytes are escaped."""
    return id_.decode("utf-8", "backslashreplace")


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Return rows as columns, each with its checksums."""
    dim = schema.field("vector").type.list_size
    vectors = np.array([row.vector for row in rows], np.float16).reshape(-1, dim)
    ids, sketches = [encode(row.record.id) for row in rows], sketches_of(vectors)
    columns: dict[str, Any] = {
        "id": ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
        "sketch": list(map(bytes, sketches)),
        "sha256": [bytes.fromhex(row.record.sha256) for row in rows],
        "stamp": [encode(row.record.stamp) for row in rows],
        "source": [encode(row.record.source) for row in rows],
        "width": [row.record.width for row in rows],
        "height": [row.record.height for row in rows],
        "metadata": [_metadata(row.record.metadata) for row in rows],
        "added": [row.record.added for row in rows],
        "features": [row.features for row in rows],
        "vector_check": list(_checks(ids, vectors)),
        "sketch_check": list(_checks(ids, sketches)),
        "record_check": [_record_check(row.record) for row in rows],
        "features_check": [
            None if row.features is None else zlib.crc32(row.features, zlib.crc32(id_))
            for id_, row in zip(ids, rows, strict=True)
        ],
    }
    arrays = [
        column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field, column in ((field, columns[field.name]) for field in schema)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def restamped(table: pa.Table, records: Mapping[str, Record]) -> pa.Table:
    """Return whole rows with the stamps of these records, where the content is still the same.

    Raises:
        FormatError: a row that is not what was written.
    """
    stored = records_in(table)
    rows = [row for row, old in enumerate(stored) if old.sha256 == records[old.id].sha256]
    fresh = [replace(stored[row], stamp=records[stored[row].id].stamp) for row in rows]
    columns: dict[str, list[Any]] = {
        "stamp": [encode(record.stamp) for record in fresh],
        "record_check": [_record_check(record) for record in fresh],
    }
    table = table.take(rows) if rows else table.slice(0, 0)
    for name, values in columns.items():
        field = table.schema.field(name)
        place = table.schema.get_field_index(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table


def sealed(rows: pa.Table, seal: Seal, schema: pa.Schema) -> pa.Table:
    """Return rows with the seal's row after them."""
    record = Record(
        id=decode(SEAL_ID), source="", sha256="0" * 64, width=0, height=0, added=_EPOCH,
        metadata={"n_rows": str(seal.n_rows), "total": str(seal.total)},
    )  # fmt: skip
    vector = np.zeros(schema.field("vector").type.list_size, np.float32)
    return pa.concat_tables(
        [rows, to_table([Row(record=record, vector=vector, features=None)], schema)]
    )


def seal_in(table: pa.Table) -> Seal:
    """Read the seal from its row's record columns.

    Raises:
        FormatError: there is none, or it is damaged.
    """
    records = records_in(table)
    try:
        (fields,) = (record.metadata for record in records if encode(record.id) == SEAL_ID)
        return Seal(n_rows=int(fields["n_rows"]), total=int(fields["total"]))
    except (KeyError, ValueError) as error:
        raise FormatError("the row that seals the collection is damaged") from error


def vectors_in(table: pa.Table) -> tuple[pa.Array, Vectors, int]:
    """Return ids, descriptors and the sum of their checksums, of the pictures among the rows.

    Raises:
        FormatError: a row that is not what was written.
    """
    with _whole():
        rows = pictures_in(table)
        ids, dim = rows["id"].combine_chunks(), rows.schema.field("vector").type.list_size
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(ids), dim)
    _require_checks(ids.to_pylist(), vectors, rows["vector_check"], "descriptor")
    return ids, vectors, _total(rows)


def sketches_in(table: pa.Table) -> tuple[pa.Array, Sketches, int]:
    """Return ids, sketches and the sum of checksums of the descriptors, as :func:`vectors_in`.

    Raises:
        FormatError: a row that is not what was written.
    """
    with _whole():
        rows = pictures_in(table)
        ids, width = rows["id"].combine_chunks(), rows.schema.field("sketch").type.byte_width
        data = b"".join(rows["sketch"].to_pylist())
        sketches = np.frombuffer(data, np.uint8).reshape(len(ids), width)
    _require_checks(ids.to_pylist(), sketches, rows["sketch_check"], "sketch")
    return ids, sketches, _total(rows)


def places_in(table: pa.Table) -> Int64[np.ndarray, " row"]:
    """Return where the pictures are among the rows."""
    return np.flatnonzero(pc.not_equal(table["id"], SEAL_ID).to_numpy()).astype(np.int64)


def pictures_in(table: pa.Table) -> pa.Table:
    """Return the rows without the seal's."""
    return table.filter(pc.field("id") != SEAL_ID)


def records_in(table: pa.Table) -> list[Record]:
    """Return the rows' records.

    Raises:
        FormatError: a row that is not what was written.
    """
    with _whole():
        rows = table.select(RECORD_COLUMNS).to_pylist()
        records = [_record(row) for row in rows]
    for row, record in zip(rows, records, strict=True):
        if row["record_check"] != _record_check(record):
            raise damaged(row["id"], "record")
    return records


@contextmanager
def _whole() -> Iterator[None]:
    """Turn whatever rows raise that are not what was written into FormatError."""
    try:
        yield
    except Exception as error:
        raise FormatError(f"rows of the collection are damaged: {error}") from error


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def _record(row: Mapping[str, Any]) -> Record:
    return Record(
        id=decode(row["id"]),
        source=decode(row["source"]),
        sha256=row["sha256"].hex(),
        width=row["width"],
        height=row["height"],
        metadata=json.loads(row["metadata"]),
        added=row["added"],
        stamp=decode(row["stamp"]),
    )


def _metadata(metadata: Mapping[str, str]) -> bytes:
    return encode(json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True))


def _checks(ids: Sequence[bytes], values: np.ndarray) -> Iterator[int]:
    """Yield the checksum of each id and its row of values."""
    data, size = memoryview(values.tobytes()), values.itemsize * values.shape[1]
    for row, id_ in enumerate(ids):
        yield zlib.crc32(data[row * size : (row + 1) * size], zlib.crc32(id_))


def _record_check(record: Record) -> int:
    parts = (
        encode(record.id), bytes.fromhex(record.sha256), encode(record.stamp),
        encode(record.source), b"%d x %d" % (record.width, record.height),
        _metadata(record.metadata), encode(record.added.isoformat()),
    )  # fmt: skip
    return zlib.crc32(b"\0".join(parts))


def _require_checks(
    ids: Sequence[bytes], values: np.ndarray, checks: pa.ChunkedArray, what: str
) -> None:
    computed = np.fromiter(_checks(ids, values), np.uint32, len(ids))
    wrong = np.flatnonzero(computed != checks.to_numpy())
    if len(wrong):
        raise damaged(ids[int(wrong[0])], what)


def _total(rows: pa.Table) -> int:
    return int(rows["vector_check"].to_numpy().sum(dtype=np.uint64))
