"""Folders, tar shards and lists as sequences of pictures; it decodes nothing and knows no torch."""

import csv
import os
import pickletools
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from vit4icd.errors import DataError, FormatError, ImageError
from vit4icd.images import IMAGE_SUFFIXES

__all__ = [
    "ClassSource",
    "ImageSource",
    "LabelledPairs",
    "class_balanced_order",
    "open_classes",
    "open_images",
    "read_labelled_pairs",
]

_COPY_NAME = re.compile(r"(\d+)_(\d+)\.[A-Za-z]*g$")  # the official layout: {class}_{j}.jpg
_DICTIONARY_OPCODES = frozenset(
    [
        "PROTO",
        "FRAME",
        "EMPTY_DICT",
        "MARK",
        "SETITEM",
        "SETITEMS",
        "MEMOIZE",
        "BINPUT",
        "LONG_BINPUT",
        "PUT",
        "BINGET",
        "LONG_BINGET",
        "GET",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
        "DICT",
        "STOP",
    ]
)


@runtime_checkable
class ImageSource(Protocol):
    """Pictures in a fixed order: their names, and the bytes of the i-th."""

    @property
    def names(self) -> Sequence[str]:
        """Return one name per picture: its path as given, or shard/member."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return the bytes of the picture; ImageError where they cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClassSource:
    """Pictures with the class of each: all copies of one original share a class.

    Raises:
        DataError: there are no pictures.
    """

    images: ImageSource
    labels: Int64[np.ndarray, " image"]

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise DataError("the data holds no picture")

    @property
    def names(self) -> Sequence[str]:
        """Names of the pictures."""
        return self.images.names

    @property
    def n_classes(self) -> int:
        """Number of classes; labels run from 0 below it."""
        return int(self.labels.max()) + 1

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """Return the bytes of the picture."""
        return self.images.read(index)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledPairs:
    """Files of edited copies and of the references they were made from, row by row.

    Raises:
        DataError: columns of different lengths.
    """

    queries: Sequence[Path]
    references: Sequence[Path]

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.references):
            raise DataError(f"{len(self.queries)} queries for {len(self.references)} references")

    def __len__(self) -> int:
        return len(self.queries)


def open_images(inputs: Sequence[Path]) -> ImageSource:
    """Open files, folders (with all below them) and tar shards as one sequence of pictures.

    The order is that of the inputs, and sorted by path inside a folder. In folders, hidden entries,
    symbolic links to folders and files without a picture's suffix are passed over; a file that is
    named itself is always taken.

    Raises:
        DataError: an input does not exist.
    """
    parts: list[ImageSource] = []
    for path in inputs:
        if path.is_dir():
            parts.extend(_open_folder(path))
        elif path.suffix == ".tar":
            parts.append(_Shard(path))
        elif path.exists() or path.is_symlink():
            parts.append(_Files([path]))
        else:
            raise DataError(f"there is no file or folder {_shown(path)}")
    return parts[0] if len(parts) == 1 else _Chain(parts)


def open_classes(path: Path) -> ClassSource:
    """Open training pictures with their classes, by what the folder holds.

    1. Files named ``{class}_{j}.jpg``: the original's offline layout. Classes are numbered by first
       appearance in the sorted list of paths, as the original numbers them.
    2. Sub-folders, each with pictures: a class per sub-folder, in sorted order.
    3. Anything else (pictures, tar shards): a class per picture.

    Raises:
        DataError: there is nothing there, or no picture in it.
    """
    if path.is_dir():
        copies = sorted(str(file) for file in path.glob("*g") if _COPY_NAME.fullmatch(file.name))
        if copies:
            return _by_key(copies, [Path(name).name.split("_")[0] for name in copies])
        folders = sorted(child for child in path.iterdir() if child.is_dir())
        if folders and not any(path.glob("*.tar")):
            names = [str(file) for folder in folders for file in _walk(folder)]
            return _by_key(names, [Path(name).relative_to(path).parts[0] for name in names])
    images = open_images([path])
    return ClassSource(images=images, labels=np.arange(len(images), dtype=np.int64))


def class_balanced_order(
    labels: Int64[np.ndarray, " image"],
    per_class: int = 4,
    *,
    fill: bool = False,
    order_rng: np.random.Generator,
) -> Int64[np.ndarray, " row"]:
    """Return one pass over the classes in random order, ``per_class`` consecutive rows of each.

    A class with fewer pictures than that gives one at random and others with replacement; a class
    with a single picture gives it once, or ``per_class`` times with ``fill``, as edits made on
    the fly want it. Source: the original's RandomMultipleGallerySampler.
    """
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    order: list[np.ndarray] = []
    for label in order_rng.permutation(np.flatnonzero(sizes)):
        size = int(sizes[label])
        if size == 1:
            picks = np.zeros(per_class if fill else 1, np.int64)
        elif size > per_class:
            picks = order_rng.permutation(size)[:per_class]
        else:
            first = order_rng.integers(size)
            others = np.delete(np.arange(size), first)
            enough = len(others) >= per_class
            rest = order_rng.choice(others, per_class - 1, replace=not enough)
            picks = np.concatenate([[first], rest])
        order.append(by_class[starts[label] + picks])
    return np.concatenate(order).astype(np.int64)


def read_labelled_pairs(path: Path) -> LabelledPairs:
    """Read the labelled pairs of stage 3.

    ``path`` is a CSV file with the columns ``query,reference`` (paths, relative to the file), or a
    folder with the original's four parts: the picture trees ``query`` and ``reference`` (a folder
    per class) and the dictionaries ``pull_gt_q_forimage.pickle`` and ``pull_gt_r_forimage.pickle``
    (class -> file name), which are read without executing them.

    Raises:
        FormatError: a malformed line, or a pickle that holds more than a dictionary of strings.
        DataError: nothing there, or a file that is named but missing.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {_shown(path)}")
    pairs = _pairs_of_folders(path) if path.is_dir() else _pairs_of_csv(path)
    for file in (*pairs.queries, *pairs.references):
        if not file.is_file():
            raise DataError(f"{_shown(path)} names {_shown(file)}, which is missing")
    return pairs


