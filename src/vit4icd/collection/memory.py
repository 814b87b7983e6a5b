"""A collection's descriptors in memory, and the nearest of them to a query; it judges nothing."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import lance
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from vit4icd.collection.blocks import Block, read_blocks
from vit4icd.collection.rows import VECTOR_COLUMNS, decode, vectors_in
from vit4icd.collection.sketches import SketchIndex
from vit4icd.collection.table import Table
from vit4icd.search import top_k

__all__ = ["EXACT_ROWS", "Held", "Memory", "Nearest"]

EXACT_ROWS = 262_144
"""Pictures up to which all descriptors are held and compared; beyond, their sketches are."""

_CANDIDATES = 128  # of each query that sketches find and that are compared exactly, at least
_SPARE = 8  # times as many candidates as are wanted

Nearest = tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]
"""The largest inner products of each query, largest first, and their rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """One version of a collection: descriptors or their sketches in memory, the rest by row."""

    table: Table
    data: lance.LanceDataset
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def version(self) -> int:
        """Number of the version."""
        return int(self.data.version)

    def names(self, rows: Int64[np.ndarray, " row"]) -> list[str]:
        """Return the ids of these rows."""
        return [decode(id_) for id_ in self._ids(rows)]

    def read(
        self, rows: Sequence[int] | Int64[np.ndarray, " row"], columns: Sequence[str]
    ) -> pa.Table:
        """Return columns, the id among them, of these rows, in any order."""
        rows = np.unique(np.asarray(rows, np.int64))
        parts = np.searchsorted(self._ends, rows, side="right")
        starts = np.cumsum([0, *(block.n_rows for block in self.blocks)])
        places = [
            int(starts[part] + self.blocks[part].places[row - self._ends[part]])
            for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
        ]
        return self.table.take(self.data, places, self._ids(rows), columns)

    def nearest(self, queries: Float32[np.ndarray, "query dim"], k: int) -> Nearest:
        """Return the k nearest rows of each query; fewer where there are fewer.

        Exact where descriptors are held. Where sketches are, they find candidates, which are then
        compared exactly.
        """
        is_exact = not any(isinstance(block.descriptors, SketchIndex) for block in self.blocks)
        n_wanted = k if is_exact else max(_CANDIDATES, _SPARE * k)
        scores, rows = (
            np.empty((len(queries), 0), np.float32),
            np.empty((len(queries), 0), np.int64),
        )
        for block, end in zip(self.blocks, self._ends.tolist(), strict=True):
            if len(block):
                found, at = _nearest_in(block, queries, min(n_wanted, len(block)))
                scores, rows = np.hstack([scores, found]), np.hstack([rows, at + end - len(block)])
                scores, rows = _best(scores, rows, n_wanted)
        if is_exact or not rows.size:
            return scores, rows
        return _best(self._similarities(queries, rows), rows, k)

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " block"]:
        return np.cumsum([len(block) for block in self.blocks], dtype=np.int64)

    def _ids(self, rows: Int64[np.ndarray, " row"]) -> list[bytes]:
        parts = np.searchsorted(self._ends, rows, side="right")
        return [
            self.blocks[part].ids[row - int(self._ends[part])].as_py()
            for part, row in zip(parts.tolist(), rows.tolist(), strict=True)
        ]

    def _similarities(
        self, queries: Float32[np.ndarray, "query dim"], rows: Int64[np.ndarray, "query candidate"]
    ) -> Float32[np.ndarray, "query candidate"]:
        """Return exact inner products; -2 for rows that cannot be read any more."""
        distinct, place = np.unique(rows, return_inverse=True)
        wanted = self._ids(distinct)
        ids, vectors, _ = vectors_in(self.read(distinct, VECTOR_COLUMNS))
        found = {id_: row for row, id_ in enumerate(ids.to_pylist())}
        candidates = np.zeros((len(wanted), queries.shape[1]), np.float32)
        is_there = np.array([id_ in found for id_ in wanted], bool)
        candidates[is_there] = vectors[[found[id_] for id_ in wanted if id_ in found]]
        place = place.reshape(rows.shape)
        scores = np.einsum("qd,qcd->qc", queries, candidates[place])
        return np.where(is_there[place], scores, np.float32(-2.0))


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
                sketches = self.table.seal().n_rows > EXACT_ROWS
                data, blocks = read_blocks(self.table, _by_key(held), sketches=sketches)
                self._held = held = Held(table=self.table, data=data, blocks=tuple(blocks))
            return held

    def descriptors(self) -> tuple[list[str], Float32[np.ndarray, "row dim"]]:
        """Return all ids and descriptors, in the order in which they are stored."""
        _, blocks = read_blocks(self.table, _by_key(self._held))
        blocks.reverse()
        ids: list[str] = []
        vectors = np.empty((sum(map(len, blocks)), self.table.metadata["dim"]), np.float32)
        while blocks:  # a block goes as its rows are copied: they are never there twice
            block = blocks.pop()
            vectors[len(ids) : len(ids) + len(block)] = block.descriptors
            ids.extend(map(decode, block.ids.to_pylist()))
        return ids, vectors


def _by_key(held: Held | None) -> dict[str, Block]:
    return {block.key: block for block in held.blocks} if held else {}


def _nearest_in(block: Block, queries: Float32[np.ndarray, "query dim"], k: int) -> Nearest:
    if isinstance(block.descriptors, SketchIndex):
        return block.descriptors.nearest(queries, k)
    return top_k(queries, block.descriptors, k)


def _best(
    scores: Float32[np.ndarray, "query found"], rows: Int64[np.ndarray, "query found"], k: int
) -> Nearest:
    """Return the k best of each query; of equal ones the earlier row comes first."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
