"""Pairs of the original score normalisation tool, on its own inputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DATA
from vit4icd.errors import DataError
from vit4icd.scores import Normalised, ScoreNormalisation, normalise
from vit4icd.search import best_pairs
from vit4icd.storage import read_pairs, write_pairs
from vit4icd.types import DescriptorSet, Pairs

FOLDER = DATA / "oracle" / "score_norm"
CASES = ("all_pairs", "avg_f0", "avg_f2_n10", "exact_all_pairs", "min_f1_n5", "chunked_files")
ONE_SHORT = ("single_batch_scaleback", "read_norms")  # the original loses one of its K rows


def _inputs(case: str) -> tuple[dict[str, Any], DescriptorSet, list[DescriptorSet], DescriptorSet]:
    expected = json.loads((FOLDER / f"{case}.expected.json").read_text())
    stored = np.load(FOLDER / f"{case}.inputs.npz")
    queries = DescriptorSet(
        ids=[f"Q{row:05d}" for row in range(len(stored["xq"]))], vectors=stored["xq"]
    )
    cut = len(stored["xb"]) // 3
    ids = [f"R{row:06d}" for row in range(len(stored["xb"]))]
    references = [
        DescriptorSet(ids=ids[:cut], vectors=stored["xb"][:cut]),
        DescriptorSet(ids=ids[cut:], vectors=stored["xb"][cut:]),
    ]
    background = DescriptorSet(
        ids=[f"T{row}" for row in range(len(stored["xt"]))], vectors=stored["xt"]
    )
    return expected, queries, references, background


def _ours(case: str) -> Pairs:
    expected, queries, references, background = _inputs(case)
    arguments = expected["args"]
    if case == "read_norms":
        norms = np.load(FOLDER / f"{case}.inputs.npz")["norms"].astype(np.float32)
        prepared = Normalised(queries=queries, bias=norms)
    else:
        config = ScoreNormalisation(
            reduction=arguments.get("reduction", "min"),
            factor=float(arguments.get("factor", 1.0)),
            neighbours=arguments["n"],
        )
        prepared = normalise(queries, background, config=config)
    return best_pairs(
        prepared.queries,
        references,
        bias=prepared.bias,
        max_pairs=arguments.get("max_results", 500_000),
    )


@pytest.mark.parametrize("case", CASES)
def test_finds_the_same_pairs_in_the_same_order(case: str, tmp_path: Path) -> None:
    ours, theirs = _ours(case), read_pairs(FOLDER / f"{case}.predictions.csv")
    assert list(zip(ours.queries, ours.references, strict=True)) == list(
        zip(theirs.queries, theirs.references, strict=True)
    )
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-6)
    write_pairs(tmp_path / "pairs.csv", ours)
    header = (tmp_path / "pairs.csv").read_text().splitlines()[0]
    assert header == "query_id,ref_id,score"


@pytest.mark.parametrize("case", ONE_SHORT)
def test_keeps_exactly_k_pairs_where_the_original_loses_one(case: str) -> None:
    ours, theirs = _ours(case), read_pairs(FOLDER / f"{case}.predictions.csv")
    assert len(ours) == 100
    assert len(theirs) == 99
    scores = dict(zip(zip(ours.queries, ours.references, strict=True), ours.scores, strict=True))
    for query, reference, score in zip(
        theirs.queries, theirs.references, theirs.scores, strict=True
    ):
        assert scores[query, reference] == pytest.approx(score, abs=2e-6)


def test_finds_the_same_scores_where_pairs_tie() -> None:
    theirs = read_pairs(FOLDER / "ties_duplicates.predictions.csv")
    ours = _ours("ties_duplicates")
    np.testing.assert_allclose(np.sort(ours.scores), np.sort(theirs.scores), atol=2e-6)


def test_refuses_a_background_smaller_than_the_neighbours() -> None:
    with pytest.raises(DataError, match="neighbours"):
        _ours("train_smaller_than_n")
