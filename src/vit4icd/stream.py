"""Pictures through the engine: prepared by threads ahead of it, in order; it stores nothing."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float32

from vit4icd.describer import Describer
from vit4icd.errors import ImageError
from vit4icd.helpers import helpers
from vit4icd.storage import atomic_path, name_fields

__all__ = ["Described", "Prepared", "Skipped", "described", "write_skipped"]

_BATCH = 16  # views given to the engine at a time
_AHEAD = 3  # batches on their way, of which ...
_AT_ONCE = 2  # ... so many are given to the engine, so that it never waits between two

Item = TypeVar("Item")
Rest = TypeVar("Rest")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be used, and why."""

    name: str
    reason: str
    """A short stable code, such as "truncated"."""
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the fields; a name that is not UTF-8 stands there in base64 as well."""
        return name_fields("name", self.name) | {"reason": self.reason, "message": self.message}


@dataclass(frozen=True, slots=True, eq=False)
class Prepared(Generic[Rest]):
    """A picture ready for the engine, as views (one, several or none), and what goes with it."""

    views: Float32[np.ndarray, "view 3 size size"]
    rest: Rest


@dataclass(frozen=True, slots=True, eq=False)
class Described(Generic[Rest]):
    """The descriptors of a picture's views, and what came with it."""

    vectors: Float32[np.ndarray, "view dim"]
    rest: Rest


_Batch: TypeAlias = Sequence[Future[Prepared[Rest] | Skipped]]


def described(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared[Rest]],
    describer: Describer,
    *,
    name: Callable[[Item], str],
    n_views: int = 1,
    n_workers: int | None = None,
) -> Iterator[list[Described[Rest] | Skipped]]:
    """Yield the items' descriptors in batches, in the order of the items.

    ``prepare`` runs in threads, a few batches ahead of the engine. Where it raises ImageError, or
    runs out of memory, the reason takes the picture's place under its ``name``. ``n_views`` says
    how many views a picture has at most, so that batches stay small; ``n_workers`` is the number of
    those threads, by default the processors that the describer may use.
    """

    def one(item: Item) -> Prepared[Rest] | Skipped:
        try:
            return prepare(item)
        except ImageError as error:
            return Skipped(name(item), error.reason, str(error))
        except MemoryError:
            return Skipped(name(item), "too_large", "not enough memory to decode")

    decoders = helpers("decode", n_workers or describer.n_threads)
    engines = ThreadPoolExecutor(_AT_ONCE, "batch")
    remaining, size = iter(items), max(1, _BATCH // n_views)
    ahead: deque[tuple[_Batch[Rest], Future[list[Described[Rest] | Skipped]]]] = deque()
    try:
        while True:
            while len(ahead) < _AHEAD and (some := list(islice(remaining, size))):
                batch = [decoders.submit(one, item) for item in some]
                ahead.append((batch, engines.submit(_through_engine, batch, describer)))
            if not ahead:
                return
            yield ahead[0][1].result()
            ahead.popleft()
    finally:  # what is not needed any more is never begun
        engines.shutdown(wait=False, cancel_futures=True)
        wait([future for batch, _ in ahead for future in batch if not future.cancel()])
        engines.shutdown()


def write_skipped(path: Path, skipped: Sequence[Skipped], *, keep_empty: bool = True) -> None:
    """Write one JSON line for each.

    Without ``keep_empty``, which is for names that we chose and no user did, an empty list is no
    file, and one that an earlier run left goes.
    """
    if not skipped and not keep_empty:
        path.unlink(missing_ok=True)
        return
    lines = (json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in skipped)
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), "utf-8")


def _through_engine(futures: _Batch[Rest], describer: Describer) -> list[Described[Rest] | Skipped]:
    batch = [future.result() for future in futures]
    views = [item.views for item in batch if isinstance(item, Prepared)]
    if not views:
        return [item for item in batch if isinstance(item, Skipped)]
    ends = np.cumsum([len(view) for view in views])
    vectors = iter(np.split(describer.describe(np.concatenate(views)), ends))
    return [
        item if isinstance(item, Skipped) else Described(next(vectors), item.rest) for item in batch
    ]
