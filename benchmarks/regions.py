"""What parts of queries and references gain and cost; ``python -m benchmarks.regions FOLDER``.

FOLDER holds queries/, references/, ground_truth.csv (query_id,reference_id) and edits.jsonl, whose
"split" tells kinds of queries apart; a third kind, "part", is cut out of references here, 0.3 to
0.5 of their sides. The queries are searched whole and in parts, in a collection of the references
whole and in one that has their parts, too.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np

from benchmarks.common import QUALITY, report
from vit4icd.collection import Answer, Collection
from vit4icd.describer import load_describer
from vit4icd.images import read_image, write_image
from vit4icd.storage import read_truth

Rows = dict[str, float | int | str]

N_THREADS = 2
N_CUT = 200


def main() -> None:
    """Print recall at rank 1 by kind of query, the time of a query, and what is stored."""
    folder, rows = Path(sys.argv[1]), Rows()
    describer = load_describer(n_threads=N_THREADS)
    found = read_truth(folder / "ground_truth.csv")
    truth = {q: r for q, r in zip(found.queries, found.references, strict=True) if r}
    lines = (folder / "edits.jsonl").read_text("utf-8").splitlines()
    kinds = {fields["query"]: fields["split"] for fields in map(json.loads, lines)}
    queries = [path for path in sorted((folder / "queries").iterdir()) if path.stem in truth]
    with tempfile.TemporaryDirectory() as temporary:
        for path, reference in _cut(folder / "references", Path(temporary)).items():
            queries.append(path)
            truth[path.stem], kinds[path.stem] = reference, "part"
        for name, regions in (("whole references", False), ("parts of references", True)):
            collection = Collection.create(Path(temporary) / name, describer=describer)
            rows |= _added(collection, folder / "references", name, regions=regions)
            rows |= _searched(collection, queries, name, truth, kinds)
    report("regions", rows)


def _cut(references: Path, folder: Path) -> dict[Path, str]:
    """Write a rectangle of each of the first references; return whose each is."""
    cut_rng, found = np.random.default_rng(0), dict[Path, str]()
    for path in sorted(references.iterdir())[:N_CUT]:
        image, share = read_image(path), cut_rng.uniform(0.3, 0.5, 2)
        height, width = (share * image.shape[:2]).astype(int)
        top, left = (cut_rng.uniform(0, 1 - share) * image.shape[:2]).astype(int)
        cut = np.ascontiguousarray(image[top : top + height, left : left + width])
        found[folder / f"part-{path.stem}.jpg"] = path.stem
        write_image(folder / f"part-{path.stem}.jpg", cut, suffix=".jpg", quality=QUALITY)
    return found


def _added(collection: Collection, references: Path, name: str, *, regions: bool) -> Rows:
    summary = collection.add(references, id_from="name", features=False, regions=regions)
    collection.compact(keep=timedelta(0))
    n_bytes = sum(file.stat().st_size for file in Path(collection.uri).rglob("*"))
    return {
        f"{name}: descriptors a picture": 1 + collection.info().n_parts / len(collection),
        f"{name}: ms to add a picture": 1e3 / summary.images_per_s,
        f"{name}: bytes a picture, without local features": n_bytes // len(collection),
    }


def _searched(
    collection: Collection,
    queries: Sequence[Path],
    name: str,
    truth: Mapping[str, str],
    kinds: Mapping[str, str],
) -> Rows:
    rows = Rows()
    list(collection.ask(queries[:1], k=1, threshold=-2))  # reads the descriptors
    for label, regions in (("whole queries", False), ("parts of queries", True)):
        started = time.monotonic()
        answers = list(collection.ask(queries, k=1, threshold=-2, regions=regions))
        seconds = time.monotonic() - started
        rows[f"{name}, {label}: ms a query"] = 1e3 * seconds / len(queries)
        for kind, share in _recall(answers, truth, kinds).items():
            rows[f"{name}, {label}: recall at rank 1, {kind}"] = share
    return rows


def _recall(
    answers: Sequence[Answer], truth: Mapping[str, str], kinds: Mapping[str, str]
) -> dict[str, float]:
    hits = defaultdict(list)
    for answer in answers:
        query = Path(answer.query).stem
        best = Path(answer.matches[0].reference).stem if answer.matches else None
        hits[kinds[query]].append(best == truth[query])
    return {kind: sum(found) / len(found) for kind, found in sorted(hits.items())}


if __name__ == "__main__":
    main()
