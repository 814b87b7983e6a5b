"""Local features as they are stored, each read for itself: a bad one costs only itself."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from vit4icd.collection.records import damaged, decode, shown
from vit4icd.errors import FormatError, StoreError
from vit4icd.overlap import LocalFeatures

__all__ = ["FEATURE_COLUMNS", "StoredFeatures", "features_in", "ids_with_features", "in_parts"]

FEATURE_COLUMNS = ["id", "features", "features_check"]

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFeatures:
    """Local features by id; ids of which none were taken are in neither."""

    readable: Mapping[str, LocalFeatures]
    unreadable: tuple[str, ...]
    """What is wrong with the others, a sentence each."""


def features_in(table: pa.Table) -> StoredFeatures:
    """Return the rows' local features: what can be read, and what cannot."""
    readable: dict[str, LocalFeatures] = {}
    unreadable: list[str] = []
    for id_, data, is_whole in _stored(table):
        try:
            if not is_whole:
                raise FormatError(f"{damaged(id_, 'local features')}; add the picture again")
            readable[decode(id_)] = _read(id_, data)
        except FormatError as error:
            unreadable.append(str(error))
    return StoredFeatures(readable=readable, unreadable=tuple(unreadable))


def ids_with_features(table: pa.Table) -> set[str]:
    """Return the ids whose local features can be read; they are checked, but not decoded."""
    return {
        decode(id_)
        for id_, data, is_whole in _stored(table)
        if is_whole and LocalFeatures.suits(data)
    }


def in_parts(read: Callable[[Sequence[Key]], pa.Table], keys: Sequence[Key]) -> Iterator[pa.Table]:
    """Yield what can be read of these rows, all at once if that goes, else in ever smaller parts.

    Example:
        >>> def read(keys: Sequence[int]) -> pa.Table:
        ...     if 2 in keys:
        ...         raise StoreError("the place of row 2 is damaged")
        ...     return pa.table({"key": list(keys)})
        >>> [part["key"].to_pylist() for part in in_parts(read, [0, 1, 2, 3])]
        [[0, 1], [3]]
    """
    try:
        parts: Iterator[pa.Table] = iter([read(keys)])
    except StoreError:
        middle = len(keys) // 2
        halves = (keys[:middle], keys[middle:]) if middle else ()
        parts = (part for half in halves for part in in_parts(read, half))
    yield from parts


def _stored(table: pa.Table) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield id, bytes, and whether those are what was written, where there is any of them."""
    columns = (table[name].to_pylist() for name in FEATURE_COLUMNS)
    for id_, data, check in zip(*columns, strict=True):
        if data is not None or check is not None:
            is_whole = data is not None and zlib.crc32(data, zlib.crc32(id_)) == check
            yield id_, data or b"", is_whole


def _read(id_: bytes, data: bytes) -> LocalFeatures:
    try:
        return LocalFeatures.from_bytes(data)
    except FormatError as error:
        raise FormatError(
            f"the local features of {shown(id_)!r} cannot be read: {error}"
        ) from error
