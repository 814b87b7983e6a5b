"""What searching parts of a query gains and costs; ``python -m benchmarks.regions FOLDER``.

FOLDER holds queries/, references/, ground_truth.csv (query_id,reference_id) and edits.jsonl, whose
"split" tells kinds of queries apart. The queries are searched in a collection of the references,
whole and with ``regions``.
"""

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.common import report
from vit4icd.collection import Answer, Collection
from vit4icd.describer import load_describer
from vit4icd.storage import read_truth

Rows = dict[str, float | int | str]


def main() -> None:
    """Print recall at rank 1 by kind of query, and the time of a query."""
    folder = Path(sys.argv[1])
    found = read_truth(folder / "ground_truth.csv")
    truth = {q: r for q, r in zip(found.queries, found.references, strict=True) if r}
    lines = (folder / "edits.jsonl").read_text("utf-8").splitlines()
    kinds = {fields["query"]: fields["split"] for fields in map(json.loads, lines)}
    rows: Rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        collection = Collection.create(Path(temporary) / "c", describer=load_describer(n_threads=2))
        collection.add(folder / "references", id_from="name", features=False)
        queries = [path for path in sorted((folder / "queries").iterdir()) if path.stem in truth]
        for name, regions in (("whole", False), ("regions", True)):
            started = time.monotonic()
            answers = list(collection.ask(queries, k=1, threshold=-2, regions=regions))
            rows[f"{name}: ms a query"] = 1e3 * (time.monotonic() - started) / len(queries)
            for kind, share in _recall(answers, truth, kinds).items():
                rows[f"{name}: recall at rank 1, {kind}"] = share
    report("regions", rows)


def _recall(
    answers: list[Answer], truth: dict[str, str], kinds: dict[str, str]
) -> dict[str, float]:
    hits = defaultdict(list)
    for answer in answers:
        query = Path(answer.query).stem
        best = Path(answer.matches[0].reference).stem if answer.matches else None
        hits[kinds[query]].append(best == truth[query])
    return {kind: sum(found) / len(found) for kind, found in sorted(hits.items())}


if __name__ == "__main__":
    main()
