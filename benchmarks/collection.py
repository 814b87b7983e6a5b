"""Searching a large collection: recall, latency and memory, and the exact search against faiss.

``python -m benchmarks.collection [ROWS]`` writes ROWS synthetic descriptors (1,000,000 by default)
into a table in a temporary folder: 20 to each of ROWS / 20 clusters in a latent space of 64
dimensions, with noise. Half of the queries are perturbed copies of rows, half belong to none.
Ratios are of CPU time, on one thread. ``python -m benchmarks.collection ROWS --parts`` gives each
picture nine parts beside it, of clusters of their own, and queries are perturbed copies of parts.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from benchmarks.common import cpu_seconds, highest_mb, report, wall_seconds
from vit4icd.collection.descriptors import VECTOR_COLUMNS, Parts, vectors_in
from vit4icd.collection.memory import EXACT_ROWS, Held, Memory
from vit4icd.collection.records import Record, decode
from vit4icd.collection.rows import Row, to_table
from vit4icd.collection.table import Table
from vit4icd.collection.views import N_PARTS

DIM, LATENT, N_QUERIES, K, N_THREADS = 512, 64, 200, 10, 1
COMMIT_ROWS = 16_384
NUMBERS = range(1, N_PARTS + 1)
Rows = dict[str, float | int | str]


def main() -> None:
    """Measure and print; searches run in processes of their own, so that memory is theirs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--search", type=Path)
    asked = parser.parse_args()
    if asked.search:
        (_search_parts if asked.parts else _search)(asked.search)
        return
    rows: Rows = {"dim": DIM, "threads": N_THREADS}
    sizes = (asked.rows,) if asked.parts else (min(asked.rows, EXACT_ROWS) // 2, asked.rows)
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            rows |= _measured(Path(folder) / str(size), size, with_parts=asked.parts)
    report("parts" if asked.parts else "collection", rows)


def _measured(folder: Path, n_rows: int, *, with_parts: bool) -> Rows:
    started = time.monotonic()
    _write(folder, n_rows, with_parts=with_parts)
    ingest = n_rows / (time.monotonic() - started)
    words = [sys.executable, "-m", "benchmarks.collection", str(n_rows), "--search", str(folder)]
    words += ["--parts"] * with_parts
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = (line.rsplit(": ", 1) for line in done.stdout.splitlines())
    rows: Rows = {f"{n_rows:,} rows: stored a second": ingest}
    return rows | {f"{n_rows:,} rows: {name}": float(value) for name, value in found}


def _write(folder: Path, n_rows: int, *, with_parts: bool) -> None:
    world = World(n_rows)
    created = datetime.now(UTC)
    about = {"package_version": "", "fingerprint": "", "model": "", "created": created.isoformat()}
    table = Table.create(str(folder), dim=DIM, metadata=about)
    for start in range(0, n_rows, COMMIT_ROWS):
        vectors = world.vectors(min(COMMIT_ROWS, n_rows - start), seed=start)
        parts = world.parts(len(vectors), seed=start) if with_parts else None
        rows = [
            Row(
                record=Record(
                    id=f"photos/{start + row:07d}.jpg", source="", sha256="0" * 64, width=1,
                    height=1, added=created,
                ),
                vector=vector,
                features=None,
                parts=None if parts is None else Parts(numbers=NUMBERS, vectors=parts[row]),
            )
            for row, vector in enumerate(vectors)
        ]  # fmt: skip
        table.upsert(to_table(rows, table.schema))


def _search(folder: Path) -> None:
    """Print what one process that searches the folder measures, a line each."""
    faiss.omp_set_num_threads(N_THREADS)
    memory = Memory(Table(str(folder)))
    held = _loaded(memory)
    queries = World(len(held)).queries(N_QUERIES)
    _time(held, queries)
    _compare(held, memory, queries)


def _search_parts(folder: Path) -> None:
    """Print the same for queries that are of parts of the first pictures."""
    held = _loaded(Memory(Table(str(folder))))
    stored = vectors_in(held.read(range(N_QUERIES), VECTOR_COLUMNS))
    numbers = stored.numbers[N_QUERIES:].reshape(N_QUERIES, -1)
    parts = stored.values[N_QUERIES:].reshape(N_QUERIES, -1, DIM).astype(np.float32)
    wanted = np.arange(N_QUERIES), np.arange(N_QUERIES) % len(NUMBERS)  # one part of each picture
    queries = _perturbed(parts[wanted])
    _time(held, queries)
    nearest = held.nearest(queries, 1)
    names = [decode(id_) for id_ in stored.ids.to_pylist()]
    found = np.array(held.names(nearest.rows[:, 0])) == names
    right = found & (nearest.numbers[:, 0] == numbers[wanted])
    print(f"parts: {held.n_descriptors - len(held)}")
    print(f"share of parts found first: {right.mean()}")


def _loaded(memory: Memory) -> Held:
    started = time.monotonic()
    held = memory.newest()
    print(f"seconds to load: {time.monotonic() - started}")
    return held


def _time(held: Held, queries: np.ndarray) -> None:
    latencies = [
        wall_seconds(partial(held.nearest, query[None], K), repeats=1) for query in queries
    ]
    cpu = cpu_seconds(lambda: [held.nearest(query[None], K) for query in queries], repeats=1)
    print(f"ms of CPU a query: {1e3 * cpu / N_QUERIES}")
    print(f"ms a query, p50: {1e3 * np.median(latencies)}")
    print(f"ms a query, p95: {1e3 * np.percentile(latencies, 95)}")
    print(f"MB of memory at most: {highest_mb()}")


def _compare(held: Held, memory: Memory, queries: np.ndarray) -> None:
    _, vectors = memory.descriptors()
    print(f"MB with all descriptors: {highest_mb()}")
    nearest = held.nearest(queries, K)
    exact, expected = faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)
    hits = [len(set(one) & set(other)) for one, other in zip(nearest.rows, expected, strict=True)]
    print(f"recall at {K}: {np.mean(hits) / K}")
    print(f"recall at {K}, copies: {np.mean(hits[: N_QUERIES // 2]) / K}")
    np.testing.assert_allclose(nearest.similarities[:, 0], exact[:, 0], atol=0.02)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    for n_queries in (1, N_QUERIES):
        ours = cpu_seconds(partial(held.nearest, queries[:n_queries], K))
        theirs = cpu_seconds(partial(flat.search, queries[:n_queries], K))
        print(f"rate of {n_queries} at once / flat faiss index, by CPU time: {theirs / ours}")


