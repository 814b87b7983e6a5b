"""Pairs within one set against faiss.knn of the set with itself, and the memory it takes."""

import sys

import faiss
import numpy as np

from benchmarks.common import anonymous_mb, cpu_seconds, report
from vit4icd.search import self_pairs
from vit4icd.types import DescriptorSet

N_IMAGES, DIM, N_THREADS, THRESHOLD = 100_000, 512, 2, 0.5
N_COPIES = 20_000  # images that are a slightly changed copy of another


def main() -> None:
    """Measure and print: python -m benchmarks.selfjoin [IMAGES]."""
    n_images = int(sys.argv[1]) if len(sys.argv) > 1 else N_IMAGES
    faiss.omp_set_num_threads(N_THREADS)
    images, bias = _images(n_images), _bias(n_images)
    before = anonymous_mb()
    peak, n_pairs = before, 0

    def watched() -> None:
        nonlocal n_pairs
        n_pairs = len(self_pairs(images, threshold=THRESHOLD, progress=watch))

    def watch(_done: int, _rows: int) -> None:
        nonlocal peak
        peak = max(peak, anonymous_mb())

    plain = cpu_seconds(watched, repeats=1)
    biased = cpu_seconds(lambda: self_pairs(images, threshold=0.3, bias=bias), repeats=1)
    knn = cpu_seconds(
        lambda: faiss.knn(images.vectors, images.vectors, 10, metric=faiss.METRIC_INNER_PRODUCT),
        repeats=1,
    )
    rows: dict[str, float | int | str] = {
        "images x dim": f"{n_images} x {DIM}",
        "threads": N_THREADS,
        "faiss.knn of the set with itself, k=10: CPU s": knn,
        "all pairs from 0.5: CPU s": plain,
        "all pairs from 0.3, normalised: CPU s": biased,
        "pairs found": n_pairs,
        "rate / faiss.knn": knn / plain,
        "rate / faiss.knn, normalised": knn / biased,
        "MB of the set": images.vectors.nbytes / 2**20,
        "MB at most beside it": peak - before,
    }
    report("selfjoin", rows)


def _images(n_images: int) -> DescriptorSet:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n_images, DIM), np.float32)
    n_copies = min(N_COPIES, n_images // 5)
    vectors[-n_copies:] = vectors[:n_copies]
    vectors[-n_copies:] += 0.5 * rng.standard_normal((n_copies, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return DescriptorSet(ids=[str(row) for row in range(n_images)], vectors=vectors)


def _bias(n_images: int) -> np.ndarray:
    return -np.random.default_rng(1).uniform(0.1, 0.3, n_images).astype(np.float32)


if __name__ == "__main__":
    main()
