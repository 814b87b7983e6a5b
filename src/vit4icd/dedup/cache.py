"""What was learnt of pictures, kept by the hash of their bytes; it neither finds nor judges pairs.

A changed file is another content, a moved one the same, so nothing stale is ever used. The folder
holds ``files.jsonl`` (path, stamp and hash of each file), ``descriptors-<model>.h5`` (ids are
hashes) and ``looks.jsonl`` (what headers say, and what is too plain). It may be deleted.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vit4icd.dedup.files import Inventory, PictureFile, Progress, Stamp, take_inventory
from vit4icd.dedup.pool import in_order
from vit4icd.describer import Describer
from vit4icd.errors import FormatError, ImageError
from vit4icd.extract import ProgressReport, describe
from vit4icd.headers import Header, read_header
from vit4icd.images import MAX_PIXELS, read_bytes, read_image
from vit4icd.matches import too_plain
from vit4icd.storage import (
    atomic_path,
    name_fields,
    read_descriptors,
    read_name,
    sole_writer,
    write_descriptors,
)
from vit4icd.stream import Skipped
from vit4icd.types import DescriptorSet

__all__ = ["Cache", "Files", "Look", "read_content"]

_LOOK_AT = 256  # pixels of the short side that are enough to see whether a picture is plain

Files = Sequence[PictureFile]
Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a content looks like: its header, and why it is too plain to judge, if it is."""

    header: Header
    plain: str | None


def read_content(files: Files) -> bytes:
    """Return the bytes of the first of the files that still has the content it was hashed with.

    Raises:
        ImageError: none has; with the reason "changed" or why the last one cannot be read.
    """
    reason = ImageError("missing", "there is no file of this content")
    for file in files:
        try:
            data = read_bytes(Path(file.path))
        except ImageError as error:
            reason = error
            continue
        if hashlib.sha256(data).hexdigest() == file.sha256:
            return data
        reason = ImageError("changed", "it changed after it was hashed; run again")
    raise reason


