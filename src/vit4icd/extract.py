"""Pictures to descriptors: streaming, resumable, bad files listed; it searches nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit4icd.datasets import ImageSource, open_images
from vit4icd.describer import Describer
from vit4icd.errors import ConfigError, DataError, MismatchError
from vit4icd.images import MAX_PIXELS, read_image
from vit4icd.preprocessing import prepare
from vit4icd.storage import DescriptorWriter
from vit4icd.stream import Described, Prepared, Skipped, described, write_skipped

__all__ = ["DescribeSummary", "ProgressReport", "describe", "skipped_path"]

_JOURNAL_EVERY_S = 2.0  # seconds of work that a kill may cost


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeSummary:
    """What one run did: described now, found done by an earlier run, and skipped with reasons."""

    path: Path
    n_described: int
    n_reused: int
    skipped: tuple[Skipped, ...]
    seconds: float

    @property
    def n_skipped(self) -> int:
        """Pictures that could not be described."""
        return len(self.skipped)

    @property
    def images_per_s(self) -> float:
        """Pictures described in a second of this run."""
        return self.n_described / max(self.seconds, 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressReport:
    """How far a run is: pictures done (those skipped and reused included), of how many."""

    n_done: int
    n_images: int
    n_skipped: int


def skipped_path(out: Path) -> Path:
    """Return where the files that could not be described are listed: ``X.skipped.jsonl``."""
    return out.with_suffix(".skipped.jsonl")


def describe(
    inputs: Sequence[Path] | ImageSource,
    out: Path,
    describer: Describer,
    *,
    max_pixels: int = MAX_PIXELS,
    n_workers: int | None = None,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[ProgressReport], None] | None = None,
) -> DescribeSummary:
    """Describe files, folders and tar shards into one HDF5 file of the official layout.

    ``inputs`` are paths, or pictures opened already, whose names then name the rows.

    Pictures are decoded by threads ahead of the engine and written to a journal every two seconds,
    so that a run that was stopped or killed goes on where it was when it is called again: nothing
    is described twice and nothing is lost. Rows follow the order of the inputs. A file that is no
    readable picture costs only itself: it is listed in ``X.skipped.jsonl`` with the reason, and
    tried again by the next run. Names are the paths as given, or shard/member.

    ``share`` (i, n) describes every n-th picture from the i-th on, for several machines.

    Raises:
        DataError: an input does not exist, or there is no picture.
        MismatchError: two pictures have one name, or an unfinished run of another model is there.
        ConfigError: a share that is not 0 <= i < n.
    """
    started = time.monotonic()
    source = inputs if isinstance(inputs, ImageSource) else open_images(inputs)
    rows = _rows(source, share)
    config = {
        "preprocessing": describer.preprocessing.to_json(),
        "max_pixels": max_pixels,
        "share": list(share),
    }
    skipped: list[Skipped] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with DescriptorWriter(
        out, dim=describer.dim, fingerprint=describer.fingerprint, config=config
    ) as writer:
        waiting = [row for row in rows if source.names[row] not in writer.done]
        n_reused = len(rows) - len(waiting)
        run = _Run(source, describer, writer, skipped, max_pixels, n_workers)
        for n_done in run.over(waiting):
            if progress is not None:
                report = ProgressReport(
                    n_done=n_reused + n_done, n_images=len(rows), n_skipped=len(skipped)
                )
                progress(report)
        writer.finish(order=[source.names[row] for row in rows])
    write_skipped(skipped_path(out), skipped, keep_empty=False)
    return DescribeSummary(
        path=out,
        n_described=len(waiting) - len(skipped),
        n_reused=n_reused,
        skipped=tuple(skipped),
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """The pictures of one run on their way through decoding, the engine and the journal."""

    source: ImageSource
    describer: Describer
    writer: DescriptorWriter
    skipped: list[Skipped]
    max_pixels: int
    n_workers: int | None

    def over(self, rows: Sequence[int]) -> Iterator[int]:
        """Describe the rows; yields how many are done after each batch."""
        names: list[str] = []
        vectors: list[np.ndarray] = []
        saved_at, n_done = time.monotonic(), 0
        try:
            for batch in self._batches(rows):
                for item in batch:
                    if isinstance(item, Described):
                        names.append(self.source.names[item.rest])
                        vectors.append(item.vectors)
                    else:
                        self.skipped.append(item)
                if time.monotonic() - saved_at > _JOURNAL_EVERY_S:
                    self._save(names, vectors)
                    saved_at = time.monotonic()
                n_done += len(batch)
                yield n_done
        finally:
            self._save(names, vectors)

    def _save(self, names: list[str], vectors: list[np.ndarray]) -> None:
        if vectors:
            self.writer.append(names, np.concatenate(vectors))
        names.clear()
        vectors.clear()

    def _batches(self, rows: Sequence[int]) -> Iterator[list[Described[int] | Skipped]]:
        return described(
            rows,
            self._prepared,
            self.describer,
            name=self.source.names.__getitem__,
            n_workers=self.n_workers,
        )

    def _prepared(self, row: int) -> Prepared[int]:
        preprocessing = self.describer.preprocessing
        data = self.source.read(row)
        image = read_image(data, max_pixels=self.max_pixels, at_least=preprocessing.at_least)
        return Prepared(prepare(image, preprocessing)[None], row)


def _rows(source: ImageSource, share: tuple[int, int]) -> range:
    index, n_shares = share
    if not 0 <= index < n_shares:
        raise ConfigError(f"a share is i of n with 0 <= i < n, not {index} of {n_shares}")
    if not len(source):
        raise DataError("the inputs hold no picture")
    if len(set(source.names)) != len(source):
        name = Counter(source.names).most_common(1)[0][0]
        raise MismatchError(f"two pictures are named {name!r}; give each input once")
    return range(index, len(source), n_shares)
