"""A collection's descriptors in memory, and the nearest of them to a query; it judges nothing."""

import threading
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int64

from vit4icd.collection.rows import decode
from vit4icd.collection.table import Block, Table
from vit4icd.search import top_k

__all__ = ["Held", "Memory"]

_WIDE_ROWS = 262_144  # rows up to which descriptors are held in single precision, to be fast


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Held:
    """One version of a collection's descriptors."""

    version: int
    blocks: tuple[Block, ...]
    arrays: tuple[Float[np.ndarray, "_ dim"], ...]
    """The blocks' descriptors: float32, or float16 where there are very many."""

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def ids(self) -> list[str]:
        """Return all ids, in the order of the rows."""
        return [decode(id_) for block in self.blocks for id_ in block.ids.to_pylist()]

    def names(self, rows: Int64[np.ndarray, " row"]) -> list[str]:
        """Return the ids of these rows."""
        ends = np.cumsum([len(block) for block in self.blocks])
        parts = np.searchsorted(ends, rows, side="right")
        return [
            decode(self.blocks[part].ids[int(row - ends[part])].as_py())
            for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
        ]

    def nearest(
        self, queries: Float32[np.ndarray, "query dim"], k: int
    ) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
        """Return the k largest inner products of each query, and their rows; exact.

        Of equal ones the earlier row comes first; fewer than k where there are fewer rows.
        """
        similarities = np.empty((len(queries), 0), np.float32)
        rows, start = np.empty((len(queries), 0), np.int64), 0
        for array in self.arrays:
            block = np.ascontiguousarray(array, np.float32)
            found, at = top_k(queries, block, min(k, len(block)))
            similarities = np.hstack([similarities, found])
            rows = np.hstack([rows, at + start])
            order = np.lexsort((rows, -similarities), axis=1)[:, :k]
            similarities = np.take_along_axis(similarities, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
            start += len(block)
        return similarities, rows


@dataclass(slots=True, eq=False)
class Memory:
    """The descriptors of a table's newest version, read again only where they changed."""

    table: Table
    _held: Held | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def newest(self) -> Held:
        """Return the newest version's descriptors; what is held of them already is kept."""
        with self._lock:
            held = self._held
            if held is None or held.version != self.table.version:
                self._held = held = self._read(held)
            return held

    def _read(self, held: Held | None) -> Held:
        kept = dict(zip(held.blocks, held.arrays, strict=True)) if held else {}
        version, found = self.table.blocks({block.key: block for block in kept})
        dtype = np.float32 if sum(map(len, found)) <= _WIDE_ROWS else np.float16
        return Held(
            version=version,
            blocks=tuple(found),
            arrays=tuple(np.asarray(kept.get(block, block.vectors), dtype) for block in found),
        )
