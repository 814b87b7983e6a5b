"""The collections that are served, and what the engine does with them; it speaks no HTTP."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from vit4icd.collection import AddProgress, Answer, Collection
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ConfigError, ImageError, StoreError
from vit4icd.service.previews import Previews, holder_of
from vit4icd.service.problems import Problem
from vit4icd.thresholds import Threshold

__all__ = [
    "MAX_ID",
    "Added",
    "Adding",
    "Found",
    "Library",
    "New",
    "Query",
    "Searching",
    "Shelf",
    "require_id",
    "sha256_of_bytes",
]

MAX_ID = 1_024
"""Bytes of an id."""

_NAMED = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]*)=)?(.+)", re.DOTALL)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shelf:
    """A collection under the name that clients know it by."""

    name: str
    collection: Collection

    def basis(self, threshold: float | None = None) -> dict[str, Any]:
        """Return what an answer rests on: the collection's version, the model, the threshold."""
        version, n_images = self.collection.newest()
        return self._basis(version=version, n_images=n_images, threshold=threshold)

    def basis_of(self, answer: Answer) -> dict[str, Any]:
        """Return the same for an answer of the collection."""
        return self._basis(**asdict(answer.basis))

    def _basis(self, **of_version: float | None) -> dict[str, Any]:
        fingerprint = self.collection.fingerprint
        return {"collection": self.name, "fingerprint": fingerprint, **of_version}

    def warm_up(self) -> None:
        """Read the descriptors and run the engine once, so that the first query waits for nothing.

        Raises:
            StoreError: the collection cannot be read.
            FormatError: it is damaged.
        """
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        list(self.collection.ask(noise, k=1))


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """All collections of a service, by name."""

    shelves: Mapping[str, Shelf]

    @classmethod
    def open(
        cls, places: Sequence[str], describer: OnnxDescriber, *, create: bool = False
    ) -> "Library":
        """Open collections, each given as a place or as NAME=PLACE.

        Raises:
            ConfigError: two of one name.
            StoreError: there is none, and ``create`` is not set.
            MismatchError: it was made with another model.
        """
        shelves: dict[str, Shelf] = {}
        for place in places:
            match = _NAMED.fullmatch(place)
            assert match is not None
            uri = match[2]
            name = match[1] or _NOT_IN_NAMES.sub("-", PurePath(uri).name).strip("-.") or "pictures"
            if name in shelves:
                raise ConfigError(f"two collections are called {name!r}; give NAME={uri}")
            make = create and not Collection.exists(uri)
            opened = (Collection.create if make else Collection.open)(uri, describer=describer)
            shelves[name] = Shelf(name=name, collection=opened)
        return cls(shelves)

    def get(self, name: str) -> Shelf:
        """Return the collection of a name.

        Raises:
            Problem: there is none.
        """
        if name not in self.shelves:
            listed = ", ".join(self.shelves)
            raise Problem("not_found", f"there is no collection {name!r}; there are: {listed}")
        return self.shelves[name]

    @property
    def first(self) -> Shelf:
        """The collection that was named first."""
        return next(iter(self.shelves.values()))


@dataclass(frozen=True, slots=True)
class Query:
    """A picture that is searched."""

    name: str
    data: bytes
    sha256: str | None = None
    """Of the reference whose preview this is; decisions know the query by it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a collection answered, and what the answer rests on."""

    answer: Answer
    basis: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Searching:
    """Searches of one collection with the same options."""

    shelf: Shelf
    k: int = 10
    threshold: Threshold = "auto"
    verify: bool = False
    flip: bool = False
    rotate: bool = False
    regions: bool = False
    max_pixels: int

    def pictures(self, item: Query) -> Sequence[bytes]:
        """Return what will be decoded."""
        return (item.data,)

    def run(self, items: Sequence[Query]) -> list[Found | Exception]:
        """Answer the queries together; a picture that cannot be searched costs only itself."""
        answers = self.shelf.collection.ask(
            [item.data for item in items],
            names=[item.name for item in items],
            k=self.k,
            threshold=self.threshold,
            verify=self.verify,
            flip=self.flip,
            rotate=self.rotate,
            regions=self.regions,
            max_pixels=self.max_pixels,
        )
        return [
            Found(answer, self.shelf.basis_of(answer))
            if answer.skipped is None
            else ImageError(answer.skipped.reason, answer.skipped.message)
            for answer in answers
        ]


