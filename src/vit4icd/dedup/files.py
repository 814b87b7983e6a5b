"""The picture files of folders, with the hash of their bytes; it decodes and compares none.

A file is an inode: hard links are names of one file, and so is a folder that is named twice.
Symbolic links inside folders are passed over, so nothing is reached twice, or outside, through one.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vit4icd.datasets import walk_pictures
from vit4icd.dedup.pool import in_order
from vit4icd.errors import DataError
from vit4icd.storage import file_sha256, name_fields
from vit4icd.stream import Skipped

__all__ = [
    "Inventory",
    "PictureFile",
    "Progress",
    "Stamp",
    "no_picture",
    "stamp_of",
    "take_inventory",
]

_SETTLED_NS = 2_000_000_000  # after a change, while file systems may stamp another one alike

Progress = Callable[[int, int, int], None]
"""Told how many are done, of how many, and how many were skipped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """What the file system says of a file; it changes when the file does."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @property
    def is_settled(self) -> bool:
        """Whether a later change is sure to change the stamp as well."""
        return time.time_ns() - max(self.modified_ns, self.changed_ns) > _SETTLED_NS


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFile:
    """A file, under the name by which it was met first."""

    path: str
    other_names: tuple[str, ...] = ()
    """Hard links to it."""
    stamp: Stamp
    sha256: str
    is_reference: bool = False
    """Whether it is only compared with, and never to be moved."""
    is_link_target: bool = False
    """Whether a symbolic link that was met leads to it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that were met."""
        return (self.path, *self.other_names)

    def to_json(self) -> dict[str, object]:
        """Return what a reader wants to know of the file."""
        fields: dict[str, object] = {**name_fields("path", self.path)}
        if self.other_names:
            fields["hard_links"] = [name_fields("path", name) for name in self.other_names]
        return fields | {
            "sha256": self.sha256,
            "bytes": self.stamp.size,
            "is_reference": self.is_reference,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """The files that were found, in the order of the inputs, and what was passed over."""

    files: tuple[PictureFile, ...]
    skipped: tuple[Skipped, ...] = ()
    n_symlinks: int = 0

    def require_pictures(self, folders: Sequence[Path]) -> None:
        """Refuse folders, however they are spelt, with none in them, as where a disk is not there.

        Raises:
            DataError: there is no picture that can be read.
        """
        real_folder = lru_cache(maxsize=1024)(os.path.realpath)
        wanted = [real_folder(folder) for folder in folders]
        for name in (name for file in self.files for name in file.names):
            place = Path(*_place(name, real_folder))
            if any(place.is_relative_to(one) for one in wanted):
                return
        raise no_picture(folders, self.skipped)

    def by_content(self) -> dict[str, list[PictureFile]]:
        """Return the files of each content, by its hash, in the order of the files."""
        contents: dict[str, list[PictureFile]] = {}
        for file in self.files:
            contents.setdefault(file.sha256, []).append(file)
        return contents


def take_inventory(
    inputs: Sequence[Path],
    *,
    references: Sequence[Path] = (),
    known: Mapping[str, tuple[Stamp, str]] | None = None,
    n_workers: int | None = None,
    learnt: Callable[[PictureFile], None] | None = None,
    progress: Progress | None = None,
) -> Inventory:
    """Find the pictures in folders (to the bottom) and hash them; files can be named, too.

    ``known`` are stamps and hashes from an earlier run, by path: a file whose stamp is the same is
    not read again. A file that cannot be read, or changes while it is, costs only itself.
    ``learnt`` is told of each file once it is hashed, ``progress`` the counts.

    Raises:
        DataError: an input does not exist.
    """
    walk = _Walk()
    for path in inputs:
        walk.take(path, is_reference=False)
    for path in references:
        walk.take(path, is_reference=True)
    found, files = walk.finished(), []
    hashed = in_order(lambda file: _hashed(file, known or {}), found, n_workers=n_workers)
    for number, file in enumerate(hashed, 1):
        if isinstance(file, Skipped):
            walk.skipped.append(file)
        else:
            files.append(file)
            if learnt is not None:
                learnt(file)
        if progress is not None:
            progress(number, len(found), len(walk.skipped))
    return Inventory(files=tuple(files), skipped=tuple(walk.skipped), n_symlinks=walk.n_symlinks)


def no_picture(folders: Sequence[Path], skipped: Sequence[Skipped]) -> DataError:
    """Return what to raise where there is no picture, or none that can be read."""
    places = ", ".join(name_fields("path", str(folder))["path"] for folder in folders)
    if not skipped:
        return DataError(f"there is no picture in {places}")
    name = name_fields("path", skipped[0].name)["path"]
    return DataError(
        f"there is no picture that can be read in {places}; {name}: {skipped[0].message}"
    )


def stamp_of(path: str | Path) -> Stamp | None:
    """Return the stamp of a regular file; None for a link or anything else; OSError if missing."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        return None
    return Stamp(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )


