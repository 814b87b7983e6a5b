"""Pictures into a collection: described, stored batch by batch, unchanged ones passed over."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from jaxtyping import Float32

from vit4icd.collection.descriptors import Parts, ids_having
from vit4icd.collection.features import FEATURE_COLUMNS, ids_with_features
from vit4icd.collection.pictures import Pictures, sha256_of
from vit4icd.collection.records import RECORD_COLUMNS, Record, encode, records_in
from vit4icd.collection.rows import Row
from vit4icd.collection.table import Table
from vit4icd.collection.views import n_views, parts_of, picture_of
from vit4icd.collection.writing import Writer
from vit4icd.describer import Describer
from vit4icd.errors import ConfigError, ImageError, StoreError
from vit4icd.headers import read_header
from vit4icd.images import Source, read_image
from vit4icd.overlap import features_of
from vit4icd.preprocessing import prepare
from vit4icd.stream import Described, Prepared, Skipped, described

__all__ = ["AddProgress", "AddSummary", "Adding"]

_LOOK_UP = 4_096  # pictures that are looked up in the table at a time

_Fate = Literal["added", "updated", "unchanged", "touched"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AddProgress:
    """How far a run is, and what is safely stored since the report before."""

    n_done: int
    n_images: int
    n_unchanged: int
    n_skipped: int
    stored: tuple[str, ...]
    """Ids."""
    same_bytes: Mapping[str, str]
    """Of those, which are byte for byte a picture that another id holds already, and which id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddSummary:
    """What one run did."""

    n_added: int
    n_updated: int
    """Pictures whose content or metadata changed, that were given parts, or whose local features
    could not be read."""
    n_unchanged: int
    skipped: tuple[Skipped, ...]
    seconds: float
    same_bytes: Mapping[str, str]
    """Pictures that were stored though another id held the same bytes, and which id."""

    @property
    def n_images(self) -> int:
        """Pictures that were given."""
        return self.n_added + self.n_updated + self.n_unchanged + len(self.skipped)

    @property
    def images_per_s(self) -> float:
        """Pictures described and stored in a second of this run."""
        return (self.n_added + self.n_updated) / max(self.seconds, 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Adding:
    """One run: what is added, and how.

    Raises:
        ConfigError: parts of pictures for a collection that has no place for them.
    """

    table: Table
    describer: Describer
    pictures: Pictures
    ids: Sequence[str] | None
    """None: the SHA-256 of the content."""
    metadata: Sequence[Mapping[str, str] | None]
    """None: what is stored already stays."""
    features: bool
    """Whether local features are taken, which a proof needs; what has them keeps having them."""
    regions: bool
    """Whether parts of the pictures are described, too; those that have parts keep having them."""
    max_pixels: int

    def __post_init__(self) -> None:
        if self.regions and not self.table.has_parts:
            raise ConfigError(
                f"the collection {self.table.uri} was made by an older version, which kept no "
                "parts of pictures; build a new one: vit4icd index add NEW PICTURES --regions"
            )

    def run(self, progress: Callable[[AddProgress], None] | None = None) -> AddSummary:
        """Add the pictures; those reported as stored survive a kill."""
        started, tally, writer = time.monotonic(), _Tally(), Writer(self.table)

        def tell() -> None:
            report = tally.progress(len(self.pictures), writer.pop_stored())
            if progress is not None:
                progress(report)

        try:
            for start in range(0, len(self.pictures), _LOOK_UP):
                rows = range(start, min(start + _LOOK_UP, len(self.pictures)))
                for batch in self._batches(rows):
                    for item in batch:
                        tally.take(item, writer)
                    writer.flush_if_due()
                    tell()
                writer.flush()
        finally:
            writer.flush()
            tell()
        writer.tidy()
        return tally.summary(time.monotonic() - started)

    def _batches(self, rows: Sequence[int]) -> Iterator[list["Described[_Found] | Skipped"]]:
        known = self._known(rows)
        has_parts = self.regions or any(before.has_parts for before in known.values())
        return described(
            rows,
            lambda row: self._prepared(row, known),
            self.describer,
            name=self._name,
            n_views=n_views(flip=False, rotate=False, regions=has_parts),
        )

    def _name(self, row: int) -> str:
        ids = self.ids
        return self.pictures.names[row] or (f"picture {row}" if ids is None else ids[row])

    def _known(self, rows: Sequence[int]) -> dict[str, "_Known"]:
        """Return what the table holds under the ids that the pictures will have."""
        if self.ids is not None:
            ids = [self.ids[row] for row in rows]
        else:
            ids = [id_ for row in rows if (id_ := self._sha256(row)) is not None]
        keys = [*map(encode, ids)]
        rows = self.table.find(keys, [*RECORD_COLUMNS, "features_check", "parts_check"])
        featured = self._featured(keys) if self.features else ids_having(rows, "features_check")
        parted, records = ids_having(rows, "parts_check"), records_in(rows)
        return {
            record.id: _Known(record, record.id in featured, record.id in parted)
            for record in records
        }

    def _featured(self, keys: Sequence[bytes]) -> set[str]:
        """Return the ids whose local features are there and can be read."""
        try:
            return ids_with_features(self.table.find(keys, FEATURE_COLUMNS))
        except StoreError:
            return set()  # the file that holds them is damaged: they are taken again

    def _sha256(self, row: int) -> str | None:
        try:
            return sha256_of(self.pictures.read(row), max_pixels=self.max_pixels)
        except ImageError:
            return None  # it will be met again, and listed then

    def _prepared(self, row: int, known: Mapping[str, "_Known"]) -> "Prepared[_Found]":
        wanted, stamp = self.metadata[row], self.pictures.stamp(row)
        before = known.get(self.ids[row]) if self.ids is not None else None
        if before and stamp == before.record.stamp != "" and before.suits(wanted, self):
            return self._as_before(before.record, "unchanged")
        source = self.pictures.read(row)
        if not isinstance(source, bytes):
            source = read_image(source, max_pixels=self.max_pixels)
        sha256 = sha256_of(source, max_pixels=self.max_pixels)
        before = known.get(self.ids[row] if self.ids is not None else sha256)
        if before and sha256 == before.record.sha256 and before.suits(wanted, self):
            is_touched = self.ids is not None and stamp not in ("", before.record.stamp)
            record = replace(before.record, stamp=stamp) if is_touched else before.record
            return self._as_before(record, "touched" if is_touched else "unchanged")
        return self._anew(row, source, sha256, stamp, before)

    def _anew(
        self, row: int, source: Source, sha256: str, stamp: str, before: "_Known | None"
    ) -> "Prepared[_Found]":
        """Return a picture to describe, which may take the place of what is there."""
        wanted = self.metadata[row]
        regions = self.regions or (before is not None and before.has_parts)
        preprocessing = self.describer.preprocessing
        image = picture_of(source, preprocessing, regions=regions, max_pixels=self.max_pixels)
        width, height = _size(source, image)
        parts = {  # one after the other, so that a large picture is there twice at most
            number: prepare(part, preprocessing)
            for number, part in (parts_of(image) if regions else ())
        }
        record = Record(
            id=self.ids[row] if self.ids is not None else sha256,
            source=self.pictures.names[row],
            sha256=sha256,
            width=width,
            height=height,
            metadata=(before.record.metadata if before else {}) if wanted is None else wanted,
            added=datetime.now(UTC),
            stamp=stamp,
            n_parts=len(parts),
        )
        features = None
        if self.features or (before is not None and before.has_features):
            features = features_of(source, image, max_pixels=self.max_pixels).to_bytes()
        fate: _Fate = "added" if before is None else "updated"
        found = _Found(record, fate, features, tuple(parts) if regions else None)
        return Prepared(np.stack([prepare(image, preprocessing), *parts.values()]), found)

    def _as_before(self, record: Record, fate: "_Fate") -> "Prepared[_Found]":
        size = self.describer.preprocessing.image_size
        return Prepared(np.empty((0, 3, size, size), np.float32), _Found(record, fate))


def _size(source: Source, image: np.ndarray) -> tuple[int, int]:
    """Return the picture's own width and height; a large JPEG is decoded smaller."""
    if isinstance(source, bytes):
        header = read_header(source)
        return header.width, header.height
    return image.shape[1], image.shape[0]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the table holds of a picture."""

    record: Record
    has_features: bool
    has_parts: bool

    def suits(self, metadata: Mapping[str, str] | None, wanted: Adding) -> bool:
        """Return whether it can stay, if the picture did."""
        same = metadata is None or dict(metadata) == dict(self.record.metadata)
        has_features = self.has_features or not wanted.features
        return same and has_features and (self.has_parts or not wanted.regions)


@dataclass(frozen=True, slots=True)
class _Found:
    """A picture on its way, and what is to become of it."""

    record: Record
    fate: _Fate
    """touched: the same content in a file that looks new; its stamp is what changes."""
    features: bytes | None = None
    parts: Sequence[int] | None = None
    """Numbers of the parts that are described after the whole picture."""

    def row(self, vectors: Float32[np.ndarray, "view dim"]) -> Row:
        """Return what is stored."""
        parts = None if self.parts is None else Parts(numbers=self.parts, vectors=vectors[1:])
        return Row(record=self.record, vector=vectors[0], features=self.features, parts=parts)


@dataclass(slots=True)
class _Tally:
    """What became of the pictures so far."""

    fates: dict[_Fate, int] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    same_bytes: dict[str, str] = field(default_factory=dict)

    def take(self, item: Described[_Found] | Skipped, writer: Writer) -> None:
        if isinstance(item, Skipped):
            self.skipped.append(item)
            return
        found, fate = item.rest, item.rest.fate
        if fate == "touched":
            writer.touch(found.record)
            fate = "unchanged"
        elif fate != "unchanged" and not writer.add(found.row(item.vectors)):
            fate = "unchanged"  # the same content, met twice
        self.fates[fate] = self.fates.get(fate, 0) + 1

    def progress(self, n_images: int, stored: Mapping[str, str | None]) -> AddProgress:
        same_bytes = {id_: other for id_, other in stored.items() if other is not None}
        self.same_bytes |= same_bytes
        return AddProgress(
            n_done=sum(self.fates.values()) + len(self.skipped),
            n_images=n_images,
            n_unchanged=self.fates.get("unchanged", 0),
            n_skipped=len(self.skipped),
            stored=tuple(stored),
            same_bytes=same_bytes,
        )

    def summary(self, seconds: float) -> AddSummary:
        return AddSummary(
            n_added=self.fates.get("added", 0),
            n_updated=self.fates.get("updated", 0),
            n_unchanged=self.fates.get("unchanged", 0),
            skipped=tuple(self.skipped),
            seconds=seconds,
            same_bytes=self.same_bytes,
        )