@dataclass(frozen=True, slots=True)
class _Files:
    paths: Sequence[Path]

    @property
    def names(self) -> Sequence[str]:
        return [str(path) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        try:
            return self.paths[index].read_bytes()
        except FileNotFoundError as error:
            raise ImageError("missing", "there is no such file") from error
        except OSError as error:
            raise ImageError("unreadable_file", f"cannot be read: {error.strerror}") from error


class _Shard:
    """A tar file read by offset, so that workers and threads share nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:") as tar:
                members = [m for m in tar if m.isfile() and _is_picture(m.name)]
        except (tarfile.TarError, OSError) as error:
            raise FormatError(f"{_shown(path)} is not an uncompressed tar file: {error}") from error
        self.names: Sequence[str] = [f"{path.name}/{member.name}" for member in members]
        self._extents = [(member.offset_data, member.size) for member in members]

    def __len__(self) -> int:
        return len(self._extents)

    def read(self, index: int) -> bytes:
        offset, size = self._extents[index]
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise ImageError("unreadable_file", f"cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise ImageError("truncated", f"the shard ends inside {self.names[index]}")
        return data


class _Chain:
    """Several sources one after another."""

    def __init__(self, parts: Sequence[ImageSource]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))
        self.names: Sequence[str] = [name for part in parts for name in part.names]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        part = int(np.searchsorted(self._ends, index, side="right"))
        before = self._ends[part - 1] if part else 0
        return self._parts[part].read(index - before)


def _open_folder(folder: Path) -> Iterator[ImageSource]:
    files = list(_walk(folder))
    for shard in sorted(folder.glob("*.tar")):
        yield _Shard(shard)
    if files:
        yield _Files(files)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_picture(name):
                yield Path(parent, name)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _by_key(names: Sequence[str], keys: Sequence[str]) -> ClassSource:
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    labels = np.array([number[key] for key in keys], dtype=np.int64)
    return ClassSource(images=_Files([Path(name) for name in names]), labels=labels)


def _pairs_of_csv(path: Path) -> LabelledPairs:
    queries, references = [], []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.reader(file):
            if not row or row == ["query", "reference"]:
                continue
            if len(row) != 2 or not all(row):
                raise FormatError(f"{_shown(path)}: expected query,reference but found {row}")
            queries.append(path.parent / row[0])
            references.append(path.parent / row[1])
    return LabelledPairs(queries=queries, references=references)


def _pairs_of_folders(folder: Path) -> LabelledPairs:
    queries = _read_dictionary(folder / "pull_gt_q_forimage.pickle")
    references = _read_dictionary(folder / "pull_gt_r_forimage.pickle")
    if queries.keys() != references.keys():
        odd = min(queries.keys() ^ references.keys())
        raise DataError(f"class {odd!r} stands in only one of the two dictionaries")
    return LabelledPairs(
        queries=[folder / "query" / label / name for label, name in queries.items()],
        references=[folder / "reference" / label / references[label] for label in queries],
    )


def _read_dictionary(path: Path) -> dict[str, str]:
    """Read a pickled dict[str, str] from its opcodes; nothing in the file is executed."""
    strings: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name not in _DICTIONARY_OPCODES:
                raise FormatError(
                    f"{_shown(path)} holds more than a dictionary of strings: {opcode.name}"
                )
            if "UNICODE" in opcode.name:
                last = str(argument)
                strings.append(last)
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = last
            elif opcode.name.endswith("PUT"):
                memo[int(str(argument))] = last
            elif opcode.name.endswith("GET"):
                last = memo.get(int(str(argument)))
                strings.append(_known(last, path))
            else:
                last = None
    except (OSError, ValueError) as error:
        raise FormatError(f"{_shown(path)} is not a readable pickle: {error}") from error
    if len(strings) % 2:
        raise FormatError(f"{_shown(path)} has a key without a value")
    return dict(zip(strings[::2], strings[1::2], strict=True))


def _known(text: str | None, path: Path) -> str:
    if text is None:
        raise FormatError(f"{_shown(path)} holds more than a dictionary of strings: a reference")
    return text


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()
