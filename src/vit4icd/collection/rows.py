"""Rows of a collection: all that is kept of a picture, and the seal; it opens no table."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from vit4icd.collection.descriptors import Parts, descriptor_columns
from vit4icd.collection.records import (
    SEAL_ID,
    Record,
    decode,
    encode,
    pictures_in,
    record_columns,
    records_in,
)
from vit4icd.collection.sketches import sketch_bytes
from vit4icd.errors import FormatError

__all__ = [
    "Row",
    "Seal",
    "keeping",
    "places_in",
    "restamped",
    "schema_of",
    "seal_in",
    "seal_of",
    "sealed",
    "to_table",
]

# Lance refuses to commit two rows of one key that were added at once only when it knows the key.
_KEY = {"lance-schema:unenforced-primary-key": "true"}
_SUM = 2**64
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """A record with its descriptor and, if taken, those of its parts, and local features."""

    record: Record
    vector: Float32[np.ndarray, " dim"]
    features: bytes | None
    parts: Parts | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """How many rows and parts there are and the sum of their checksums: none is lost unnoticed."""

    n_rows: int = 0
    n_parts: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.n_rows} pictures" + f" and {self.n_parts} parts" * bool(self.n_parts)

    @property
    def n_descriptors(self) -> int:
        """How many descriptors there are, of whole pictures and of parts."""
        return self.n_rows + self.n_parts

    def plus(self, other: "Seal", sign: int = 1) -> "Seal":
        """Return the seal once the rows of another are added, or removed (sign -1)."""
        return Seal(
            n_rows=self.n_rows + sign * other.n_rows,
            n_parts=self.n_parts + sign * other.n_parts,
            total=(self.total + sign * other.total) % _SUM,
        )


def schema_of(dim: int, metadata: Mapping[str, str], *, with_parts: bool = True) -> pa.Schema:
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
    if with_parts:
        columns += [
            ("part_numbers", pa.binary()),
            ("parts", pa.large_binary()),
            ("part_sketches", pa.large_binary()),
            ("parts_check", pa.uint32()),
            ("part_sketches_check", pa.uint32()),
        ]
    fields = [
        pa.field(
            name,
            kind,
            nullable=name.startswith(("features", "part")),
            metadata=_KEY if name == "id" else None,
        )
        for name, kind in columns
    ]
    return pa.schema(fields, metadata=dict(metadata))


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Return rows as columns, each with its checksums."""
    dim = schema.field("vector").type.list_size
    vectors = np.array([row.vector for row in rows], np.float16).reshape(-1, dim)
    ids = [encode(row.record.id) for row in rows]
    columns: dict[str, Any] = {
        "id": ids,
        **descriptor_columns(ids, vectors, [row.parts for row in rows]),
        **record_columns([row.record for row in rows]),
        "features": [row.features for row in rows],
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


def keeping(rows: pa.Table, stored: pa.Table) -> pa.Table:
    """Return rows, and where they have no parts or local features those of stored ones.

    Only of a row with the same id and the same content.
    """
    place = {content: number for number, content in enumerate(_contents(stored))}
    places = pa.array(map(place.get, _contents(rows)), pa.int64())
    for number, column in enumerate(rows.schema):
        if column.nullable:  # parts and local features, all columns of one or none
            values = pc.coalesce(rows[column.name], stored[column.name].take(places))
            rows = rows.set_column(number, column, values)
    return rows


def restamped(table: pa.Table, records: Mapping[str, Record]) -> pa.Table:
    """Return whole rows with the stamps of these records, where the content is still the same.

    Raises:
        FormatError: a row that is not what was written.
    """
    stored = records_in(table)
    rows = [row for row, old in enumerate(stored) if old.sha256 == records[old.id].sha256]
    fresh = [replace(stored[row], stamp=records[stored[row].id].stamp) for row in rows]
    columns = record_columns(fresh)
    table = table.take(rows) if rows else table.slice(0, 0)
    for name in ("stamp", "record_check"):
        field = table.schema.field(name)
        place = table.schema.get_field_index(name)
        table = table.set_column(place, field, pa.array(columns[name], field.type))
    return table


def _contents(rows: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    return zip(rows["id"].to_pylist(), rows["sha256"].to_pylist(), strict=True)


def places_in(table: pa.Table) -> Int64[np.ndarray, " row"]:
    """Return where the pictures are among the rows."""
    return np.flatnonzero(pc.not_equal(table["id"], SEAL_ID).to_numpy()).astype(np.int64)


def seal_of(table: pa.Table) -> Seal:
    """Return the seal of the pictures among the rows, by their checksums as they are written."""
    rows, has_parts = pictures_in(table), "part_numbers" in table.column_names
    numbers = rows["part_numbers"].to_pylist() if has_parts else []
    checks = [rows["vector_check"], *([rows["parts_check"]] if has_parts else [])]
    return Seal(
        n_rows=len(rows),
        n_parts=sum(map(len, filter(None, numbers))),
        total=sum(pc.sum(column).as_py() or 0 for column in checks) % _SUM,
    )


def sealed(rows: pa.Table, seal: Seal, schema: pa.Schema) -> pa.Table:
    """Return rows with the seal's row after them."""
    record = Record(
        id=decode(SEAL_ID), source="", sha256="0" * 64, width=0, height=0, added=_EPOCH,
        metadata={name: str(value) for name, value in asdict(seal).items()},
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
        return Seal(
            n_rows=int(fields["n_rows"]),
            n_parts=int(fields.get("n_parts", "0")),  # none was counted in format 1
            total=int(fields["total"]),
        )
    except (KeyError, ValueError) as error:
        raise FormatError("the row that seals the collection is damaged") from error
