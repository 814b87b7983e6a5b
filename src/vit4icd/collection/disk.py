"""What a commit writes reaches the disk, with its checksums; what is in it is no matter here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vit4icd.collection.failures import explained
from vit4icd.collection.sums import SUMMED, keep
from vit4icd.storage import flush

__all__ = ["flushing"]


@contextmanager
def flushing(uri: str) -> Iterator[None]:
    """Flush to the disk what is written meanwhile, for Lance does not; explain what goes wrong.

    An object store looks after this, and after its checksums, itself.
    """
    with explained(uri, "written"):
        if "://" in uri:
            yield
            return
        table = Path(uri).absolute()
        before = _names(table)
        yield
        written = [Path(name) for name in _names(table) - before]
        summed = [path for path in written if _is_summed(path, table)]
        new = {*written, *keep(table, summed)}
        for path in (*new, *{path.parent for path in new}):
            with suppress(FileNotFoundError):  # another process tidies up
                flush(path)


def _is_summed(path: Path, table: Path) -> bool:
    folders = [table / name for name in SUMMED]
    return path.parent in folders and path.name[0] != "."  # another is being written


def _names(table: Path) -> set[str]:
    """Return the folders that lead to a table, and all that is in it.

    Each file is written once and never changed, so that what is new is told by its name.
    """
    names = {str(way) for way in (table, *table.parents) if way.exists()}
    for folder, folders, files in os.walk(table):
        names.update(f"{folder}/{name}" for name in (*folders, *files))
    return names