class Cache:
    """A folder of what was learnt; anything missing in it is learnt and added.

    Raises:
        FormatError: a file in it is damaged; delete the folder then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def inventory(
        self,
        inputs: Sequence[Path],
        *,
        references: Sequence[Path] = (),
        n_workers: int | None = None,
        progress: Progress | None = None,
    ) -> Inventory:
        """Return :func:`take_inventory`, reading only files that are new or changed."""
        known = self._known_files()
        learnt: list[PictureFile] = []
        try:
            return take_inventory(
                inputs,
                references=references,
                known=known,
                n_workers=n_workers,
                learnt=learnt.append,
                progress=progress,
            )
        finally:  # a run that is stopped has learnt something, too
            self._remember(known, learnt)

    def descriptors(
        self,
        contents: Mapping[str, Files],
        describer: Describer,
        *,
        max_pixels: int = MAX_PIXELS,
        n_workers: int | None = None,
        progress: Callable[[ProgressReport], None] | None = None,
    ) -> tuple[DescriptorSet, list[Skipped]]:
        """Return the descriptors of contents, in their order, and the files that have none.

        What is not yet known is described and added, durably and resumably.

        Raises:
            StoreError: another run is adding to this folder.
        """
        path = self.folder / f"descriptors-{describer.fingerprint}.h5"
        known, missing = _stored(path, contents)
        skipped: list[Skipped] = []
        if len(missing):
            with sole_writer(self.folder):
                known, missing = _stored(path, contents)  # another run may have added some
                if len(missing):
                    fresh = path.with_name(f"new-{path.name}")
                    summary = describe(
                        missing, fresh, describer, max_pixels=max_pixels, n_workers=n_workers,
                        progress=progress,
                    )  # fmt: skip
                    known = _appended(known, read_descriptors(fresh, ids="path"))
                    write_descriptors(path, known)
                    fresh.unlink()
                    fresh.with_suffix(".skipped.jsonl").unlink(missing_ok=True)
                    skipped = [
                        Skipped(file.path, item.reason, item.message)
                        for item in summary.skipped
                        for file in contents[item.name]
                    ]
        return _picked(known, list(contents), describer), skipped

    def looks(
        self,
        contents: Mapping[str, Files],
        *,
        max_pixels: int = MAX_PIXELS,
        n_workers: int | None = None,
    ) -> dict[str, Look]:
        """Return what contents look like; those that cannot be read are left out."""
        known = dict(filter(None, self._read("looks.jsonl", _stored_look)))
        missing = [key for key in contents if key not in known]
        found = in_order(lambda key: _look(contents[key], max_pixels), missing, n_workers=n_workers)
        new = {key: look for key, look in zip(missing, found, strict=True) if look is not None}
        if new:
            known |= new
            self._write(
                "looks.jsonl",
                (
                    {"sha256": key, "header": asdict(look.header), "plain": look.plain}
                    for key, look in known.items()
                ),
            )
        return {key: known[key] for key in contents if key in known}

    def _known_files(self) -> dict[str, tuple[Stamp, str]]:
        return dict(
            self._read(
                "files.jsonl",
                lambda row: (read_name("path", row), (Stamp(**row["stamp"]), str(row["sha256"]))),
            )
        )

    def _remember(
        self, known: Mapping[str, tuple[Stamp, str]], learnt: Sequence[PictureFile]
    ) -> None:
        new = {file.path: (file.stamp, file.sha256) for file in learnt if file.stamp.is_settled}
        self._write(
            "files.jsonl",
            (
                name_fields("path", path) | {"stamp": asdict(stamp), "sha256": sha256}
                for path, (stamp, sha256) in {**known, **new}.items()
            ),
        )

    def _read(self, name: str, parse: Callable[[dict[str, Any]], Row]) -> list[Row]:
        path = self.folder / name
        if not path.exists():
            return []
        try:
            return [parse(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{path} is damaged ({error}); delete {self.folder}, it is made anew"
            ) from error

    def _write(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


class _Contents:
    """Contents as pictures for the describer, named by their hashes."""

    def __init__(self, contents: Mapping[str, Files]) -> None:
        self._files = list(contents.values())
        self.names: Sequence[str] = list(contents)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        return read_content(self._files[index])


def _stored(path: Path, contents: Mapping[str, Files]) -> tuple[DescriptorSet | None, _Contents]:
    """Return the descriptors that are there, and the contents that have none yet."""
    known = read_descriptors(path, ids="path") if path.exists() else None
    done = set() if known is None else set(known.ids)
    return known, _Contents({key: files for key, files in contents.items() if key not in done})


def _appended(known: DescriptorSet | None, fresh: DescriptorSet) -> DescriptorSet:
    if known is None:
        return fresh
    return DescriptorSet(
        ids=[*known.ids, *fresh.ids],
        vectors=np.concatenate([known.vectors, fresh.vectors]),
        fingerprint=fresh.fingerprint,
    )


def _picked(known: DescriptorSet | None, ids: Sequence[str], describer: Describer) -> DescriptorSet:
    """Return the rows of those ids that have one; without a copy where that is all of them."""
    if known is None:
        empty = np.empty((0, describer.dim), np.float32)
        return DescriptorSet(ids=[], vectors=empty, fingerprint=describer.fingerprint)
    row = {name: number for number, name in enumerate(known.ids)}
    rows = [row[name] for name in ids if name in row]
    return known if rows == list(range(len(known))) else known.only(rows)


def _stored_look(row: Mapping[str, Any]) -> tuple[str, Look] | None:
    """Return a content's hash and look; None for one that another version stored."""
    if row["header"].keys() != {field.name for field in fields(Header)}:
        return None
    return str(row["sha256"]), Look(header=Header(**row["header"]), plain=row["plain"])


def _look(files: Files, max_pixels: int) -> Look | None:
    try:
        data = read_content(files)
        image = read_image(data, max_pixels=max_pixels, at_least=_LOOK_AT)
        return Look(header=read_header(data), plain=too_plain(image))
    except ImageError:
        return None
