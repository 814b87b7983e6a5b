"""Edited copies written as files, in the original's offline layout; training reads them back.

``copies.json`` beside them says what they were made of and how, so that no other run mixes its own
among them; training passes it over.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vit4icd.datasets import ImageSource, open_images
from vit4icd.edits import EditConfig, contact_sheet, edited_copy, official_config
from vit4icd.errors import ConfigError, DataError, ImageError, MismatchError
from vit4icd.images import read_image, resize, to_gray, write_image
from vit4icd.storage import atomic_path, read_json, write_json

__all__ = ["CopiesSummary", "first_readable", "prepare_copies", "write_contact_sheet"]

Picture = UInt8[np.ndarray, "_ _ 3"]

_SMALLEST = 16  # pixels: edits draw nothing into less
_QUALITY = 100  # JPEG quality of the original's files
_CLAIM = "copies.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class CopiesSummary:
    """How many files were written, found there already, and could not be made."""

    n_written: int
    n_reused: int
    skipped: tuple[tuple[str, str], ...]
    """Name and reason of each unreadable source picture."""


def prepare_copies(
    source: ImageSource,
    out: Path,
    *,
    n_copies: int = 19,
    size: int = 256,
    gray: bool = True,
    config: EditConfig | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CopiesSummary:
    """Write ``{class}_{j}.jpg``: j = 0 the plain picture, j from 1 on edited copies.

    A class is a source picture, numbered in the order of the source. By default copies carry three
    distinct edits out of the original's 24, are gray and of JPEG quality 100, as ViT4ICD's training
    set. A file depends on (seed, class, j) alone, so that a stopped run goes on, and several may
    share the work; files that exist are left alone. All must name the same pictures, in one order.

    Raises:
        ConfigError: fewer than 0 copies, or a size below 16.
        MismatchError: ``out`` holds copies of other pictures, made otherwise, or one cannot tell.
    """
    if n_copies < 0:
        raise ConfigError(f"n_copies must be at least 0, not {n_copies}")
    if size < _SMALLEST:
        raise ConfigError(f"size must be at least {_SMALLEST} pixels, not {size}")
    job = _Job(source=source, size=size, gray=gray, config=config or official_config(), seed=seed)
    job.claim(out)
    n_written = n_reused = 0
    skipped: list[tuple[str, str]] = []
    for label in range(len(source)):
        paths = {j: out / f"{label}_{j}.jpg" for j in range(n_copies + 1)}
        missing = {j: path for j, path in paths.items() if not path.exists()}
        n_reused += len(paths) - len(missing)
        try:
            job.write(label, missing)
            n_written += len(missing)
        except ImageError as error:
            skipped.append((source.names[label], error.reason))
        if progress is not None:
            progress(label + 1, len(source))
    return CopiesSummary(n_written=n_written, n_reused=n_reused, skipped=tuple(skipped))


def write_contact_sheet(image: Path, out: Path, *, donors: Path | None = None) -> None:
    """Write a sheet that shows every edit of a picture, mixed with pictures of a folder.

    Without ``donors`` the picture's own mirror image is mixed in.

    Raises:
        ImageError: the picture cannot be read.
        DataError: there is none in ``donors`` that can be read.
        ConfigError: ``out`` does not end in .jpg, .jpeg or .png.
    """
    try:
        picture = read_image(image)
    except ImageError as error:
        raise ImageError(error.reason, f"{image}: {error}") from error
    others = [picture[:, ::-1]]
    if donors is not None:
        source = open_images([donors])
        others = [first_readable(source, index) for index in range(max(1, min(len(source), 6)))]
    sheet = contact_sheet(picture, donors=lambda number: others[number % len(others)])
    with atomic_path(out) as temporary:
        write_image(temporary, sheet, suffix=out.suffix)


def first_readable(source: ImageSource, number: int, *, at_least: int | None = None) -> Picture:
    """Return the first readable picture from this number on, to be mixed into another.

    Raises:
        DataError: no picture can be read.
    """
    for turn in range(len(source)):
        try:
            return read_image(source.read((number + turn) % len(source)), at_least=at_least)
        except ImageError:
            continue
    raise DataError("no picture can be read")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """How the files of a class are made from its picture."""

    source: ImageSource
    size: int
    gray: bool
    config: EditConfig
    seed: int

    def claim(self, out: Path) -> None:
        """Say in the folder, before there is a file, what its files are; refuse another's."""
        names = "\0".join(self.source.names).encode("utf-8", "surrogateescape")
        claim = {
            "n_pictures": len(self.source),
            "pictures": hashlib.sha256(names).hexdigest(),
            "size": self.size,
            "gray": self.gray,
            "seed": self.seed,
            "edits": str(self.config),
        }
        out.mkdir(parents=True, exist_ok=True)
        has_files = any(out.glob("*_*.jpg"))  # asked first: another run may begin just now
        if (out / _CLAIM).exists():
            _require_same(read_json(out / _CLAIM), claim, out)
        elif has_files:
            raise MismatchError(
                f"{out} holds pictures, and no {_CLAIM} that says what they were made of; "
                "write elsewhere with another --out"
            )
        else:
            write_json(out / _CLAIM, claim)

    def write(self, label: int, paths: Mapping[int, Path]) -> None:
        """Write the plain picture (number 0) and edited copies of a class."""
        if not paths:
            return
        image = read_image(self.source.read(label))
        for number, path in paths.items():
            picture = self._copy(image, label, number) if number else self._plain(image)
            with atomic_path(path) as temporary:
                shown = to_gray(picture) if self.gray else picture
                write_image(temporary, shown, suffix=".jpg", quality=_QUALITY)

    def _plain(self, image: Picture) -> Picture:
        return resize(image, self.size, self.size)

    def _copy(self, image: Picture, label: int, number: int) -> Picture:
        return edited_copy(
            image,
            edit_rng=np.random.default_rng((self.seed, label, number)),
            config=self.config,
            donors=self._donor,
            size=self.size,
        )

    def _donor(self, number: int) -> Picture:
        return first_readable(self.source, number)


def _require_same(found: Any, claim: Mapping[str, Any], out: Path) -> None:
    differing = {key: found.get(key) for key in claim if found.get(key) != claim[key]}
    if differing:
        told = ", ".join(
            f"other {key}"
            if isinstance(claim[key], str)
            else f"{key} {was} there, {claim[key]} here"
            for key, was in differing.items()
        )
        raise MismatchError(
            f"{out} was begun otherwise ({told}); do as then, the pictures named alike and in the "
            "same order, or write elsewhere with another --out"
        )