def _place(name: str, real_folder: Callable[[str], str]) -> tuple[str, str]:
    """Return the folder that a name really lies in, and what it is called there."""
    folder, base = os.path.split(name)
    return real_folder(folder or "."), base


@dataclass(slots=True)
class _Found:
    """A file on the walk, before it is hashed."""

    names: list[str]
    stamp: Stamp
    is_reference: bool
    is_link_target: bool = False


class _Walk:
    """What was met so far, by inode; where a file system has none, by name."""

    def __init__(self) -> None:
        self.found: dict[object, _Found] = {}
        self.skipped: list[Skipped] = []
        self.n_symlinks = 0
        self._places: dict[tuple[str, str], object] = {}
        self._passed: set[tuple[str, str]] = set()
        self._targets: set[tuple[str, str]] = set()
        self._real_folder = lru_cache(maxsize=1024)(os.path.realpath)

    def take(self, path: Path, *, is_reference: bool) -> None:
        """Meet a file, or all pictures of a folder."""
        if not os.path.lexists(path):
            shown = name_fields("path", str(path))["path"]
            raise DataError(f"there is no file or folder {shown}; look at its spelling")
        for file in self._pictures(path):
            self._meet(file, is_reference)

    def finished(self) -> list[_Found]:
        """Return the files, now that all links to them are known."""
        for place in self._targets & self._places.keys():
            self.found[self._places[place]].is_link_target = True
        return list(self.found.values())

    def _pictures(self, path: Path) -> Iterator[Path]:
        if not path.is_dir():
            return iter([path])
        return (file for file in walk_pictures(path, self._refuse) if file.suffix != ".tar")

    def _refuse(self, error: OSError) -> None:
        name = os.fsdecode(error.filename)
        place = os.path.realpath(name), ""
        if place not in self._passed:
            self._passed.add(place)
            self.skipped.append(Skipped(name, "unreadable_folder", str(error.strerror)))

    def _meet(self, path: Path, is_reference: bool) -> None:
        name = str(path)
        place = _place(name, self._real_folder)
        if place in self._places:
            self._mark(self._places[place], is_reference)
            return
        if place in self._passed:
            return
        try:
            stamp = stamp_of(name)
        except OSError as error:
            self._passed.add(place)
            self.skipped.append(Skipped(name, "missing", f"it is gone: {error.strerror}"))
            return
        if stamp is None:
            self._passed.add(place)
            self._pass_over(name)
            return
        key: object = (stamp.device, stamp.inode) if stamp.inode else place
        self._places[place] = key
        if key in self.found:
            self.found[key].names.append(name)
            self._mark(key, is_reference)
        else:
            self.found[key] = _Found([name], stamp, is_reference)

    def _pass_over(self, name: str) -> None:
        if os.path.islink(name):  # noqa: PTH114
            self.n_symlinks += 1
            self._targets.add(os.path.split(os.path.realpath(name)))
        else:
            self.skipped.append(Skipped(name, "unreadable_file", "a pipe or device, not a file"))

    def _mark(self, key: object, is_reference: bool) -> None:
        self.found[key].is_reference |= is_reference


def _hashed(found: _Found, known: Mapping[str, tuple[Stamp, str]]) -> PictureFile | Skipped:
    """Return the file with its hash, from memory if it did not change, or why it has none."""
    path = found.names[0]
    if not found.stamp.size:
        return Skipped(path, "empty", "the file has no bytes")
    stamp, sha256 = known.get(path, (None, ""))
    if stamp != found.stamp:
        try:
            sha256 = file_sha256(Path(path))
            if stamp_of(path) != found.stamp:
                return Skipped(path, "changed", "it changed while it was read; run again")
        except OSError as error:
            return Skipped(path, "unreadable_file", f"it cannot be read: {error.strerror}")
    return PictureFile(
        path=path,
        other_names=tuple(found.names[1:]),
        stamp=found.stamp,
        sha256=sha256,
        is_reference=found.is_reference,
        is_link_target=found.is_link_target,
    )
