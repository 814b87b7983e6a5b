"""Folders, tar shards and lists as sequences of pictures; it decodes nothing and knows no torch."""

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from vit4icd.errors import DataError, FormatError, ImageError
from vit4icd.images import IMAGE_SUFFIXES, MAX_BYTES, read_bytes

__all__ = [
    "ClassSource",
    "ImageSource",
    "class_balanced_order",
    "members_of",
    "open_classes",
    "open_images",
    "walk_pictures",
]

_COPY_NAME = re.compile(r"(\d+)_(\d+)\.[A-Za-z]*g")  # the official layout: {class}_{j}.jpg


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


def open_images(inputs: Sequence[Path]) -> ImageSource:
    """Open files, folders (with all below them) and tar shards as one sequence of pictures.

    The order is that of the inputs. In a folder the shards come first, then the pictures; each by
    folder, in sorted order, a folder's own files before its sub-folders. In folders and shards,
    hidden entries and files without a picture's suffix are passed over, and so are symbolic links
    to folders, which may lead in circles; a file that is named itself is always taken.

    Raises:
        DataError: an input does not exist, or a folder cannot be listed.
        FormatError: a shard that is not an uncompressed tar file, or is cut.
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
            raise DataError(f"there is no file or folder {path}")
    return parts[0] if len(parts) == 1 else _Chain(parts)


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"the folder {error.filename!r} cannot be listed: {error.strerror}")


def walk_pictures(
    folder: Path, onerror: Callable[[OSError], None] = _refuse_folder
) -> Iterator[Path]:
    """Yield the pictures and shards in a folder; ``onerror`` is told of one that is not listed."""
    for parent, folders, files in os.walk(folder, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(parent, name)
            for name in sorted(files)
            if _is_picture(name) or (name.endswith(".tar") and not name.startswith("."))
        )


def open_classes(path: Path) -> ClassSource:
    """Open training pictures with their classes, by what the folder holds.

    1. Files named ``{class}_{j}.jpg``: the original's offline layout. Classes are numbered by first
       appearance in the sorted list of paths, as the original numbers them.
    2. Sub-folders, each with pictures: a class per sub-folder, in sorted order.
    3. Anything else (pictures, tar shards): a class per picture.

    Raises:
        DataError: there is nothing there, no picture in it, or pictures beside sub-folders of
            pictures, so that their classes cannot be told.
    """
    if path.is_dir():
        copies = sorted(str(file) for file in path.glob("*g") if _COPY_NAME.fullmatch(file.name))
        if copies:
            return _by_key(copies, [Path(name).name.split("_")[0] for name in copies])
        inside = [(key, file) for key, child in _sub_folders(path) for file in walk_pictures(child)]
        shards = [file for _, file in inside if file.suffix == ".tar"] or any(path.glob("*.tar"))
        if inside and not shards:
            _refuse_loose_pictures(path)
            return _by_key([str(file) for _, file in inside], [key for key, _ in inside])
    images = open_images([path])
    return ClassSource(images=images, labels=np.arange(len(images), dtype=np.int64))


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file, to a header that is damaged or cut off.

    Python's reader would take such a header for the end.

    Raises:
        tarfile.ReadError: no block of zeros ends the file.
    """
    yield from archive
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it is damaged, or cut off, at byte {archive.offset}")


def class_balanced_order(
    labels: Int64[np.ndarray, " image"],
    per_class: int = 4,
    *,
    fill: bool = False,
    classes: Int64[np.ndarray, " class"] | None = None,
    order_rng: np.random.Generator,
) -> Int64[np.ndarray, " row"]:
    """Return a pass over the classes in random or given order, ``per_class`` rows of each.

    A class with fewer pictures than that gives one at random and others with replacement; a class
    with a single picture gives it once, or ``per_class`` times with ``fill``, as edits made on
    the fly want it. Source: the original's RandomMultipleGallerySampler.
    """
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    order = [np.empty(0, np.int64)]
    if classes is None:
        classes = order_rng.permutation(np.flatnonzero(sizes))
    for label in classes:
        size = int(sizes[label])
        if size == 1:
            picks = np.zeros(per_class if fill else 1, np.int64)
        elif size > per_class:
            picks = order_rng.permutation(size)[:per_class]
        else:
            first = order_rng.integers(size)
            others = np.delete(np.arange(size), first)
            picks = np.concatenate([[first], order_rng.choice(others, per_class - 1)])
        order.append(by_class[starts[label] + picks])
    return np.concatenate(order)


class _Files:
    """Files read as they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.names: Sequence[str] = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        return read_bytes(self._paths[index])


class _Shard:
    """A tar file read by offset, so that workers and threads share nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tarfile.open(path, "r:") as tar:
                members = [
                    member
                    for member in members_of(tar)
                    if member.isfile() and not member.issparse() and _is_picture(member.name)
                ]
        except (tarfile.TarError, OSError) as error:
            raise FormatError(f"{path} is no whole uncompressed tar file: {error}") from error
        self.names: Sequence[str] = [f"{path}/{member.name}" for member in members]
        self._extents = [(member.offset_data, member.size) for member in members]

    def __len__(self) -> int:
        return len(self._extents)

    def read(self, index: int) -> bytes:
        offset, size = self._extents[index]
        if size > MAX_BYTES:
            raise ImageError("too_many_bytes", f"{size} bytes exceed the limit of {MAX_BYTES}")
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
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self.names: Sequence[str] = [name for part in parts for name in part.names]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        part = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[part - 1]) if part else 0
        return self._parts[part].read(index - before)


def _open_folder(folder: Path) -> Iterator[ImageSource]:
    files = list(walk_pictures(folder))
    yield from (_Shard(file) for file in files if file.suffix == ".tar")
    pictures = [file for file in files if file.suffix != ".tar"]
    if pictures:
        yield _Files(pictures)


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _sub_folders(path: Path) -> list[tuple[str, Path]]:
    children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    return [(child.name, child) for child in children if child.is_dir()]


def _refuse_loose_pictures(path: Path) -> None:
    loose = min((file.name for file in path.iterdir() if _is_picture(file.name)), default=None)
    if loose is not None:
        raise DataError(
            f"{path} holds sub-folders (a class each) and also the picture {loose!r}, "
            "whose class cannot be told: move it into one of them"
        )


def _by_key(names: Sequence[str], keys: Sequence[str]) -> ClassSource:
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    labels = np.array([number[key] for key in keys], dtype=np.int64)
    return ClassSource(images=_Files([Path(name) for name in names]), labels=labels)
