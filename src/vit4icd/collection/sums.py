"""Checksums of what a table's files say of themselves, kept beside them; it opens no table.

Lance believes the lengths that it reads there, and a damaged one may end the process, as it asks
for more memory than there is. So that part of a file is compared before Lance opens it: the end of
a file of rows, the whole of a list of deleted ones. The rows have checksums of their own.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import lance

from vit4icd.collection.failures import HINT
from vit4icd.errors import FormatError

__all__ = ["SUMMED", "damaged", "forget_gone", "keep", "paths_of", "whole_files"]

SUMMED = ("data", "_deletions")
"""The folders whose files have checksums; a file's name is never given twice."""
_FOLDER = "_sums"  # of empty files: their names say all, so that none is ever half written
_FOOTER = struct.Struct("<QQQIIHH4s")  # of a Lance file, version 2; magic last
_PLACE = struct.Struct("<QQ")  # of a global buffer: where, and how long


def keep(table: Path, files: Iterable[Path]) -> list[Path]:
    """Keep the checksums of new files, and return their paths; files that are gone are left out.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = table / _FOLDER
    kept = [] if folder.exists() else [folder]
    folder.mkdir(exist_ok=True)
    for path in files:
        with suppress(FileNotFoundError), path.open("rb") as file:  # another process tidies up
            start = _end_of_rows(file)
            kept.append(folder / f"{path.name}.{start:x}-{_sum_from(file, start)}")
            kept[-1].touch()
    return kept


def damaged(table: Path, files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that are not what they were when they were written.

    What has no checksum, as in a collection of an older version, counts as whole, and so does what
    is gone: that is told when it is opened.
    """
    sums = dict(_kept(table))
    for path in files:
        with suppress(FileNotFoundError), path.open("rb") as file:
            start, _, expected = sums.get(path.name, "").partition("-")
            if expected and _sum_from(file, int(start, 16)) != expected:
                yield path


def whole_files(
    uri: str, parts: Iterable[lance.LanceFragment], known: frozenset[Path]
) -> frozenset[Path]:
    """Return the files of a table's parts; those that are not known are compared first.

    Raises:
        FormatError: some are not what they were when they were written.
    """
    files = frozenset(path for part in parts for path in paths_of(uri, part))
    wrong = [path.name for path in damaged(Path(uri), files - known)]
    if wrong:
        raise FormatError(
            f"the collection {uri} is damaged, and not as it was written in: "
            f"{', '.join(wrong)}{HINT} {uri}"
        )
    return files


def forget_gone(table: Path) -> None:
    """Drop the checksums of files that are there no more."""
    kept = list(_kept(table))  # first: a file that another process is just writing comes before it
    there = {path.name for folder in SUMMED for path in (table / folder).glob("*")}
    for name, sum_ in kept:
        if name not in there:
            (table / _FOLDER / f"{name}.{sum_}").unlink(missing_ok=True)


def paths_of(uri: str, fragment: lance.LanceFragment) -> list[Path]:
    """Return the files that a part of a table on this machine is in."""
    files = [Path(uri, "data", file.path) for file in fragment.metadata.files]
    deleted = fragment.deletion_file()
    return files if deleted is None else [*files, Path(uri, deleted)]


def _kept(table: Path) -> Iterator[tuple[str, str]]:
    for path in (table / _FOLDER).glob("*"):
        name, _, sum_ = path.name.rpartition(".")
        yield name, sum_


def _end_of_rows(file: BinaryIO) -> int:
    """Return where a Lance file begins to say what is in it; 0 of other files.

    Source: the footer of Lance's file format, version 2.
    """
    size = file.seek(0, os.SEEK_END)
    with suppress(struct.error, ValueError, OSError):
        file.seek(size - _FOOTER.size)
        columns, _, buffers, n_buffers, *_, magic = _FOOTER.unpack(file.read())
        if magic == b"LANC":
            file.seek(buffers)
            places = _PLACE.iter_unpack(file.read(n_buffers * _PLACE.size))
            return int(min([columns, *(start for start, _ in places)]))
    return 0


def _sum_from(file: BinaryIO, start: int) -> str:
    """Return the size of a file and the CRC-32 of it from a byte on, as hexadecimal text."""
    size = file.seek(0, os.SEEK_END)
    file.seek(start)
    return f"{size:x}-{zlib.crc32(file.read()):08x}"
