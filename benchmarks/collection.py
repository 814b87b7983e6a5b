"""Searching a large collection: recall, latency and memory, and the exact search against faiss.

``python -m benchmarks.collection [ROWS]`` writes ROWS synthetic descriptors (1,000,000 by default)
into a table in a temporary folder: 20 to each of ROWS / 20 clusters in a latent space of 64
dimensions, with noise. Half of the queries are perturbed copies of rows, half belong to none.
Ratios are of CPU time, on one thread.
"""

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from benchmarks.common import cpu_seconds, report, wall_seconds
from vit4icd.collection.memory import EXACT_ROWS, Held, Memory
from vit4icd.collection.records import Record
from vit4icd.collection.rows import Row, to_table
from vit4icd.collection.table import Table

DIM, LATENT, N_QUERIES, K, N_THREADS = 512, 64, 200, 10, 1
COMMIT_ROWS = 16_384
Rows = dict[str, float | int | str]


def main() -> None:
    """Measure and print; searches run in processes of their own, so that memory is theirs."""
    if len(sys.argv) > 2:
        _search(Path(sys.argv[2]))
        return
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows: Rows = {"dim": DIM, "threads": N_THREADS}
    with tempfile.TemporaryDirectory() as folder:
        for size in (min(n_rows, EXACT_ROWS) // 2, n_rows):
            rows |= _measured(Path(folder) / str(size), size)
    report("collection", rows)


def _measured(folder: Path, n_rows: int) -> Rows:
    started = time.monotonic()
    _write(folder, n_rows)
    ingest = n_rows / (time.monotonic() - started)
    words = [sys.executable, "-m", "benchmarks.collection", str(n_rows), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = (line.rsplit(": ", 1) for line in done.stdout.splitlines())
    rows: Rows = {f"{n_rows:,} rows: stored a second": ingest}
    return rows | {f"{n_rows:,} rows: {name}": float(value) for name, value in found}


def _write(folder: Path, n_rows: int) -> None:
    world = World(n_rows)
    created = datetime.now(UTC)
    about = {"package_version": "", "fingerprint": "", "model": "", "created": created.isoformat()}
    table = Table.create(str(folder), dim=DIM, metadata=about)
    for start in range(0, n_rows, COMMIT_ROWS):
        vectors = world.vectors(min(COMMIT_ROWS, n_rows - start), seed=start)
        rows = [
            Row(
                record=Record(
                    id=f"photos/{start + row:07d}.jpg", source="", sha256="0" * 64, width=1,
                    height=1, added=created,
                ),
                vector=vector,
                features=None,
            )
            for row, vector in enumerate(vectors)
        ]  # fmt: skip
        table.upsert(to_table(rows, table.schema))


def _search(folder: Path) -> None:
    """Print what one process that searches the folder measures, a line each."""
    faiss.omp_set_num_threads(N_THREADS)
    memory = Memory(Table(str(folder)))
    started = time.monotonic()
    held = memory.newest()
    print(f"seconds to load: {time.monotonic() - started}")
    queries = World(len(held)).queries(N_QUERIES)
    latencies = [
        wall_seconds(partial(held.nearest, query[None], K), repeats=1) for query in queries
    ]
    cpu = cpu_seconds(lambda: [held.nearest(query[None], K) for query in queries], repeats=1)
    print(f"ms of CPU a query: {1e3 * cpu / N_QUERIES}")
    print(f"ms a query, p50: {1e3 * np.median(latencies)}")
    print(f"ms a query, p95: {1e3 * np.percentile(latencies, 95)}")
    print(f"MB of memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")
    _compare(held, memory, queries)


def _compare(held: Held, memory: Memory, queries: np.ndarray) -> None:
    _, vectors = memory.descriptors()
    print(f"MB with all descriptors: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")
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

    def queries(self, n_queries: int) -> np.ndarray:
        """Return perturbed copies of the first rows, then as many of no row in particular."""
        query_rng = np.random.default_rng(2)
        copies = self.vectors(COMMIT_ROWS, seed=0)[: n_queries // 2]
        copies = copies + 0.5 * _unit(query_rng.standard_normal(copies.shape, np.float32))
        return np.concatenate(
            [_unit(copies), self.vectors(n_queries - len(copies), seed=-1 % 2**32)]
        )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
