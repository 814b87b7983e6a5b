"""A model beside perceptual hashes on a development set; ``python -m benchmarks.devset FOLDER``.

FOLDER holds queries/, references/, background/, ground_truth.csv (query_id,reference_id) and, if
it is there, edits.jsonl whose "split" tells kinds of queries apart. The hashes need the packages
imagehash and pdqhash, which nothing else here needs; without them their rows are left out.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vit4icd.describer import load_describer
from vit4icd.evaluate import evaluate
from vit4icd.extract import describe
from vit4icd.scores import Normalised, ScoreNormalisation, normalise
from vit4icd.search import best_pairs
from vit4icd.storage import read_descriptors, read_truth
from vit4icd.types import DescriptorSet, Pairs, Truth

ROLES = ("queries", "references", "background")
Sets = dict[str, DescriptorSet]


def main() -> None:
    """Print one table: each describer with and without score normalisation."""
    folder = Path(sys.argv[1])
    model = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    truth = read_truth(folder / "ground_truth.csv")
    kinds = _kinds(folder / "edits.jsonl")
    print(
        f"{'describer':<22}{'SN':>4}  µAP    R@P90  R@1    " + "  ".join(f"{k:<6}" for k in kinds)
    )
    for name, sets in _describers(folder, model):
        for normalised in (False, True):
            pairs = _match(sets, normalised=normalised)
            cells = [*_figures(pairs, truth)]
            cells += [_figures(*_only(pairs, truth, queries))[0] for queries in kinds.values()]
            text = "  ".join(f"{cell:.3f}" for cell in cells)
            print(f"{name:<22}{'yes' if normalised else 'no':>4}  {text}", flush=True)


def _describers(folder: Path, model: Path | None) -> list[tuple[str, Sets]]:
    rows = [("vit4icd", _with_model(folder, model))]
    for name, signs in _hashes().items():
        rows.append((name, {role: _hashed(folder / role, signs) for role in ROLES}))
    return rows


def _with_model(folder: Path, model: Path | None) -> Sets:
    describer = load_describer(model, n_threads=2)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        for role in ROLES:
            describe([folder / role], out / f"{role}.h5", describer)
        return {role: _in_memory(read_descriptors(out / f"{role}.h5")) for role in ROLES}


def _in_memory(descriptors: DescriptorSet) -> DescriptorSet:
    return DescriptorSet(ids=descriptors.ids, vectors=np.array(descriptors.vectors))


def _hashes() -> dict[str, Callable[[Image.Image], np.ndarray]]:
    """Return hashes as functions to +-1 signs, so that the inner product counts equal bits."""
    found: dict[str, Callable[[Image.Image], np.ndarray]] = {}
    try:
        import imagehash

        found["pHash, 64 bit"] = lambda image: imagehash.phash(image).hash.ravel() * 2.0 - 1
    except ImportError:
        print("imagehash is not installed: no row for pHash", file=sys.stderr)
    try:
        import pdqhash

        found["PDQ, 256 bit"] = lambda image: pdqhash.compute(np.asarray(image))[0] * 2.0 - 1
    except ImportError:
        print("pdqhash is not installed: no row for PDQ", file=sys.stderr)
    return found


def _hashed(folder: Path, signs: Callable[[Image.Image], np.ndarray]) -> DescriptorSet:
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    rows = [signs(Image.open(path).convert("RGB")) for path in paths]
    vectors = np.stack(rows).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return DescriptorSet(ids=[path.stem for path in paths], vectors=vectors)


def _match(sets: Sets, *, normalised: bool) -> Pairs:
    prepared = Normalised.unchanged(sets["queries"])
    if normalised:
        config = ScoreNormalisation(factor=1.0, neighbours=10)
        prepared = normalise(sets["queries"], sets["background"], config=config)
    return best_pairs(
        prepared.queries, sets["references"], bias=prepared.bias, max_pairs=10_000_000
    )


def _figures(pairs: Pairs, truth: Truth) -> tuple[float, float, float]:
    report = evaluate(
        pairs,
        truth,
        max_pairs=10_000_000,
        n_resamples=0,
        bootstrap_rng=np.random.default_rng(0),
    )
    return report.average_precision, report.recall_at_p90 or 0.0, report.recall_at_rank_1


def _only(pairs: Pairs, truth: Truth, queries: set[str]) -> tuple[Pairs, Truth]:
    rows = [row for row, query in enumerate(pairs.queries) if query in queries]
    known = [row for row, query in enumerate(truth.queries) if query in queries]
    return (
        Pairs(
            queries=[pairs.queries[row] for row in rows],
            references=[pairs.references[row] for row in rows],
            scores=pairs.scores[rows],
        ),
        Truth(
            queries=[truth.queries[row] for row in known],
            references=[truth.references[row] for row in known],
        ),
    )


def _kinds(path: Path) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            fields = json.loads(line)
            kinds.setdefault(fields["split"], set()).add(fields["query"])
    return dict(sorted(kinds.items()))


if __name__ == "__main__":
    main()
