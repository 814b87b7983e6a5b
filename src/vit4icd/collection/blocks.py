"""A table read file by file: descriptors for memory, whole rows to check; it searches nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from vit4icd.collection.rows import (
    SKETCH_COLUMNS,
    VECTOR_COLUMNS,
    Seal,
    places_in,
    sketches_in,
    vectors_in,
)
from vit4icd.collection.sketches import SketchIndex
from vit4icd.collection.table import Table, explained
from vit4icd.errors import FormatError

__all__ = ["Block", "File", "files_of", "read_blocks"]

_CHECKED_ROWS = 256  # whole rows, local features included, held in memory at a time


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """The descriptors of one file of the table, or their sketches, checked."""

    key: str
    """Changes with what is in it."""
    ids: pa.Array
    descriptors: Float32[np.ndarray, "row dim"] | SketchIndex
    total: int
    """Sum of the descriptors' checksums."""
    places: Int64[np.ndarray, " row"]
    """Where the pictures are among the file's rows; one of them may be the seal's."""
    n_rows: int
    """Rows of the file, the seal's included."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """One file of a table, with what is deleted from it."""

    uri: str
    name: str
    fragment: lance.LanceFragment

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows, all columns, some at a time."""
        with explained(self.uri, "read"):
            for batch in self.fragment.to_batches(batch_size=_CHECKED_ROWS):
                yield pa.Table.from_batches([batch])


def files_of(table: Table) -> list[File]:
    """Return the files that the newest version's rows are in."""
    data = table.latest()
    with explained(table.uri, "read"):
        return [
            File(table.uri, _key(fragment, False).split()[0], fragment)
            for fragment in data.get_fragments()
        ]


def read_blocks(
    table: Table, known: Mapping[str, Block] | None = None, *, sketches: bool = False
) -> tuple[lance.LanceDataset, list[Block]]:
    """Return the newest version and its descriptors; blocks that are known are not read again.

    Raises:
        FormatError: rows are damaged, missing, or back from the dead.
    """
    data = table.latest()
    with explained(table.uri, "read"):
        blocks = [
            (known or {}).get(_key(fragment, sketches)) or _block(fragment, sketches)
            for fragment in data.get_fragments()
        ]
    found = Seal(n_rows=sum(map(len, blocks)), total=sum(block.total for block in blocks) % 2**64)
    if found != (expected := table.seal(data)):
        raise FormatError(
            f"the collection {table.uri} holds {found.n_rows} pictures, not the "
            f"{expected.n_rows} that were added: files are damaged or missing; "
            "restore a snapshot or a copy"
        )
    return data, blocks


def _block(fragment: lance.LanceFragment, sketches: bool) -> Block:
    table = fragment.to_table(columns=SKETCH_COLUMNS if sketches else VECTOR_COLUMNS)
    descriptors: Float32[np.ndarray, "row dim"] | SketchIndex
    if sketches:
        ids, codes, total = sketches_in(table)
        descriptors = SketchIndex(codes)
    else:
        ids, vectors, total = vectors_in(table)
        descriptors = vectors.astype(np.float32)
    return Block(
        key=_key(fragment, sketches),
        ids=ids,
        descriptors=descriptors,
        total=total,
        places=places_in(table),
        n_rows=len(table),
    )


def _key(fragment: lance.LanceFragment, sketches: bool) -> str:
    """Return a name that changes with the file's content and with what is deleted from it."""
    files, deletion = fragment.metadata.files, fragment.metadata.deletion_file
    deleted = "" if deletion is None else f"{deletion.read_version}-{deletion.id}"
    return " ".join([*(file.path for file in files), deleted, "sketches" * sketches])
