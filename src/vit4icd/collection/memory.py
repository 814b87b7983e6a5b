"""A collection's descriptors in memory, and the nearest of them to a query; it judges nothing."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import lance
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt8

from vit4icd.collection.blocks import Block, Descriptors, Kind, read_blocks
from vit4icd.collection.descriptors import PART_MARGIN, VECTOR_COLUMNS, Stored, vectors_in
from vit4icd.collection.records import decode
from vit4icd.collection.sketches import SketchIndex
from vit4icd.collection.table import Table
from vit4icd.search import top_k

__all__ = ["EXACT_ROWS", "Held", "Memory", "Nearest"]

EXACT_ROWS = 262_144
"""Descriptors, of pictures and parts, up to which all are held and compared; beyond, sketches."""

_CANDIDATES = 128  # of each query that sketches find and that are compared exactly, at least
_SPARE = 8  # times as many candidates as are wanted
_COMPARED = 65_536  # descriptors that are read at a time to be compared, of some queries


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Nearest:
    """The pictures nearest to each query, the nearest first."""

    similarities: Float32[np.ndarray, "query k"]
    """Of the query and the nearest of the picture's descriptors; a part's has to be larger."""
    rows: Int64[np.ndarray, "query k"]
    numbers: UInt8[np.ndarray, "query k"]
    """Of the part that was nearest; 0 is the whole picture."""

    @classmethod
    def none(cls, n_queries: int) -> "Nearest":
        """Return that nothing is near."""
        similarities = np.empty((n_queries, 0), np.float32)
        rows, numbers = similarities.astype(np.int64), similarities.astype(np.uint8)
        return cls(similarities=similarities, rows=rows, numbers=numbers)

    @classmethod
    def joined(cls, parts: Sequence["Nearest"]) -> "Nearest":
        """Return what is near the queries of several, one after another."""
        return cls(
            similarities=np.concatenate([part.similarities for part in parts]),
            rows=np.concatenate([part.rows for part in parts]),
            numbers=np.concatenate([part.numbers for part in parts]),
        )

    def of(self, query: int) -> Iterator[tuple[int, float, int]]:
        """Yield row, similarity and number of what is near one query, the nearest first."""
        columns = (self.rows, self.similarities, self.numbers)
        yield from zip(*(column[query].tolist() for column in columns), strict=True)

    def with_others(self, other: "Nearest", k: int) -> "Nearest":
        """Return the k best of both; of equal ones the earlier row comes first."""
        similarities = np.hstack([self.similarities, other.similarities])
        rows = np.hstack([self.rows, other.rows])
        numbers = np.hstack([self.numbers, other.numbers])
        order = np.lexsort((rows, _margins(numbers) - similarities), axis=1)[:, :k]
        return Nearest(similarities=similarities, rows=rows, numbers=numbers).at(order)

    def at(self, places: Int64[np.ndarray, "query k"]) -> "Nearest":
        """Return what stands at these places of each query."""
        return Nearest(
            similarities=np.take_along_axis(self.similarities, places, axis=1),
            rows=np.take_along_axis(self.rows, places, axis=1),
            numbers=np.take_along_axis(self.numbers, places, axis=1),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """One version of a collection: descriptors or their sketches in memory, the rest by row."""

    table: Table
    data: lance.LanceDataset
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def n_descriptors(self) -> int:
        """How many descriptors there are, of pictures and their parts."""
        return len(self) + sum(len(block.pictures) for block in self.blocks)

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
        starts = np.cumsum([0, *(block.n_rows for block in self.blocks)])
        places = [
            int(starts[number] + self.blocks[number].places[place])
            for number, place in self._places(rows)
        ]
        return self.table.take(self.data, places, self._ids(rows), columns)

    def nearest(self, queries: Float32[np.ndarray, "query dim"], k: int) -> Nearest:
        """Return the k nearest pictures of each query; fewer where there are fewer.

        Exact where descriptors are held. Where sketches are, they find candidates, all descriptors
        of which are then compared exactly.
        """
        is_exact = not any(isinstance(block.descriptors, SketchIndex) for block in self.blocks)
        n_wanted = k if is_exact else max(_CANDIDATES, _SPARE * k)
        found = Nearest.none(len(queries))
        for block, end in zip(self.blocks, self._ends.tolist(), strict=True):
            if len(block):
                here = _nearest_in(block, queries, min(n_wanted, len(block)), end - len(block))
                found = found.with_others(here, n_wanted)
        if is_exact or not found.rows.size:
            return found
        n_each = 1 + max(block.n_each for block in self.blocks)
        step = max(1, _COMPARED // (n_wanted * n_each))
        exact = Nearest.joined(
            [
                self._compared(queries[start : start + step], found.rows[start : start + step])
                for start in range(0, len(queries), step)
            ]
        )
        return Nearest.none(len(queries)).with_others(exact, k)

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " block"]:
        return np.cumsum([len(block) for block in self.blocks], dtype=np.int64)

    def _ids(self, rows: Int64[np.ndarray, " row"]) -> list[bytes]:
        return [self.blocks[number].ids[place].as_py() for number, place in self._places(rows)]

    def _places(self, rows: Int64[np.ndarray, " row"]) -> Iterator[tuple[int, int]]:
        """Yield the number of each row's block, and its place there, counted from the end."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        yield from zip(numbers.tolist(), (rows - self._ends[numbers]).tolist(), strict=True)

    def _compared(
        self, queries: Float32[np.ndarray, "query dim"], rows: Int64[np.ndarray, "query candidate"]
    ) -> Nearest:
        """Return the exact similarities of candidates; -2 for what cannot be read any more."""
        distinct, inverse = np.unique(rows, return_inverse=True)
        stored = vectors_in(self.read(distinct, VECTOR_COLUMNS))
        column_of = {id_: column for column, id_ in enumerate(stored.ids.to_pylist())}
        columns = [column_of.get(id_, len(column_of)) for id_ in self._ids(distinct)]
        at = np.array(columns, np.int64)[inverse].reshape(rows.shape)
        similarities, numbers = _best_of_each(queries, stored)
        gone = (0, 0), (0, 1)  # a last column, for what is not there any more
        similarities = np.pad(similarities, gone, constant_values=-2)
        return Nearest(
            similarities=np.take_along_axis(similarities, at, axis=1),
            rows=rows,
            numbers=np.take_along_axis(np.pad(numbers, gone), at, axis=1),
        )


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
                is_large = self.table.seal().n_descriptors > EXACT_ROWS
                kind: Kind = "sketches" if is_large else "vectors"
                data, blocks = read_blocks(self.table, _by_key(held), kind=kind)
                self._held = held = Held(table=self.table, data=data, blocks=tuple(blocks))
            return held

    def descriptors(self) -> tuple[list[str], Float32[np.ndarray, "row dim"]]:
        """Return ids and descriptors of whole pictures, in the order in which they are stored."""
        _, blocks = read_blocks(self.table, _by_key(self._held), kind="wholes")
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


