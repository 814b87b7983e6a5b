"""Exact search: the best pairs overall, of each query, or within one set; no approximation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import faiss
import numpy as np
from jaxtyping import Float32, Float64, Int64

from vit4icd.errors import ConfigError, DataError, MismatchError
from vit4icd.types import DescriptorSet, Pairs, require_same_model

__all__ = ["best_pairs", "self_pairs", "top_k"]

_QUERY_ROWS = 1_024  # queries asked at a time: bounds what a search can return when all scores tie
_REFERENCE_ROWS = 16_384  # references held in memory at a time
_RESCORE_ROWS = 16_384  # pairs scored again at a time
_SPARE = 8  # neighbours asked beyond k, so that rounding cannot lose one
_CUT_AT = 4  # candidates are cut back when they exceed this multiple of what is wanted
_SMALL = 262_144  # scores that one thread has sooner than several have divided the work
_ROUNDING = 2e-6  # more than single precision is off for unit vectors

# From this many queries on faiss multiplies matrices, which reads the rows once for all of them.
# Its own bound is 128,000 since 1.15: 16 queries of 11,517 rows take five times as long.
faiss.cvar.distance_compute_blas_threshold = 4

Block = Float32[np.ndarray, "row dim"]
Transform = Callable[[Block], Block]


def best_pairs(
    queries: DescriptorSet,
    references: DescriptorSet | Sequence[DescriptorSet],
    *,
    max_pairs: int = 500_000,
    per_query: int | None = None,
    threshold: float | None = None,
    bias: Float32[np.ndarray, " query"] | None = None,
    transform: Transform | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Return the ``max_pairs`` best pairs of all, or the ``per_query`` best of each query.

    With a ``threshold``, only those that score at least that much: none with infinity.

    A score is the inner product plus the query's ``bias``. The result is exact: candidates found by
    faiss in single precision, with a margin for rounding, are scored again in double precision;
    ties at the cut go to the earlier query, then the earlier reference. Pairs come in the
    original's order: by query, then reference, in the order of the sets.

    Beside the (possibly mapped) sets, memory stays below 1.5 GB for 50,000 x 1,000,000 x 512 and
    500,000 pairs: a copy of the queries (102 MB), a block of references (34 MB), what one search
    of 1,024 queries in one block can return (at most 200 MB), pairs being scored again (201 MB),
    and at most 4 x 500,000 candidates plus that return (24 bytes each, twice while sorting).

    ``transform`` is applied to references block by block; a score normalisation may ask for it.
    ``progress`` is told how many reference rows are done, and of how many.

    Raises:
        ConfigError: ``max_pairs`` or ``per_query`` below 1, or a threshold that is no number.
        MismatchError: dimensions, fingerprints or lengths differ, or reference ids collide.
    """
    sets = [references] if isinstance(references, DescriptorSet) else list(references)
    _require_fitting(queries, sets, bias)
    if max_pairs < 1 or (per_query is not None and per_query < 1):
        raise ConfigError(f"at least 1 pair must be asked for, not {per_query or max_pairs}")
    if threshold is not None and np.isnan(threshold):
        raise ConfigError("the threshold must be a number, not nan")
    search = _Search(
        queries=np.ascontiguousarray(queries.vectors),
        bias=np.zeros(len(queries), np.float32) if bias is None else bias,
        sets=sets,
        transform=transform,
        progress=progress,
    )
    with _threads(n_threads):
        if per_query is None:
            found = search.best(max_pairs, at_least=threshold)
        else:
            found = search.nearest(per_query)
    if per_query is not None and threshold is not None:
        found = found.pick(found.score >= threshold)
    return _named(found, queries, sets)


