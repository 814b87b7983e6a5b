"""Exact search against faiss.knn and the matrix product itself, and its memory."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import faiss
import numpy as np

from benchmarks.common import anonymous_mb, highest_mb, report, wall_seconds
from vit4icd.search import best_pairs
from vit4icd.storage import map_descriptors, write_descriptors
from vit4icd.types import DescriptorSet

N_QUERIES, N_REFERENCES, DIM, N_THREADS = 4_096, 131_072, 512, 2


def main() -> None:
    """Measure and print; memory is measured in a process of its own."""
    if len(sys.argv) > 1:
        _memory(Path(sys.argv[1]))
        return
    faiss.omp_set_num_threads(N_THREADS)
    queries, references = _vectors(0, N_QUERIES), _vectors(1, N_REFERENCES)
    references[: N_QUERIES // 2] = _near(queries[: N_QUERIES // 2])
    query_set, reference_set = _named("q", queries), _named("r", references)
    flops = 2.0 * N_QUERIES * N_REFERENCES * DIM / 1e9
    knn = flops / wall_seconds(
        lambda: faiss.knn(queries, references, 10, metric=faiss.METRIC_INNER_PRODUCT)
    )
    ours = flops / wall_seconds(lambda: best_pairs(query_set, reference_set, max_pairs=40_000))
    each = flops / wall_seconds(lambda: best_pairs(query_set, reference_set, per_query=10))
    rows: dict[str, float | int | str] = {
        "queries x references x dim": f"{N_QUERIES} x {N_REFERENCES} x {DIM}",
        "threads": N_THREADS,
        "faiss.knn, k=10: GFLOP/s": knn,
        "best 40,000 pairs overall: GFLOP/s": ours,
        "best 10 of each query: GFLOP/s": each,
        "overall / faiss.knn": ours / knn,
        "each / faiss.knn": each / knn,
    }
    rows |= _measured_memory()
    report("search", rows)


def _measured_memory() -> dict[str, float]:
    """Return the memory of a search of 20,000 x 300,000 in mapped files for 500,000 pairs."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_descriptors(here / "q.h5", _named("q", _vectors(0, 20_000)))
        for part in range(3):
            write_descriptors(here / f"r{part}.h5", _named(f"r{part}-", _vectors(part, 100_000)))
        words = [sys.executable, __file__, folder]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    before, peak = map(float, done.stdout.split())
    return {
        "20,000 x 300,000, 500,000 pairs: MB before": before,
        "20,000 x 300,000, 500,000 pairs: MB at most, beside mapped files": peak,
    }


def _memory(folder: Path) -> None:
    faiss.omp_set_num_threads(N_THREADS)
    queries = map_descriptors([folder / "q.h5"], ids="path")[0]
    references = map_descriptors([folder / f"r{part}.h5" for part in range(3)], ids="path")
    before = anonymous_mb()
    peak = before

    def watch(_done: int, _rows: int) -> None:
        nonlocal peak
        peak = max(peak, anonymous_mb())

    best_pairs(queries, references, max_pairs=500_000, progress=watch)
    file_mb = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    highest = highest_mb() - file_mb
    print(before, max(peak, highest))


def _vectors(seed: int, n_rows: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n_rows, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _near(vectors: np.ndarray) -> np.ndarray:
    moved = vectors + 0.03 * np.random.default_rng(9).standard_normal(vectors.shape, np.float32)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def _named(prefix: str, vectors: np.ndarray) -> DescriptorSet:
    return DescriptorSet(ids=[f"{prefix}{row}" for row in range(len(vectors))], vectors=vectors)


if __name__ == "__main__":
    main()
