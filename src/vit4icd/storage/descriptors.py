"""Descriptors in the official HDF5 layout; whole sets in and out, nothing resumable.

``vectors`` is float32 ``[image, dim]`` and ``image_names`` fixed-length bytes, as the original
tools write and read them. We add ``image_names_utf8`` where a name is not ASCII, and attributes
that say what made the file.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from jaxtyping import Float32

import vit4icd
from vit4icd.errors import FormatError, MismatchError
from vit4icd.storage.files import atomic_path
from vit4icd.types import DescriptorSet

__all__ = [
    "IdRule",
    "map_descriptors",
    "official_id",
    "read_descriptors",
    "write_descriptors",
]

IdRule = Literal["official", "path"]
_FORMAT_VERSION = 1


def official_id(name: str) -> str:
    """Return the id the original's reader gives: the last part without ``.jpg`` or ``.png``.

    Example:
        >>> official_id("/queries//Q00001.jpg"), official_id("Q00002.jpeg")
        ('Q00001', 'Q00002.jpeg')
    """
    last = name.rsplit("/", 1)[-1]
    return last[:-4] if last.endswith((".jpg", ".png")) else last


def write_descriptors(
    path: Path,
    descriptors: DescriptorSet,
    *,
    config: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a set in the official layout; the file appears whole or not at all.

    ``half`` stores vectors in half precision, at half the size; the original cannot read that.
    """
    names = descriptors.ids
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        vectors = file.create_dataset(
            "vectors", descriptors.vectors.shape, np.float16 if half else np.float32
        )
        vectors[...] = descriptors.vectors
        ascii_names = np.array([name.encode("ascii", "ignore") for name in names] or [b""], "S")
        file.create_dataset("image_names", data=ascii_names[: len(names)])
        if not all(name.isascii() for name in names):
            utf8 = [name.encode("utf-8", "surrogateescape") for name in names]
            file.create_dataset("image_names_utf8", data=np.array(utf8, "S"))
        file.attrs["format_version"] = _FORMAT_VERSION
        file.attrs["package_version"] = vit4icd.__version__
        file.attrs["fingerprint"] = descriptors.fingerprint or ""
        file.attrs["config"] = json.dumps(dict(config or {}), sort_keys=True)


def read_descriptors(*paths: Path, ids: IdRule = "official") -> DescriptorSet:
    """Read files into one set, stacked in the given order; of one file, vectors stay mapped.

    Raises:
        FormatError: a file is malformed, truncated or of a newer version.
        MismatchError: the files differ in dimension or fingerprint, or ids collide.
    """
    sets = map_descriptors(paths, ids=ids)
    if len(sets) == 1:
        return sets[0]
    return DescriptorSet(
        ids=[name for part in sets for name in part.ids],
        vectors=np.concatenate([part.vectors for part in sets]),
        fingerprint=sets[0].fingerprint,
    )


def map_descriptors(paths: Sequence[Path], *, ids: IdRule = "official") -> list[DescriptorSet]:
    """Open files as sets whose vectors stay on disk until they are touched.

    Vectors stored contiguously, as we and the original write them, are memory-mapped; chunked or
    compressed ones are read. Ids follow ``ids``: "official" keeps the last part of the name without
    .jpg or .png, "path" the whole name.

    Raises:
        FormatError: a file is malformed, truncated or of a newer version.
        MismatchError: the files differ in dimension or fingerprint, or ids collide.
    """
    if not paths:
        raise FormatError("name at least one descriptor file")
    sets = [_open(path, ids) for path in paths]
    for path, part in zip(paths, sets, strict=True):
        if part.dim != sets[0].dim:
            raise MismatchError(f"{path} has {part.dim} dimensions, {paths[0]} has {sets[0].dim}")
        if part.fingerprint != sets[0].fingerprint:
            raise MismatchError(
                f"{path} was made by model {part.fingerprint}, {paths[0]} by "
                f"{sets[0].fingerprint}; describe both with the same model"
            )
    _require_distinct([name for part in sets for name in part.ids], ", ".join(map(str, paths)))
    return sets


def _open(path: Path, ids: IdRule) -> DescriptorSet:
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs.get("format_version", 0))
            if version > _FORMAT_VERSION:
                raise FormatError(f"{path} has format {version}; this version reads up to 1")
            names = _names(file)
            fingerprint = str(file.attrs.get("fingerprint", "")) or None
            vectors = _map_vectors(path, file["vectors"])
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}; look at its spelling") from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} is not a descriptor file: {error}") from error
    if ids == "official":
        names = [official_id(name) for name in names]
        _require_distinct(names, str(path))
    return DescriptorSet(ids=names, vectors=vectors, fingerprint=fingerprint)


def _names(file: h5py.File) -> list[str]:
    stored = file["image_names_utf8" if "image_names_utf8" in file else "image_names"]
    return [bytes(name).decode("utf-8", "surrogateescape") for name in stored[:]]


def _map_vectors(path: Path, stored: h5py.Dataset) -> Float32[np.ndarray, "image dim"]:
    if stored.ndim != 2:
        raise ValueError(f"vectors have the shape {stored.shape}, not (images, dim)")
    offset = stored.id.get_offset()
    if offset is None or stored.dtype != np.dtype("<f4") or not stored.size:
        return np.asarray(stored[...], np.float32)
    if offset + stored.nbytes > path.stat().st_size:
        raise ValueError("the file is truncated")
    return np.memmap(path, np.float32, "r", offset, stored.shape)


def _require_distinct(names: Sequence[str], where: str) -> None:
    if len(set(names)) == len(names):
        return
    name, count = Counter(names).most_common(1)[0]
    raise MismatchError(
        f"{count} images of {where} have the id {name!r}; use the whole path as the id "
        '(--ids path, or ids="path")'
    )