def self_pairs(
    descriptors: DescriptorSet,
    *,
    threshold: float,
    bias: Float32[np.ndarray, " image"] | None = None,
    max_pairs: int = 5_000_000,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Return the pairs within one set that score at least the threshold, each pair once.

    A score is the inner product plus the lower ``bias`` of the two images, so it has no direction.
    The result is exact and memory bounded as in :func:`best_pairs`, with about half of its work; of
    more than ``max_pairs`` the best are kept. The earlier image of a pair is called its query.

    Raises:
        ConfigError: ``max_pairs`` below 1, or a threshold that is not finite.
        MismatchError: a bias of another length.

    Example:
        >>> vectors = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
        >>> pairs = self_pairs(DescriptorSet(ids=["a", "b", "c"], vectors=vectors), threshold=0.5)
        >>> list(zip(pairs.queries, pairs.references, pairs.scores.round(3).tolist()))
        [('a', 'c', 0.8), ('b', 'c', 0.6)]
    """
    if max_pairs < 1 or not np.isfinite(threshold):
        raise ConfigError(
            f"max_pairs must be at least 1 and the threshold finite, not {max_pairs}, {threshold}"
        )
    if bias is not None and len(bias) != len(descriptors):
        raise MismatchError(f"{len(bias)} biases for {len(descriptors)} images")
    search = _Search(
        queries=np.ascontiguousarray(descriptors.vectors),
        bias=np.zeros(len(descriptors), np.float32) if bias is None else bias,
        sets=[descriptors],
        transform=None,
        progress=progress,
        is_within_one_set=True,
    )
    with _threads(n_threads):
        found = search.best(max_pairs, at_least=threshold)
    return _named(found, descriptors, [descriptors])


def top_k(
    queries: Float32[np.ndarray, "query dim"], rows: Block, k: int
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
    """Return the k largest inner products of each query, largest first, and their rows.

    Raises:
        DataError: fewer rows than k.
    """
    if len(rows) < k:
        raise DataError(f"{k} neighbours are asked of only {len(rows)} descriptors")
    if not len(queries):
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    with _threads_for(len(queries) * len(rows)):
        scores, indices = faiss.knn(
            np.ascontiguousarray(queries),
            np.ascontiguousarray(rows),
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
        )
    return scores, indices


@contextmanager
def _threads(n_threads: int | None) -> Iterator[None]:
    """Let a block use so many threads, and what comes after it as many as before; None: as many."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n_threads or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _threads_for(n_scores: int) -> AbstractContextManager[None]:
    """Let a small search keep to the thread that asks.

    OpenMP's threads wait for each other in loops, which costs other threads' work more than it
    gains: five times the processor time for 16 queries beside a busy engine.
    """
    return _threads(None if n_scores > _SMALL else 1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Found:
    """Pairs as rows of queries and of all references stacked, with their scores."""

    query: Int64[np.ndarray, " pair"]
    reference: Int64[np.ndarray, " pair"]
    score: Float64[np.ndarray, " pair"]

    def __len__(self) -> int:
        return len(self.score)

    def pick(self, rows: np.ndarray) -> "_Found":
        return _Found(
            query=self.query[rows], reference=self.reference[rows], score=self.score[rows]
        )


_NONE = _Found(query=np.empty(0, np.int64), reference=np.empty(0, np.int64), score=np.empty(0))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Search:
    """One search: what is compared, and how it is told."""

    queries: Float32[np.ndarray, "query dim"]
    bias: Float32[np.ndarray, " query"]
    sets: Sequence[DescriptorSet]
    transform: Transform | None
    progress: Callable[[int, int], None] | None
    is_within_one_set: bool = False

    def best(self, n_wanted: int, *, at_least: float | None = None) -> _Found:
        """Return the best pairs overall; the threshold starts at a sample's and rises."""
        threshold = self._first_threshold(n_wanted) if at_least is None else at_least
        kept = [_NONE]
        for start, block in self._blocks():
            index = _index(block, with_one=bool(self.bias.any()))
            end = start + len(block) if self.is_within_one_set else len(self.queries)
            for first in range(0, end, _QUERY_ROWS):
                kept.append(self._above(first, block, start, index, threshold))
                if sum(map(len, kept)) > _CUT_AT * n_wanted:
                    kept = [_cut(kept, n_wanted)]
                    threshold = max(threshold, float(kept[0].score.min()))
        return _cut(kept, n_wanted)

    def nearest(self, k: int) -> _Found:
        """Return the k nearest references of each query."""
        kept = _NONE
        for start, block in self._blocks():
            firsts = range(0, len(self.queries), _QUERY_ROWS)
            found = [self._nearest_in(first, block, start, k) for first in firsts]
            kept = _cut_each([kept, *found], k)
        return kept

    def _blocks(self) -> Iterator[tuple[int, Block]]:
        n_rows, start = sum(map(len, self.sets)), 0
        for part in self.sets:
            for first in range(0, len(part), _REFERENCE_ROWS):
                block = np.ascontiguousarray(part.vectors[first : first + _REFERENCE_ROWS])
                yield start, block if self.transform is None else self.transform(block)
                start += len(block)
                if self.progress is not None:
                    self.progress(start, n_rows)

    def _first_threshold(self, n_wanted: int) -> float:
        """Return the n-th best score of a sample of pairs, which the n-th best of all is not below.

        The sample is the best few of each query in the first block, in single precision, hence the
        margin.
        """
        if not len(self.queries):
            return -np.inf
        k = -(-n_wanted // len(self.queries))
        block = next((block for _, block in self._blocks()), None)
        if block is None or k > len(block) // 4:
            return -np.inf
        scores = top_k(self.queries, block, k)[0] + self.bias[:, None]
        nth = float(np.partition(scores.ravel(), -n_wanted)[-n_wanted])
        return nth - _slack(nth, self.bias)

    def _above(
        self, first: int, block: Block, start: int, index: faiss.IndexFlatIP, threshold: float
    ) -> _Found:
        """Return a block's pairs that score at least the threshold."""
        queries = self.queries[first : first + _QUERY_ROWS]
        bias = self.bias[first : first + _QUERY_ROWS]
        if threshold == -np.inf:
            rows = np.indices((len(queries), len(block))).reshape(2, -1)
            return self._scored(rows[0] + first, rows[1], block, start)
        if index.d > queries.shape[1]:
            queries = np.hstack([queries, bias[:, None]])
        ends, _, columns = index.range_search(
            np.ascontiguousarray(queries), threshold - _slack(threshold, bias)
        )
        counts = (ends[1:] - ends[:-1]).astype(np.int64)
        query = np.repeat(np.arange(len(queries)), counts) + first
        if self.is_within_one_set:
            once = query < columns + start
            query, columns = query[once], columns[once]
        found = self._scored(query, columns, block, start)
        return found.pick(found.score >= threshold) if len(found) else found

    def _nearest_in(self, first: int, block: Block, start: int, k: int) -> _Found:
        """Return a block's k nearest rows of each query, and all that tie with the k-th."""
        queries = self.queries[first : first + _QUERY_ROWS]
        n_asked = min(k + _SPARE, len(block))
        scores, rows = top_k(queries, block, n_asked)
        query = np.repeat(np.arange(len(queries)), n_asked)
        found = [self._scored(query + first, rows.ravel(), block, start)]
        if n_asked < len(block):  # where rounding or ties reach past the spare ones, take them all
            reach = scores[:, k - 1] - 2 * _slack(1.0, scores[:, :1])
            for row in np.flatnonzero(scores[:, -1] >= reach):
                near = np.flatnonzero(block @ queries[row] >= reach[row])
                extra = np.setdiff1d(near, rows[row])
                found.append(self._scored(np.full(len(extra), row + first), extra, block, start))
        return _cut_each(found, k)

    def _scored(self, query: np.ndarray, row: np.ndarray, block: Block, start: int) -> _Found:
        """Score pairs in double precision, the same however they were found."""
        scores = np.empty(len(query), np.float64)
        for first in range(0, len(query), _RESCORE_ROWS):
            part = slice(first, first + _RESCORE_ROWS)
            left, right = self.queries[query[part]], block[row[part]]
            scores[part] = np.einsum("pd,pd->p", left, right, dtype=np.float64)
        if self.is_within_one_set:
            scores += np.minimum(self.bias[query], self.bias[row + start])
        else:
            scores += self.bias[query]
        return _Found(
            query=query.astype(np.int64), reference=row.astype(np.int64) + start, score=scores
        )


def _index(block: Block, *, with_one: bool) -> faiss.IndexFlatIP:
    """Return a block that faiss can search, with a column of ones for the bias if there is one."""
    rows = np.hstack([block, np.ones((len(block), 1), np.float32)]) if with_one else block
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def _slack(score: float, bias: np.ndarray) -> float:
    """Return more than a score near this one can be off in single precision."""
    if not np.isfinite(score):
        return 0.0
    return _ROUNDING * (1.0 + abs(score) + 2 * float(np.abs(bias).max(initial=0.0)))


def _cut(parts: Sequence[_Found], n_wanted: int) -> _Found:
    """Keep the best pairs: by score, then query, then reference; give them by query, reference."""
    found = _joined(parts)
    if len(found) > n_wanted:
        order = np.lexsort((found.reference, found.query, -found.score))[:n_wanted]
        found = found.pick(order)
    return found.pick(np.lexsort((found.reference, found.query)))


def _cut_each(parts: Sequence[_Found], k: int) -> _Found:
    """Keep each query's best k pairs: by score, then reference; give them by query, reference."""
    found = _joined(parts)
    found = found.pick(np.lexsort((found.reference, -found.score, found.query)))
    starts = np.searchsorted(found.query, found.query)
    found = found.pick(np.arange(len(found)) - starts < k)
    return found.pick(np.lexsort((found.reference, found.query)))


def _joined(parts: Sequence[_Found]) -> _Found:
    return _Found(
        query=np.concatenate([part.query for part in parts]),
        reference=np.concatenate([part.reference for part in parts]),
        score=np.concatenate([part.score for part in parts]),
    )


def _named(found: _Found, queries: DescriptorSet, sets: Sequence[DescriptorSet]) -> Pairs:
    names = [name for part in sets for name in part.ids]
    return Pairs(
        queries=[queries.ids[row] for row in found.query.tolist()],
        references=[names[row] for row in found.reference.tolist()],
        scores=found.score,
    )


def _require_fitting(
    queries: DescriptorSet, sets: Sequence[DescriptorSet], bias: np.ndarray | None
) -> None:
    for part in sets:
        require_same_model(queries, part, called="references")
    if bias is not None and len(bias) != len(queries):
        raise MismatchError(f"{len(bias)} biases for {len(queries)} queries")
    seen: set[str] = set()
    for part in sets:
        before = len(seen)
        seen.update(part.ids)
        if len(seen) != before + len(part):
            raise MismatchError(
                "reference ids collide between files: each reference must have an id of its own"
            )
