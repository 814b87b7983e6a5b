"""Pictures to descriptors: streaming, resumable, bad files listed; it searches nothing."""

import base64
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from vit4icd.datasets import ImageSource, open_images
from vit4icd.describer import Describer
from vit4icd.errors import ConfigError, DataError, ImageError, MismatchError
from vit4icd.images import MAX_PIXELS, prepare, read_image
from vit4icd.storage import DescriptorWriter, atomic_path

__all__ = ["DescribeSummary", "ProgressReport", "describe", "skipped_path"]

_BATCH = 16  # pictures given to the engine at a time; ONNX Runtime gains nothing from more on a CPU
_AHEAD = 3  # batches decoded ahead of the engine
_JOURNAL_EVERY_S = 2.0  # seconds of work that a kill may cost


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribeSummary:
    """What one run did: described now, found done by an earlier run, and skipped with reasons."""

    path: Path
    n_described: int
    n_reused: int
    n_skipped: int
    seconds: float

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


@dataclass(frozen=True, slots=True)
class _Skipped:
    name: str
    reason: str
    message: str

    def to_line(self) -> str:
        fields = {"name": self.name, "reason": self.reason, "message": self.message}
        try:
            self.name.encode("utf-8")
        except UnicodeEncodeError:
            raw = os.fsencode(self.name)
            fields["name"] = raw.decode("utf-8", "replace")
            fields["name_base64"] = base64.b64encode(raw).decode("ascii")
        return json.dumps(fields, ensure_ascii=False) + "\n"


Prepared = Float32[np.ndarray, "3 size size"] | _Skipped


def skipped_path(out: Path) -> Path:
    """Return where the files that could not be described are listed: ``X.skipped.jsonl``."""
    return out.with_suffix(".skipped.jsonl")


def describe(
    inputs: Sequence[Path],
    out: Path,
    describer: Describer,
    *,
    max_pixels: int = MAX_PIXELS,
    n_workers: int | None = None,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[ProgressReport], None] | None = None,
) -> DescribeSummary:
    """Describe files, folders and tar shards into one HDF5 file of the official layout.

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
    source = open_images(inputs)
    rows = _rows(source, share)
    config = {
        "preprocessing": describer.preprocessing.to_json(),
        "max_pixels": max_pixels,
        "share": list(share),
    }
    skipped: list[_Skipped] = []
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
    _write_skipped(skipped_path(out), skipped)
    return DescribeSummary(
        path=out,
        n_described=len(waiting) - len(skipped),
        n_reused=n_reused,
        n_skipped=len(skipped),
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """The pictures of one run on their way through decoding, the engine and the journal."""

    source: ImageSource
    describer: Describer
    writer: DescriptorWriter
    skipped: list[_Skipped]
    max_pixels: int
    n_workers: int | None

    def over(self, rows: Sequence[int]) -> Iterator[int]:
        """Describe the rows; yields how many are done after each batch."""
        names: list[str] = []
        vectors: list[np.ndarray] = []
        saved_at, n_done = time.monotonic(), 0
        try:
            for batch in self._batches(rows):
                good = [(row, item) for row, item in batch if not isinstance(item, _Skipped)]
                self.skipped.extend(item for _, item in batch if isinstance(item, _Skipped))
                if good:
                    vectors.append(self.describer.describe(np.stack([item for _, item in good])))
                    names.extend(self.source.names[row] for row, _ in good)
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

    def _batches(self, rows: Sequence[int]) -> Iterator[list[tuple[int, Prepared]]]:
        """Prepare batches in order, a few ahead; what is not needed any more is never begun."""
        with ThreadPoolExecutor(self.n_workers or _decoders(), "decode") as pool:
            remaining = iter(rows)
            ahead: deque[list[tuple[int, Future[Prepared]]]] = deque()
            try:
                while True:
                    while len(ahead) < _AHEAD and (some := list(islice(remaining, _BATCH))):
                        ahead.append([(row, pool.submit(self._prepared, row)) for row in some])
                    if not ahead:
                        return
                    yield [(row, future.result()) for row, future in ahead.popleft()]
            finally:
                pool.shutdown(cancel_futures=True)

    def _prepared(self, row: int) -> Prepared:
        preprocessing = self.describer.preprocessing
        try:
            data = self.source.read(row)
            image = read_image(data, max_pixels=self.max_pixels, at_least=preprocessing.at_least)
            return prepare(image, preprocessing)
        except ImageError as error:
            return _Skipped(self.source.names[row], error.reason, str(error))
        except MemoryError:
            return _Skipped(self.source.names[row], "too_large", "not enough memory to decode")


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


def _decoders() -> int:
    return max(2, (os.cpu_count() or 1) // 2)


def _write_skipped(path: Path, skipped: Sequence[_Skipped]) -> None:
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary:
        temporary.write_text("".join(item.to_line() for item in skipped), "utf-8")
