"""Copies among the pictures of a development set, all references and queries thrown together.

python -m benchmarks.dedup FOLDER, which holds queries/, references/, ground_truth.csv and, if there
is one, edits.jsonl, which says how each query was made.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from vit4icd.dedup import Duplicates, find_duplicates
from vit4icd.describer import load_describer
from vit4icd.storage import official_id, read_truth


def main() -> None:
    """Print what was found, without and with proof; the cache is kept between the two."""
    folder = Path(sys.argv[1])
    truth = read_truth(folder / "ground_truth.csv")
    copies = set(map(frozenset, zip(truth.queries, truth.references, strict=True)))
    describer, inputs = load_describer(), [folder / "references", folder / "queries"]
    with tempfile.TemporaryDirectory() as cache:
        for verify in (False, True):
            started = time.monotonic()
            found = find_duplicates(inputs, Path(cache), describer, verify=verify)
            kinds = _kinds(found, copies, _edits(folder / "edits.jsonl"))
            seconds = time.monotonic() - started
            print(f"\n{'with' if verify else 'without'} proof, {seconds:.0f} s")
            print(f"  groups {len(found.groups)}, spare files {found.n_spare}")
            print(f"  labelled copies {kinds['copy']} of {len(copies)}")
            for kind in ("same frame", "same host", "other", "linked"):
                print(f"  {kind} {kinds[kind]}")


def _kinds(
    found: Duplicates, copies: set[frozenset[str]], edits: dict[str, dict[str, object]]
) -> Counter[str]:
    """Count spare files by what they have to do with the kept one."""
    kinds: Counter[str] = Counter()
    for group in found.groups:
        for member in group.spare:
            match = member.match
            if match is None:
                kinds["linked"] += 1
                continue
            pair = frozenset(official_id(name) for name in (match.query, match.reference))
            kinds["copy" if pair in copies else _kind([edits.get(name) for name in pair])] += 1
    return kinds


def _kind(made: list[dict[str, object] | None]) -> str:
    """Tell pairs that share what a copy was pasted into from the others."""
    if all(edit is not None and "screenshot" in str(edit["ops"]) for edit in made):
        return "same frame"
    if all(edit is not None and edit["split"] == "hide" for edit in made):
        return "same host"
    return "other"


def _edits(path: Path) -> dict[str, dict[str, object]]:
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return {line["query"]: line for line in lines}


if __name__ == "__main__":
    main()
