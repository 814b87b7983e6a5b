"""A table read file by file: descriptors for memory, whole rows to check; it searches nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import lance
import numpy as np
import pyarrow as pa
from jaxtyping import Float16, Float32, Int64, UInt8

from vit4icd.collection.descriptors import (
    SKETCH_COLUMNS,
    VECTOR_COLUMNS,
    WHOLE_COLUMNS,
    sketches_in,
    vectors_in,
)
from vit4icd.collection.failures import explained
from vit4icd.collection.rows import Seal, places_in, seal_of
from vit4icd.collection.sketches import SketchIndex
from vit4icd.collection.sums import damaged, paths_of
from vit4icd.collection.table import Table
from vit4icd.errors import FormatError

__all__ = ["Block", "Descriptors", "File", "Kind", "files_of", "read_blocks"]

_CHECKED_ROWS = 256  # whole rows, local features included, held in memory at a time

Kind = Literal["vectors", "wholes", "sketches"]
"""What is read: descriptors of pictures and their parts, of whole pictures alone, or sketches."""
_COLUMNS: Mapping[Kind, list[str]] = {
    "vectors": VECTOR_COLUMNS,
    "wholes": WHOLE_COLUMNS,
    "sketches": SKETCH_COLUMNS,
}


Descriptors = Float32[np.ndarray, "_ dim"] | SketchIndex


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """The descriptors of one file of the table, or their sketches, checked."""

    key: str
    """Changes with what is in it."""
    kind: Kind
    ids: pa.Array
    descriptors: Descriptors
    """Of the whole pictures, in the order of the ids."""
    parts: Descriptors
    pictures: Int64[np.ndarray, " part"]
    """Whose each part is, by place among the ids."""
    numbers: UInt8[np.ndarray, " part"]
    n_each: int
    """Parts of one picture, at most."""
    seal: Seal
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

    @property
    def number(self) -> int:
        """Which part of the table it is."""
        return int(self.fragment.fragment_id)

    @property
    def n_rows(self) -> int:
        """How many rows are said to be in it and not deleted, the seal's included."""
        return int(self.fragment.metadata.num_rows)

    def require_whole(self) -> None:
        """Compare what the file says of itself with its checksum.

        Raises:
            FormatError: it is not what was written.
        """
        for path in damaged(Path(self.uri), paths_of(self.uri, self.fragment)):
            raise FormatError(f"what it has in {path.parent.name} is not as it was written")

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows, all columns, some at a time."""
        with explained(self.uri, "read"):
            for batch in self.fragment.to_batches(batch_size=_CHECKED_ROWS):
                yield pa.Table.from_batches([batch])


def files_of(table: Table, data: lance.LanceDataset | None = None) -> list[File]:
    """Return the files that a version's rows are in, the newest one's by default."""
    data = table.latest() if data is None else data
    with explained(table.uri, "read"):
        return [
            File(table.uri, _key(fragment).split()[0], fragment)
            for fragment in data.get_fragments()
        ]


def read_blocks(
    table: Table, known: Mapping[str, Block] | None = None, *, kind: Kind = "vectors"
) -> tuple[lance.LanceDataset, list[Block]]:
    """Return the newest version and its descriptors; blocks that are known are not read again.

    Raises:
        FormatError: rows are damaged, missing, or back from the dead.
    """
    data = table.latest()
    with explained(table.uri, "read"):
        blocks = [
            _known(known or {}, fragment, kind) or _block(table, fragment, kind)
            for fragment in data.get_fragments()
        ]
    found = reduce(Seal.plus, (block.seal for block in blocks), Seal())
    if found != (expected := table.seal(data)):
        raise FormatError(
            f"the collection {table.uri} holds {found}, not the {expected} that were "
            "added: files are damaged or missing; "
            "restore a snapshot or a copy"
        )
    return data, blocks


def _known(known: Mapping[str, Block], fragment: lance.LanceFragment, kind: Kind) -> Block | None:
    """Return a block that will do; one that holds parts as well will do for wholes."""
    block = known.get(_key(fragment))
    will_do = (kind, "vectors") if kind == "wholes" else (kind,)
    return block if block and block.kind in will_do else None


def _block(table: Table, fragment: lance.LanceFragment, kind: Kind) -> Block:
    rows = fragment.to_table(columns=table.having(_COLUMNS[kind]))
    stored = (sketches_in if kind == "sketches" else vectors_in)(rows)
    n_wholes, hold = len(stored.ids), SketchIndex if kind == "sketches" else _single
    return Block(
        key=_key(fragment),
        kind=kind,
        ids=stored.ids,
        descriptors=hold(stored.values[:n_wholes]),
        parts=hold(stored.values[n_wholes:]),
        pictures=stored.pictures[n_wholes:],
        numbers=stored.numbers[n_wholes:],
        n_each=int(np.bincount(stored.pictures[n_wholes:]).max(initial=0)),
        seal=seal_of(rows),
        places=places_in(rows),
        n_rows=len(rows),
    )


def _single(vectors: Float16[np.ndarray, "_ dim"]) -> Descriptors:
    return vectors.astype(np.float32)


def _key(fragment: lance.LanceFragment) -> str:
    """Return a name that changes with the file's content and with what is deleted from it."""
    files, deletion = fragment.metadata.files, fragment.metadata.deletion_file
    deleted = "" if deletion is None else f"{deletion.read_version}-{deletion.id}"
    return " ".join([*(file.path for file in files), deleted])