@dataclass(frozen=True, slots=True)
class New:
    """A picture that is added; without metadata, what is stored already stays."""

    id: str
    data: bytes
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a picture."""

    id: str
    sha256: str
    outcome: Literal["stored", "unchanged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Adding:
    """Additions to one collection: one commit for all that wait."""

    shelf: Shelf
    previews: Previews
    regions: bool = False
    """Whether parts of the pictures are described, too."""
    max_pixels: int

    def pictures(self, item: New) -> Sequence[bytes]:
        """Return what will be decoded."""
        return (item.data,)

    def run(self, items: Sequence[New]) -> list[Added | Exception]:
        """Add the pictures, and keep their previews; a bad picture costs only itself."""
        results: dict[int, Added | Exception] = {}
        for rows in _rounds(items):
            results |= self._round(items, rows)
        return [results[row] for row in range(len(items))]

    def _round(self, items: Sequence[New], rows: Sequence[int]) -> dict[int, Added | Exception]:
        stored: set[str] = set()

        def note(progress: AddProgress) -> None:
            stored.update(progress.stored)

        metadata = [items[row].metadata for row in rows]
        given = [fields for fields in metadata if fields is not None]
        summary = self.shelf.collection.add(
            [items[row].data for row in rows],
            ids=[items[row].id for row in rows],
            metadata=given or None,
            regions=self.regions,
            max_pixels=self.max_pixels,
            progress=note,
        )
        skipped = {one.name: ImageError(one.reason, one.message) for one in summary.skipped}
        added = {
            row: Added(
                items[row].id,
                sha256_of_bytes(items[row].data),
                "stored" if items[row].id in stored else "unchanged",
            )
            for row in rows
            if items[row].id not in skipped
        }
        results = self._with_previews(added, items)
        return results | {row: skipped[items[row].id] for row in rows if row not in added}

    def _with_previews(
        self, added: Mapping[int, Added], items: Sequence[New]
    ) -> dict[int, Added | Exception]:
        """Keep the previews of what is still stored as it was added."""
        holders = {row: holder_of(self.shelf.name, one.id) for row, one in added.items()}

        def stored() -> dict[bytes, str]:
            records = self.shelf.collection.find(one.id for one in added.values())
            return {
                holder_of(self.shelf.name, id_): record.sha256 for id_, record in records.items()
            }

        held = self.previews.hold({holders[row]: added[row].sha256 for row in added}, stored)
        results: dict[int, Added | Exception] = dict(added)
        for row in added:
            if holders[row] in held:
                try:
                    self.previews.keep(items[row].data, added[row].sha256)
                except ImageError:  # larger than the service itself takes: there is no preview
                    pass
                except StoreError as error:  # it is stored; sent again, it has its preview
                    results[row] = error
        return results


def sha256_of_bytes(data: bytes) -> str:
    """Return what a file's content is known by."""
    return hashlib.sha256(data).hexdigest()


def require_id(id_: str) -> str:
    """Return an id that can be stored.

    Raises:
        Problem: it is too long, or empty.
    """
    if not 0 < len(id_.encode("utf-8", "surrogateescape")) <= MAX_ID:
        raise Problem("invalid_request", f"an id has 1 to {MAX_ID} bytes")
    return id_


def _rounds(items: Sequence[New]) -> Iterator[list[int]]:
    """Yield rows that can be added at once: no id twice, and all with metadata or all without.

    What was sent later under one id comes in a later round, and so stays.
    """
    left = list(range(len(items)))
    while left:
        first = items[left[0]].metadata is None
        seen: set[str] = set()
        rows: list[int] = []
        for row in left:
            if items[row].id not in seen and (items[row].metadata is None) == first:
                rows.append(row)
            seen.add(items[row].id)
        yield rows
        taken = set(rows)
        left = [row for row in left if row not in taken]