def _nearest_in(
    block: Block, queries: Float32[np.ndarray, "query dim"], k: int, first: int
) -> Nearest:
    """Return the k nearest pictures of a block, whose rows begin with ``first``."""
    similarities, at = _top(block.descriptors, queries, k)
    wholes = Nearest(
        similarities=similarities, rows=at + first, numbers=np.zeros_like(at, np.uint8)
    )
    if not block.n_each:
        return wholes
    n_wanted = min(k * block.n_each, len(block.pictures))  # they are of the k nearest, at least
    similarities, at = _top(block.parts, queries, n_wanted)
    rows, numbers = block.pictures[at] + first, block.numbers[at]
    parts = Nearest(similarities=similarities, rows=rows, numbers=numbers)
    both = wholes.with_others(parts, k + n_wanted)
    return both.at(_first_of_each(both.rows, k))


def _top(
    descriptors: Descriptors, queries: Float32[np.ndarray, "query dim"], k: int
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
    if isinstance(descriptors, SketchIndex):
        return descriptors.nearest(queries, k)
    return top_k(queries, descriptors, k)


def _first_of_each(rows: Int64[np.ndarray, "query found"], k: int) -> Int64[np.ndarray, "query k"]:
    """Return the places at which the first k pictures of each query stand for the first time."""
    firsts = [np.sort(np.unique(of_query, return_index=True)[1])[:k] for of_query in rows]
    return np.array(firsts, np.int64).reshape(len(rows), k)


def _best_of_each(
    queries: Float32[np.ndarray, "query dim"], stored: Stored
) -> tuple[Float32[np.ndarray, "query picture"], UInt8[np.ndarray, "query picture"]]:
    """Return the similarity of each picture's nearest descriptor, and its number; wholes first."""
    order = np.argsort(stored.pictures, kind="stable")  # each picture's descriptors side by side
    pictures, numbers = stored.pictures[order], stored.numbers[order]
    starts = np.searchsorted(pictures, np.arange(len(stored.ids)))
    closeness = queries @ stored.values[order].astype(np.float32).T - _margins(numbers)
    best = np.maximum.reduceat(closeness, starts, axis=1)
    nearest = np.where(closeness == best[:, pictures], numbers, np.uint8(255))
    number = np.minimum.reduceat(nearest, starts, axis=1)
    return best + _margins(number), number


def _margins(numbers: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return by how much similarities of parts have to be larger."""
    return np.where(numbers > 0, np.float32(PART_MARGIN), np.float32(0))
