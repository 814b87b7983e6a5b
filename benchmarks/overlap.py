"""Proof of copies on a development set; ``python -m benchmarks.overlap FOLDER [N_UNRELATED]``.

FOLDER is laid out as for benchmarks.devset. Every true pair is tried, and random unrelated pairs of
query and reference; beside them look-alikes: each query with the unrelated reference that the
packaged model holds nearest. Times are CPU time of one thread.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import faiss
import numpy as np

from vit4icd.describer import load_describer
from vit4icd.images import read_image
from vit4icd.overlap import LocalFeatures, Overlap, find_overlap, local_features
from vit4icd.storage import read_truth

Pair = tuple[str, str]


def main() -> None:
    """Print how many true pairs are proven, how many others are, how exactly, and how fast."""
    folder = Path(sys.argv[1])
    n_unrelated = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    queries, references = _Pictures(folder / "queries"), _Pictures(folder / "references")
    truth = read_truth(folder / "ground_truth.csv")
    true = list(zip(truth.queries, truth.references, strict=True))
    notes = _notes(folder / "edits.jsonl")

    n_pictures = len(queries) + len(references)
    n_bytes = [len(features.to_bytes()) for features in references.features.values()]
    feature_ms = 1000 * (queries.seconds + references.seconds) / n_pictures
    print(f"features of one picture: {feature_ms:.0f} ms, {np.mean(n_bytes) / 1000:.1f} kB")
    found, seconds = _tried(true, queries, references)
    kinds = np.array([notes[query]["split"] if query in notes else "all" for query, _ in true])
    proven = np.array([overlap is not None for overlap in found])
    for kind in sorted(set(kinds)):
        print(f"proven of {(kinds == kind).sum()} {kind} pairs: {proven[kinds == kind].mean():.3f}")
    print(f"one pair: {1000 * seconds:.1f} ms (true pairs)")
    sets = {
        "random": _random(true, queries, references, n_unrelated),
        "look-alike": _look_alikes(true, queries, references),
    }
    for name, pairs in sets.items():
        overlaps, seconds = _tried(pairs, queries, references)
        n_wrong = sum(overlap is not None for overlap in overlaps)
        print(f"proven of {len(pairs)} {name} pairs: {n_wrong}; {1000 * seconds:.1f} ms a pair")
    ious = [
        _iou(overlap.query_polygon, notes[query]["region"])
        for (query, _), overlap in zip(true, found, strict=True)
        if overlap is not None and "region" in notes.get(query, {})
    ]
    if ious:
        quartiles = np.quantile(ious, [0.1, 0.25, 0.5])
        print("IoU of the region, 10 %, 25 %, 50 %: " + "  ".join(f"{q:.3f}" for q in quartiles))


class _Pictures:
    """A folder's pictures by stem, with their local features and descriptors."""

    def __init__(self, folder: Path) -> None:
        self.paths = {path.stem: path for path in sorted(folder.glob("*.jpg"))}
        self.names = list(self.paths)
        started = time.process_time()
        self.features: dict[str, LocalFeatures] = {
            name: local_features(read_image(path)) for name, path in self.paths.items()
        }
        self.seconds = time.process_time() - started

    def __len__(self) -> int:
        return len(self.paths)

    def vectors(self) -> np.ndarray:
        describer = load_describer(n_threads=2)
        pictures = (read_image(path) for path in self.paths.values())
        return np.concatenate([describer.describe_images([picture]) for picture in pictures])


def _tried(
    pairs: list[Pair], queries: _Pictures, references: _Pictures
) -> tuple[list[Overlap | None], float]:
    started = time.process_time()
    found = [find_overlap(queries.features[q], references.features[r]) for q, r in pairs]
    return found, (time.process_time() - started) / max(len(pairs), 1)


def _random(
    true: list[Pair], queries: _Pictures, references: _Pictures, n_pairs: int
) -> list[Pair]:
    rng, known = np.random.default_rng(0), set(true)
    pairs: dict[Pair, None] = {}
    while len(pairs) < n_pairs:
        pair = str(rng.choice(queries.names)), str(rng.choice(references.names))
        if pair not in known:
            pairs[pair] = None
    return list(pairs)


def _look_alikes(true: list[Pair], queries: _Pictures, references: _Pictures) -> list[Pair]:
    scores = queries.vectors() @ references.vectors().T
    for query, reference in true:
        scores[queries.names.index(query), references.names.index(reference)] = -np.inf
    nearest = scores.argmax(axis=1)
    return [(q, references.names[n]) for q, n in zip(queries.names, nearest, strict=True)]


def _iou(polygon: np.ndarray, box: list[float]) -> float:
    left, top, right, bottom = box
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    common, _ = cv2.intersectConvexConvex(polygon.astype(np.float32), corners)
    area = cv2.contourArea(polygon.astype(np.float32))
    return float(common / (area + cv2.contourArea(corners) - common))


def _notes(path: Path) -> dict[str, dict]:  # type: ignore[type-arg]
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {fields["query"]: fields for fields in lines}


if __name__ == "__main__":
    main()