class World:
    """A synthetic space of descriptors, the same for the same number of rows."""

    def __init__(self, n_rows: int) -> None:
        world_rng = np.random.default_rng(0)
        self._centres = world_rng.standard_normal((max(1, n_rows // 20), LATENT), np.float32)
        self._basis = np.linalg.qr(world_rng.standard_normal((DIM, LATENT)))[0].T.astype(np.float32)

    def vectors(self, n_rows: int, *, seed: int) -> np.ndarray:
        """Return unit vectors of random clusters."""
        vector_rng = np.random.default_rng([1, seed])
        centres = self._centres[vector_rng.integers(0, len(self._centres), n_rows)]
        latent = centres + 0.7 * vector_rng.standard_normal((n_rows, LATENT), np.float32)
        noise = 0.3 * vector_rng.standard_normal((n_rows, DIM), np.float32)
        return _unit(latent @ self._basis + noise * np.sqrt(LATENT / DIM))

    def parts(self, n_rows: int, *, seed: int) -> np.ndarray:
        """Return nine unit vectors for each of the pictures."""
        vectors = self.vectors(n_rows * len(NUMBERS), seed=seed + len(NUMBERS) ** 8)
        return vectors.reshape(n_rows, len(NUMBERS), DIM)

    def queries(self, n_queries: int) -> np.ndarray:
        """Return perturbed copies of the first rows, then as many of no row in particular."""
        copies = _perturbed(self.vectors(COMMIT_ROWS, seed=0)[: n_queries // 2])
        return np.concatenate([copies, self.vectors(n_queries - len(copies), seed=-1 % 2**32)])


def _perturbed(vectors: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(2).standard_normal(vectors.shape, np.float32)
    return _unit(vectors + 0.5 * _unit(noise))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
