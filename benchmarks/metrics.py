"""The measures of 500,000 pairs, against sorting their scores once; floor: 1 second of CPU."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import cpu_seconds, report
from vit4icd.evaluate import evaluate
from vit4icd.storage import read_pairs, write_pairs
from vit4icd.types import Pairs, Truth

N_PAIRS, N_QUERIES = 500_000, 25_000


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    queries = [f"Q{number:05d}" for number in rng.integers(0, N_QUERIES, N_PAIRS)]
    references = [f"R{number:06d}" for number in rng.permutation(1_000_000)[:N_PAIRS]]
    pairs = Pairs(queries=queries, references=references, scores=rng.standard_normal(N_PAIRS))
    chosen = rng.permutation(N_PAIRS)[:5_008]
    truth = Truth(
        queries=[queries[row] for row in chosen], references=[references[row] for row in chosen]
    )

    def measure(n_resamples: int) -> None:
        evaluate(pairs, truth, n_resamples=n_resamples, bootstrap_rng=np.random.default_rng(0))

    sort = cpu_seconds(lambda: np.argsort(-pairs.scores))
    figures = cpu_seconds(lambda: measure(0))
    intervals = cpu_seconds(lambda: measure(200), repeats=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        write = cpu_seconds(lambda: write_pairs(path, pairs), repeats=1)
        read = cpu_seconds(lambda: read_pairs(path), repeats=1)
    report(
        "metrics",
        {
            "pairs": N_PAIRS,
            "figures: CPU s": figures,
            "figures and 200 resamples: CPU s": intervals,
            "figures / one argsort": figures / sort,
            "write the CSV: CPU s": write,
            "read the CSV: CPU s": read,
        },
    )


if __name__ == "__main__":
    main()
