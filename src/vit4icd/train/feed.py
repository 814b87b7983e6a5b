"""Batches for training, each a pure function of (seed, batch number, rank); it holds no weights."""

import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vit4icd.datasets import ClassSource, ImageSource, class_balanced_order
from vit4icd.edits import EditConfig, edited_copy
from vit4icd.errors import ConfigError, DataError, ImageError
from vit4icd.images import read_image, resize, to_gray
from vit4icd.labelled_pairs import LabelledPairs
from vit4icd.train.neighbours import ClassOrder
from vit4icd.train.processes import Place

__all__ = ["Feed", "FeedConfig", "open_feed", "require_usable"]

_ORDER, _COPIES, _SUPPORT, _PAIRS = range(4)  # what a generator is for, so that draws differ
_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedConfig:
    """What a batch holds and how its images are made."""

    image_size: int = 224
    colour: bool = False
    n_classes: int = 32
    """Classes in a batch over all processes; each gives ``n_copies`` images."""
    n_copies: int = 4
    n_neighbours: int = 0
    """Classes that follow each drawn one in a batch, out of the ten most like it."""
    edits: EditConfig | None = None
    """Edits made on the fly; None where the images are copies already (the offline layout)."""
    plain_share: float = 0.05
    """Share of copies left unedited when edits are made on the fly (1 in 20 in the original)."""
    flip: float = 0.5
    shift: int = 10
    """Pixels by which a copy is moved at most, over black (the original's pad and crop)."""
    n_support: int = 0
    """Unedited images beside the copies, for the compatibility loss (128 in the original)."""
    n_pairs: int = 0
    """Labelled pairs beside the copies, for stage 3 (128 in the original)."""
    n_workers: int = 1
    """Processes that make batches ahead of the training step; 0 makes them in it."""

    def __post_init__(self) -> None:
        if self.n_classes < 1 or self.n_copies < 1 or self.image_size < 1:
            raise ConfigError(
                "a feed needs at least 1 class, 1 copy and images of 1 px, "
                f"not {self.n_classes}, {self.n_copies} and {self.image_size}"
            )
        for name in ("n_neighbours", "shift", "n_support", "n_pairs", "n_workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")
        for name in ("plain_share", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} lies between 0 and 1, not {getattr(self, name)}")


