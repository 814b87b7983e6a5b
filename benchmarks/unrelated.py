"""Unrelated pictures taken for copies; ``python -m benchmarks.unrelated PICTURES [N_PAIRS]``.

1,200 pictures of a folder or of tar shards are drawn and paired at random. Every pair that is
proven is named, to be looked at: some are copies of each other.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import report
from vit4icd.datasets import open_images
from vit4icd.images import read_image
from vit4icd.overlap import find_overlap, local_features

_N_PICTURES = 1_200


def main() -> None:
    """Print how many pairs are proven, and which."""
    pictures = open_images([Path(sys.argv[1])])
    n_pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 40_000
    cv2.setNumThreads(1)
    pair_rng = np.random.default_rng(11)
    drawn = [int(row) for row in pair_rng.permutation(len(pictures))[:_N_PICTURES]]
    features = [local_features(read_image(pictures.read(row))) for row in drawn]
    tried: set[tuple[int, int]] = set()
    n_proven = 0
    while len(tried) < min(n_pairs, len(drawn) * (len(drawn) - 1) // 2):
        one, other = (int(place) for place in pair_rng.integers(0, len(drawn), 2))
        if one == other or (one, other) in tried or (other, one) in tried:
            continue
        tried.add((one, other))
        if find_overlap(features[one], features[other]) is not None:
            n_proven += 1
            print("proven:", pictures.names[drawn[one]], pictures.names[drawn[other]])
    report("unrelated", {"pictures": len(drawn), "pairs proven": f"{n_proven} of {len(tried)}"})


if __name__ == "__main__":
    main()
