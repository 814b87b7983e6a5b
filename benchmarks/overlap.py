"""Proof of copies on a development set; ``python -m benchmarks.overlap FOLDER [N_UNRELATED]``.

FOLDER is laid out as for benchmarks.devset. Every true pair is tried, and random unrelated pairs of
query and reference; beside them look-alikes: each query with the five unrelated references that the
packaged model holds nearest. Then the model's ten best references of each query are ranked again by
their proofs. References are read from the bytes that a collection stores. Times are CPU time of one
thread.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import report
from vit4icd.describer import load_describer
from vit4icd.evaluate import evaluate
from vit4icd.images import read_image
from vit4icd.matches import Match, rank_key
from vit4icd.overlap import LocalFeatures, Overlap, find_overlap, local_features
from vit4icd.scale import Scale
from vit4icd.storage import read_truth
from vit4icd.types import Pairs, Truth

_N_ALIKE, _N_RANKED = 5, 10

Pair = tuple[str, str]


def main() -> None:
    """Print how many true pairs are proven, how many others are, how exactly, and how fast."""
    folder = Path(sys.argv[1])
    n_unrelated = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    cv2.setNumThreads(1)
    prover = _Prover(folder)
    truth = read_truth(folder / "ground_truth.csv")
    true = list(zip(truth.queries, truth.references, strict=True))
    rows: dict[str, float | int | str] = {
        "kB stored for a picture": prover.kilobytes(),
        "ms for the features of a picture": prover.feature_ms,
    }
    rows |= _of_true_pairs(prover, true, _notes(folder / "edits.jsonl"))
    scores = _Scores(prover)
    sets = {
        "random": _random(prover, set(true), n_unrelated),
        "look-alike": scores.look_alikes(set(true)),
    }
    for name, pairs in sets.items():
        overlaps, ms = prover.tried(pairs)
        n_wrong = sum(overlap is not None for overlap in overlaps)
        rows[f"{name} pairs proven"] = f"{n_wrong} of {len(pairs)}"
        rows[f"ms for a {name} pair"] = ms
    rows |= scores.ranked(truth)
    report("overlap", rows)


class _Prover:
    """Local features of all queries and, as stored, of all references."""

    def __init__(self, folder: Path) -> None:
        self.paths = {
            role: {path.stem: path for path in sorted((folder / role).glob("*.jpg"))}
            for role in ("queries", "references")
        }
        started = time.process_time()
        features = {
            role: {name: local_features(read_image(path)) for name, path in paths.items()}
            for role, paths in self.paths.items()
        }
        n_pictures = sum(map(len, self.paths.values()))
        self.feature_ms = 1000 * (time.process_time() - started) / n_pictures
        self.queries = features["queries"]
        self.stored = {name: one.to_bytes() for name, one in features["references"].items()}
        self.references = {
            name: LocalFeatures.from_bytes(data) for name, data in self.stored.items()
        }

    def kilobytes(self) -> float:
        return float(np.mean([len(data) for data in self.stored.values()])) / 1000

    def tried(self, pairs: list[Pair]) -> tuple[list[Overlap | None], float]:
        started = time.process_time()
        found = [find_overlap(self.queries[q], self.references[r]) for q, r in pairs]
        return found, 1000 * (time.process_time() - started) / max(len(pairs), 1)


def _of_true_pairs(
    prover: _Prover,
    true: list[Pair],
    notes: dict[str, dict],  # type: ignore[type-arg]
) -> dict[str, float | int | str]:
    found, ms = prover.tried(true)
    kinds = np.array([notes[query]["split"] if query in notes else "all" for query, _ in true])
    proven = np.array([overlap is not None for overlap in found])
    rows: dict[str, float | int | str] = {
        f"{kind} pairs proven, share of {(kinds == kind).sum()}": float(
            proven[kinds == kind].mean()
        )
        for kind in sorted(set(kinds))
    }
    rows["ms for a true pair"] = ms
    ious = [
        _iou(overlap.query_polygon, notes[query]["region"])
        for (query, _), overlap in zip(true, found, strict=True)
        if overlap is not None and "region" in notes.get(query, {})
    ]
    for name, share in (("median", 0.5), ("lowest quarter", 0.25), ("lowest tenth", 0.1)):
        if ious:
            rows[f"IoU of the region, {name}"] = float(np.quantile(ious, share))
    return rows


class _Scores:
    """Similarities and scores of all pairs by the packaged model."""

    def __init__(self, prover: _Prover) -> None:
        describer = load_describer(n_threads=1)
        vectors = {
            role: np.concatenate(
                [describer.describe_images([read_image(p)]) for p in paths.values()]
            )
            for role, paths in prover.paths.items()
        }
        self.prover = prover
        self.queries, self.references = list(prover.queries), list(prover.references)
        scale = Scale(describer=describer, n_chances=len(self.references))
        self.scores = vectors["queries"] @ vectors["references"].T
        self.scores += scale.bias(vectors["queries"])[:, None]

    def look_alikes(self, true: set[Pair]) -> list[Pair]:
        pairs = []
        for row, query in enumerate(self.queries):
            names = [self.references[column] for column in np.argsort(-self.scores[row])]
            wrong = [(query, name) for name in names[: _N_ALIKE + 1] if (query, name) not in true]
            pairs += wrong[:_N_ALIKE]
        return pairs

    def ranked(self, truth: Truth) -> dict[str, float | int | str]:
        """Measure the ranking of each query's best references, by scores and then by proofs."""
        nearest = np.argsort(-self.scores, axis=1)[:, :_N_RANKED]
        matches = [
            _match(query, self.references[n], float(self.scores[row, n]), self.prover)
            for row, query in enumerate(self.queries)
            for n in nearest[row]
        ]
        worth = {"by score": [match.score for match in matches]}
        worth["by proof"] = [-10.0 * rank_key(match)[0] - rank_key(match)[1] for match in matches]
        rows: dict[str, float | int | str] = {}
        for name, scores in worth.items():
            pairs = Pairs(
                queries=[match.query for match in matches],
                references=[match.reference for match in matches],
                scores=np.array(scores),
            )
            figures = evaluate(pairs, truth, n_resamples=0, bootstrap_rng=np.random.default_rng(0))
            rows[f"best ten {name}: µAP"] = figures.average_precision
            rows[f"best ten {name}: recall at P90"] = figures.recall_at_p90 or 0.0
            rows[f"best ten {name}: recall at rank 1"] = figures.recall_at_rank_1
        return rows


def _match(query: str, reference: str, score: float, prover: _Prover) -> Match:
    return Match(
        query=query,
        reference=reference,
        similarity=score,
        score=score,
        probability=None,
        verdict="similar",
        overlap=find_overlap(prover.queries[query], prover.references[reference]),
        verified=True,
    )


def _random(prover: _Prover, true: set[Pair], n_pairs: int) -> list[Pair]:
    pair_rng, pairs = np.random.default_rng(0), dict[Pair, None]()
    queries, references = list(prover.queries), list(prover.references)
    while len(pairs) < n_pairs:
        pair = str(pair_rng.choice(queries)), str(pair_rng.choice(references))
        if pair not in true:
            pairs[pair] = None
    return list(pairs)


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