class Feed(Dataset[dict[str, Tensor]]):
    """Batch number -> batch; workers and resumed runs make the same bytes for the same number.

    A batch holds uint8 images ``[image, 3, size, size]`` and int64 columns: "images" and "labels"
    (class-balanced copies); "support" (unedited images); "queries", "references" and their
    "query_names", "reference_names" (labelled pairs; equal numbers are the same picture). Without
    labelled pairs, a query is an edited copy and its reference the unedited image; in the offline
    layout, unedited is the first file of a class.

    Raises:
        ConfigError: a batch that the processes cannot share evenly.
        DataError: fewer images or pairs than one batch needs.
    """

    def __init__(
        self,
        config: FeedConfig,
        source: ClassSource,
        *,
        support: ImageSource | None = None,
        pairs: LabelledPairs | None = None,
        class_order: ClassOrder | None = None,
        seed: int,
        place: Place,
    ) -> None:
        self.class_order = class_order
        self.config, self.source, self.pairs, self.seed = config, source, pairs, seed
        self.support = support
        self.rank, self.n_ranks = place.rank, place.n_processes
        self.pins_memory = place.device.type == "cuda"
        self._pass: tuple[int, Int64[np.ndarray, " row"]] = (-1, np.empty(0, np.int64))
        self._pass_length = len(self._ordered(0))
        self._unedited = np.arange(len(source))
        if config.edits is None:
            self._unedited = np.unique(source.labels, return_index=True)[1]
        self._require_shares()
        _require_enough("classes", source.n_classes, config.n_classes)
        _require_enough("unedited images", self._n_support(), config.n_support)
        _require_enough("labelled pairs", self._n_pairs(), config.n_pairs)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        batch = self._copies(number)
        if self.config.n_support:
            batch["support"] = self._support(number)
        if self.config.n_pairs:
            batch.update(self._pairs(number))
        return {name: torch.from_numpy(column) for name, column in batch.items()}

    def _copies(self, number: int) -> dict[str, np.ndarray]:
        n_rows = self.config.n_classes * self.config.n_copies
        rows = self._share(self._rows(number * n_rows, n_rows))
        edit_rng = self._rng(_COPIES, number)
        images = [self._copy(int(row), edit_rng=edit_rng) for row in rows]
        return {"images": _stack(images), "labels": self.source.labels[rows]}

    def _support(self, number: int) -> UInt8[np.ndarray, "image 3 size size"]:
        rows = self._shuffled(_SUPPORT, self._n_support(), self.config.n_support, number)
        if self.support is None:
            return _stack([self._plain(self.source, int(row)) for row in self._unedited[rows]])
        return _stack([self._plain(self.support, int(row)) for row in rows])

    def _pairs(self, number: int) -> dict[str, np.ndarray]:
        rows = self._shuffled(_PAIRS, self._n_pairs(), self.config.n_pairs, number)
        if self.pairs is None:
            edit_rng, rows = self._rng(_PAIRS, number), self._unedited[rows]
            copied = [self._copied(int(row), edit_rng=edit_rng) for row in rows]
            queries = [self._copy(row, edit_rng=edit_rng) for row in copied]
            references = [self._plain(self.source, int(row)) for row in rows]
            query_names = reference_names = rows
        else:
            queries = [self._labelled(self.pairs.queries[row]) for row in rows]
            references = [self._labelled(self.pairs.references[row]) for row in rows]
            query_names = _numbered(self.pairs.queries)[rows]
            reference_names = _numbered(self.pairs.references)[rows]
        return {
            "queries": _stack(queries),
            "references": _stack(references),
            "query_names": query_names,
            "reference_names": reference_names,
        }

    def _copy(self, row: int, *, edit_rng: np.random.Generator) -> UInt8[np.ndarray, "size size 3"]:
        config, image = self.config, self._read(self.source, row)
        if config.edits is not None and edit_rng.random() >= config.plain_share:
            image = edited_copy(
                image,
                edit_rng=edit_rng,
                config=config.edits,
                donors=self._donor,
                size=config.image_size,
            )
        return self._finished(_flip_and_shift(self._sized(image), config, edit_rng=edit_rng))

    def _copied(self, row: int, *, edit_rng: np.random.Generator) -> int:
        """Return the row to make a query of: in the offline layout another file of the class."""
        if self.config.edits is not None:
            return row
        files = np.flatnonzero(self.source.labels == self.source.labels[row])
        return int(edit_rng.choice(files[files != row])) if len(files) > 1 else row

    def _donor(self, number: int) -> UInt8[np.ndarray, "height width 3"]:
        return self._read(self.source, number % len(self.source))

    def _plain(self, source: ImageSource, row: int) -> UInt8[np.ndarray, "size size 3"]:
        return self._resized(self._read(source, row))

    def _labelled(self, path: Path) -> UInt8[np.ndarray, "size size 3"]:
        return self._resized(read_image(path, at_least=self.config.image_size))

    def _read(self, source: ImageSource, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Read a picture; a gray one stands in for what cannot be read, so that a run goes on."""
        try:
            return read_image(source.read(row), at_least=self.config.image_size)
        except ImageError as error:
            warnings.warn(f"{source.names[row]} is left out: {error}", stacklevel=2)
            size = self.config.image_size
            return np.full((size, size, 3), 128, np.uint8)

    def _resized(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "size size 3"]:
        return self._finished(self._sized(image))

    def _sized(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "size size 3"]:
        size = self.config.image_size
        return image if image.shape[:2] == (size, size) else resize(image, size, size, "bilinear")

    def _finished(
        self, image: UInt8[np.ndarray, "size size 3"]
    ) -> UInt8[np.ndarray, "size size 3"]:
        return image if self.config.colour else to_gray(image)

    def _rng(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, purpose, number, self.rank))

    def _rows(self, first: int, n_rows: int) -> Int64[np.ndarray, " row"]:
        """Return ``n_rows`` from position ``first`` of the endless class-balanced passes."""
        positions = range(first, first + n_rows)
        return np.array(
            [self._ordered(at // self._pass_length)[at % self._pass_length] for at in positions]
        )

    def _ordered(self, number: int) -> Int64[np.ndarray, " row"]:
        if self._pass[0] != number:
            order_rng = np.random.default_rng((self.seed, _ORDER, number))
            edits_on_the_fly = self.config.edits is not None
            order = class_balanced_order(
                self.source.labels,
                per_class=self.config.n_copies,
                fill=edits_on_the_fly,
                classes=None if self.class_order is None else self.class_order(order_rng),
                order_rng=order_rng,
            )
            self._pass = (number, order)
        return self._pass[1]

    def _shuffled(
        self, purpose: int, n_known: int, n_rows: int, number: int
    ) -> Int64[np.ndarray, " row"]:
        """Return this process's rows of a batch out of passes that are shuffled anew each time."""
        per_pass = n_known // n_rows
        order_rng = np.random.default_rng((self.seed, purpose, number // per_pass))
        first = number % per_pass * n_rows
        return self._share(order_rng.permutation(n_known)[first : first + n_rows])

    def _share(self, rows: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " mine"]:
        return np.array_split(rows, self.n_ranks)[self.rank]

    def _n_support(self) -> int:
        return len(self._unedited) if self.support is None else len(self.support)

    def _n_pairs(self) -> int:
        return len(self._unedited) if self.pairs is None else len(self.pairs)

    def _require_shares(self) -> None:
        config = self.config
        n_copies = config.n_classes * config.n_copies
        for n_rows in (n_copies, config.n_support, config.n_pairs):
            if n_rows % self.n_ranks:
                raise ConfigError(f"{self.n_ranks} processes cannot share {n_rows} images evenly")


def open_feed(feed: Feed, start: int) -> Iterable[dict[str, Tensor]]:
    """Iterate over the batches from number ``start`` on, for ever, made ahead by workers."""
    n_workers = feed.config.n_workers
    return DataLoader(
        feed,
        batch_size=None,
        sampler=_From(start),
        num_workers=n_workers,
        prefetch_factor=4 if n_workers else None,
        pin_memory=feed.pins_memory,
        multiprocessing_context="spawn" if n_workers else None,
        worker_init_fn=_one_thread,
    )


def require_usable(pairs: LabelledPairs, *, at_least: int) -> None:
    """Count labelled pairs and decode each picture once, so that none ends a run hours later.

    Unlike a copy, such a picture is known by name: nothing can stand in for it.

    Raises:
        DataError: fewer pairs than a batch needs, or pictures that cannot be read, by name.
    """
    _require_enough("labelled pairs", len(pairs), at_least)
    problems = []
    for path in dict.fromkeys((*pairs.queries, *pairs.references)):
        try:
            read_image(path)
        except ImageError as error:
            problems.append(f"{path} ({error})")
    if problems:
        shown = ", ".join(problems[:_NAMES_SHOWN]) + ", ..." * (len(problems) > _NAMES_SHOWN)
        raise DataError(
            f"{len(problems)} files of labelled pairs cannot be read; leave them out: {shown}"
        )


class _From(Sampler[int]):
    """All numbers from ``start`` on."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return count(self.start)


def _one_thread(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the loop ends its workers once it has saved
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _flip_and_shift(
    image: UInt8[np.ndarray, "size size 3"],
    config: FeedConfig,
    *,
    edit_rng: np.random.Generator,
) -> UInt8[np.ndarray, "size size 3"]:
    """Mirror and move over black: horizontal flip, zero padding, random crop (method 2.4)."""
    if edit_rng.random() < config.flip:
        image = image[:, ::-1]
    if not config.shift:
        return np.ascontiguousarray(image)
    top, left = edit_rng.integers(0, 2 * config.shift + 1, 2)
    pad = [(config.shift, config.shift)] * 2 + [(0, 0)]
    padded = np.pad(image, pad)
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def _stack(
    images: Sequence[UInt8[np.ndarray, "size size 3"]],
) -> UInt8[np.ndarray, "image 3 size size"]:
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _numbered(paths: Sequence[Path]) -> Int64[np.ndarray, " pair"]:
    return np.unique([str(path) for path in paths], return_inverse=True)[1].astype(np.int64)


def _require_enough(what: str, n_known: int, n_needed: int) -> None:
    if n_known < n_needed:
        raise DataError(f"a batch needs {n_needed} {what}, but the data has {n_known}")
