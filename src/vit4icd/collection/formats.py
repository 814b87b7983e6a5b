"""Matches and records as Arrow, CSV, JSON and Parquet; it finds none."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vit4icd.matches import Match
from vit4icd.storage import atomic_path, name_fields

__all__ = ["FileFormat", "match_fields", "matches_table", "write_fields", "write_parts"]

FileFormat = Literal["json", "jsonl", "csv", "parquet"]
Fields = Mapping[str, Any]

_TYPES = {
    "query": pa.string(),
    "reference": pa.string(),
    "verdict": pa.string(),
    "same_bytes": pa.bool_(),
    "probability": pa.float64(),
    "score": pa.float64(),
    "similarity": pa.float64(),
    "verified": pa.bool_(),
    "orientation": pa.string(),
    "query_part": pa.string(),
    "reference_part": pa.string(),
    "query_share": pa.float64(),
    "reference_share": pa.float64(),
    "matches": pa.int64(),
    "flipped": pa.bool_(),
    "rotation": pa.float64(),
    "scale": pa.float64(),
    "metadata": pa.string(),
}
_OF_OVERLAP = ("query_share", "reference_share", "matches", "flipped", "rotation", "scale")


def matches_table(matches: Iterable[Sequence[Match]]) -> pa.Table:
    """Return what :meth:`Collection.search` gave as an Arrow table, a row for each match.

    ``matches_table(...).to_pandas()`` is a data frame, where pandas is installed. Names that are
    not UTF-8 stand there in base64 too, in columns of their own.

    Example:
        >>> match = Match(
        ...     query="q.jpg", reference="r.jpg", similarity=0.8, score=0.3, probability=0.97,
        ...     verdict="copy", overlap=None, verified=False,
        ... )
        >>> matches_table([[match], []]).select(["query", "reference", "verdict"]).to_pylist()
        [{'query': 'q.jpg', 'reference': 'r.jpg', 'verdict': 'copy'}]
    """
    return _table([match_fields(match) for of_query in matches for match in of_query])


def match_fields(match: Match) -> dict[str, Any]:
    """Return a match as one flat row: of the overlap, how much and how, but no polygons."""
    fields = match.to_json()
    overlap = match.overlap.to_json() if match.overlap is not None else {}
    row = {name: overlap[name] if overlap else None for name in _OF_OVERLAP}
    row |= {name: fields[name] for name in _TYPES if name in fields}
    row["metadata"] = json.dumps(dict(match.metadata), ensure_ascii=False)
    names = name_fields("query", match.query) | name_fields("reference", match.reference)
    return {name: row.get(name) for name in _TYPES} | names


def write_fields(
    rows: Iterable[Fields],
    file_format: FileFormat,
    out: Path | None,
    *,
    columns: Sequence[str] = tuple(_TYPES),
) -> None:
    """Write rows of JSON values to a file, whole or not at all, or else to stdout.

    Lines of JSON go to stdout as they come. ``columns`` are those of a table without a row; unless
    given, a match's.
    """
    write_parts(_encoded(rows, file_format, columns), out)


def write_parts(parts: Iterable[bytes], out: Path | None) -> None:
    """Write bytes to a file, whole or not at all, or else to stdout as they come."""
    if out is None:
        for part in parts:
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        return
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def _encoded(
    rows: Iterable[Fields], file_format: FileFormat, columns: Sequence[str]
) -> Iterator[bytes]:
    if file_format == "jsonl":
        for row in rows:
            yield (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
    elif file_format == "json":
        text = json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n"
        yield text.encode("utf-8", "surrogateescape")
    elif file_format == "csv":
        yield _csv(list(rows), columns).encode("utf-8", "surrogateescape")
    else:
        sink = io.BytesIO()
        pq.write_table(_table(list(rows), columns), sink)
        yield sink.getvalue()


def _csv(rows: Sequence[Fields], columns: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    columns = _columns(rows) or columns
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(rows: Sequence[Fields], columns: Sequence[str] = tuple(_TYPES)) -> pa.Table:
    columns = _columns(rows) or columns
    return pa.table(
        {name: pa.array([row.get(name) for row in rows], _TYPES.get(name)) for name in columns}
    )


def _columns(rows: Sequence[Fields]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
