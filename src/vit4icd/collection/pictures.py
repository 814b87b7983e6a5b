"""Pictures as they are given: files, folders, shards, bytes, arrays; it decodes none."""

import hashlib
import json
import os
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from vit4icd.datasets import open_images
from vit4icd.errors import ConfigError, DataError, MismatchError
from vit4icd.images import MAX_PIXELS, Source, read_image

__all__ = ["IdFrom", "Images", "Pictures", "sha256_of"]

IdFrom = Literal["path", "name", "sha256"]
"""Where a picture's id comes from: its path as given (but ``a/../b`` is ``b``), its file's name, or
its content."""
Images = Source | Iterable[Source]
"""A picture, or several: paths (of folders and tar shards too), bytes, Pillow's or arrays."""

_SETTLED_NS = 2 * 10**9  # a file changed later than this before it was read may change unseen


class Pictures:
    """A sequence of pictures: their names, and what there is to decode of each.

    ``names`` are paths as given, or shard/member, or empty for a picture from memory. ``once``
    passes over a picture of a name that was met before, as where a folder and a file in it are
    given.

    Raises:
        DataError: a path that does not exist.
    """

    def __init__(self, images: Images, *, once: bool = False) -> None:
        given = [images] if isinstance(images, Source) else list(images)
        self._parts: list[_InMemory | _OnDisk] = []
        for on_disk, run in groupby(given, lambda item: isinstance(item, str | Path)):
            self._parts.append((_OnDisk if on_disk else _InMemory)(run))
        self._ends = list(accumulate(len(part.names) for part in self._parts))
        names = [name for part in self._parts for name in part.names]
        self._rows: Sequence[int] = _distinct(names) if once else range(len(names))
        self.names = [names[row] for row in self._rows]

    @classmethod
    def of(cls, images: "Images | Pictures", *, once: bool = False) -> "Pictures":
        """Return pictures as they are, and what is none yet as such; folders are walked once."""
        return images if isinstance(images, Pictures) else cls(images, once=once)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> Source:
        """Return what there is to decode; ImageError where it cannot be read."""
        row = self._rows[row]
        part = bisect_right(self._ends, row)
        return self._parts[part].read(row - (self._ends[part - 1] if part else 0))

    def stamp(self, row: int) -> str:
        """Return what tells an unchanged file without reading it; empty where nothing does.

        Size, times and place of the file. A file changed in the last two seconds has none, for it
        could change again within one tick of its clock.
        """
        if not self.names[row]:
            return ""
        try:  # what lies in a shard is no file
            status = Path(self.names[row]).stat()
        except (OSError, ValueError):
            return ""
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
            return ""
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"

    def ids(self, ids: Sequence[str] | None, id_from: IdFrom) -> list[str] | None:
        """Return an id for each picture; None where only their content will tell.

        Raises:
            MismatchError: another number of ids than pictures, or two pictures with one id.
            ConfigError: a picture from memory without an id.
            DataError: an empty id.
        """
        if ids is None and id_from == "sha256":
            return None
        found = list(ids) if ids is not None else [self._id(name, id_from) for name in self.names]
        if len(found) != len(self):
            raise MismatchError(f"{len(found)} ids for {len(self)} pictures")
        if "" in found:
            raise DataError(f"the id of picture {found.index('')} is empty")
        if len(set(found)) != len(found):
            name = Counter(found).most_common(1)[0][0]
            advice = "give each once" if id_from == "path" else "take their paths: --id-from path"
            raise MismatchError(f"two pictures would have the id {name!r}; {advice}")
        return found

    @staticmethod
    def _id(name: str, id_from: IdFrom) -> str:
        if not name:
            raise ConfigError("a picture from memory has no path: give ids, or id_from='sha256'")
        return PurePath(name).name if id_from == "name" else os.path.normpath(name)

    def metadata(
        self, metadata: Mapping[str, str] | Sequence[Mapping[str, str]] | None
    ) -> Sequence[Mapping[str, str] | None]:
        """Return the metadata of each picture: one for all, one for each, or None to keep.

        Raises:
            MismatchError: another number of them than pictures.
            DataError: some that are no text, so that no JSON could hold them.
        """
        if metadata is None or isinstance(metadata, Mapping):
            _require_text(metadata or {})
            return [metadata] * len(self)
        if len(metadata) != len(self):
            raise MismatchError(f"metadata of {len(metadata)} for {len(self)} pictures")
        for fields in metadata:
            _require_text(fields)
        return metadata


def sha256_of(source: Source, *, max_pixels: int = MAX_PIXELS) -> str:
    """Return the SHA-256 of a file's bytes; of the pixels of a picture that has no bytes.

    Raises:
        ImageError: a picture without bytes that cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    pixels = np.ascontiguousarray(read_image(source, max_pixels=max_pixels))
    return hashlib.sha256(b"%d x %d " % pixels.shape[:2] + pixels.tobytes()).hexdigest()


def _require_text(metadata: Mapping[str, str]) -> None:
    try:
        json.dumps(dict(metadata), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"metadata must be text in UTF-8: {dict(metadata)!r}") from error


def _distinct(names: Sequence[str]) -> list[int]:
    """Return where each name stands first; what has none is kept."""
    first: dict[str, int] = {}
    return [row for row, name in enumerate(names) if not name or first.setdefault(name, row) == row]


class _OnDisk:
    def __init__(self, paths: Iterable[Source]) -> None:
        self._source = open_images([Path(path) for path in paths if isinstance(path, str | Path)])
        self.names: Sequence[str] = self._source.names

    def read(self, row: int) -> bytes:
        return self._source.read(row)


class _InMemory:
    def __init__(self, images: Iterable[Source]) -> None:
        self._images = list(images)
        self.names: Sequence[str] = [""] * len(self._images)

    def read(self, row: int) -> Source:
        return self._images[row]
