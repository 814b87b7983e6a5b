"""What is known of a picture, as Arrow columns with a checksum; it knows no descriptors."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vit4icd.errors import FormatError
from vit4icd.storage import name_fields

__all__ = [
    "RECORD_COLUMNS",
    "RECORD_FIELDS",
    "SEAL_ID",
    "Record",
    "as_written",
    "damaged",
    "decode",
    "encode",
    "pictures_in",
    "record_columns",
    "records_in",
    "shown",
]

SEAL_ID = b""
"""Id of the one row that is no picture: it says which rows there are."""
RECORD_COLUMNS = [
    "id", "sha256", "stamp", "source", "width", "height", "metadata", "added", "record_check",
    "part_numbers",
]  # fmt: skip

RECORD_FIELDS = ["id", "source", "sha256", "width", "height", "parts", "metadata", "added"]
"""What :meth:`Record.to_json` names."""


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
    n_parts: int = 0
    """How many parts of the picture are described beside it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, but for the stamp."""
        return name_fields("id", self.id) | {
            **name_fields("source", self.source),
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "parts": self.n_parts,
            "metadata": dict(self.metadata),
            "added": self.added.isoformat(),
        }


def encode(name: str) -> bytes:
    """Return a name as the bytes that are stored; any path survives."""
    return name.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """Return the name that :func:`encode` was given."""
    return data.decode("utf-8", "surrogateescape")


def damaged(id_: bytes, what: str) -> FormatError:
    """Return the error that says that a part of this row is not what was written."""
    return FormatError(
        f"the {what} of {shown(id_)!r} is damaged; index remove it, then add it again"
    )


def shown(id_: bytes) -> str:
    """Return an id that can be printed: stray bytes are escaped."""
    return id_.decode("utf-8", "backslashreplace")


def record_columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Return records as columns, but for the id, with their checksums."""
    return {
        "sha256": [bytes.fromhex(record.sha256) for record in records],
        "stamp": [encode(record.stamp) for record in records],
        "source": [encode(record.source) for record in records],
        "width": [record.width for record in records],
        "height": [record.height for record in records],
        "metadata": [_metadata(record.metadata) for record in records],
        "added": [record.added for record in records],
        "record_check": [_record_check(record) for record in records],
    }


def pictures_in(table: pa.Table) -> pa.Table:
    """Return the rows without the seal's."""
    return table.filter(pc.field("id") != SEAL_ID)


def records_in(table: pa.Table) -> list[Record]:
    """Return the rows' records.

    Raises:
        FormatError: a row that is not what was written.
    """
    with as_written():
        there = [name for name in RECORD_COLUMNS if name in table.column_names]
        rows = table.select(there).to_pylist()
        records = [_record(row) for row in rows]
    for row, record in zip(rows, records, strict=True):
        if row["record_check"] != _record_check(record):
            raise damaged(row["id"], "record")
    return records


@contextmanager
def as_written() -> Iterator[None]:
    """Turn whatever rows raise that are not what was written into FormatError."""
    try:
        yield
    except Exception as error:
        raise FormatError(f"rows of the collection are damaged: {error}") from error


def _record(row: Mapping[str, Any]) -> Record:
    return Record(
        id=decode(row["id"]),
        source=decode(row["source"]),
        sha256=row["sha256"].hex(),
        width=row["width"],
        height=row["height"],
        metadata=json.loads(decode(row["metadata"])),
        added=row["added"],
        stamp=decode(row["stamp"]),
        n_parts=len(row.get("part_numbers") or b""),  # the first format had no such column
    )


def _metadata(metadata: Mapping[str, str]) -> bytes:
    return encode(json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True))


def _record_check(record: Record) -> int:
    parts = (
        encode(record.id), bytes.fromhex(record.sha256), encode(record.stamp),
        encode(record.source), b"%d x %d" % (record.width, record.height),
        _metadata(record.metadata), encode(record.added.isoformat()),
    )  # fmt: skip
    return zlib.crc32(b"\0".join(parts))
