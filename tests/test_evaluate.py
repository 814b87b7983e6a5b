"""The report: its protocol, its page and its worst pairs."""

import json

import numpy as np
import pytest

from tests.test_metrics import GOLDEN_PAIRS, GOLDEN_TRUTH
from vit4icd.errors import DataError
from vit4icd.evaluate import Report, evaluate, evaluation_page, only_after
from vit4icd.types import Pairs, Truth


@pytest.fixture
def report(rng: np.random.Generator) -> Report:
    return evaluate(GOLDEN_PAIRS, GOLDEN_TRUTH, bootstrap_rng=rng, n_resamples=20)


def test_names_the_protocol_beside_the_figures(report: Report) -> None:
    assert "7 pairs" in report.protocol
    assert "5 true pairs" in report.protocol
    assert "all queries" in report.protocol


def test_recognises_the_published_truth(rng: np.random.Generator) -> None:
    queries = [f"Q{row:05d}" for row in range(25_001, 30_009)]
    references = [f"R{row:06d}" for row in range(5_008)]

    def protocol(queries: list[str], references: list[str]) -> str:
        truth = Truth(queries=queries, references=references)
        pairs = Pairs(queries=queries[:9], references=references[:9], scores=np.ones(9))
        return evaluate(pairs, truth, bootstrap_rng=rng, n_resamples=0).protocol

    assert "as ViT4ICD published it" in protocol(queries, references)
    for own in (
        protocol([*queries[1:], "Q1"], references),
        protocol(queries, [*references[1:], "mine.jpg"]),
    ):
        assert "5,008 true pairs;" in own


def test_keeps_queries_after_an_id_in_string_order() -> None:
    pairs = Pairs(queries=["Q25000", "Q25001", "Q3"], references=["a", "b", "c"], scores=np.ones(3))
    truth = Truth(queries=["Q25000", "Q25001"], references=["a", "b"])
    kept, known = only_after(pairs, truth, "Q25000")
    assert list(kept.queries) == ["Q25001", "Q3"]
    assert list(known.queries) == ["Q25001"]


def test_lists_the_worst_wrong_and_missed_pairs(report: Report) -> None:
    assert [(w.query, w.reference) for w in report.false_positives[:2]] == [
        ("Q7", "R5"),
        ("Q2", "R9"),
    ]
    assert [(w.query, w.score, w.rank) for w in report.misses[:2]] == [
        ("Q4", None, None),
        ("Q3", 0.5, 1),
    ]


def test_gives_json_that_reads_back(report: Report) -> None:
    fields = json.loads(json.dumps(report.to_json()))
    assert fields["format_version"] == 1
    assert fields["average_precision"] == pytest.approx(0.56762, abs=5e-6)
    assert len(fields["misses"]) == 5


def test_gives_the_same_intervals_for_the_same_seed() -> None:
    one, other = (
        evaluate(GOLDEN_PAIRS, GOLDEN_TRUTH, bootstrap_rng=np.random.default_rng(3))
        for _ in range(2)
    )
    assert one.intervals == other.intervals


def test_draws_a_page_without_scripts_that_escapes_ids(rng: np.random.Generator) -> None:
    pairs = Pairs(queries=["<script>"], references=["&x"], scores=np.array([1.0]))
    truth = Truth(queries=["q"], references=["r"])
    page = evaluation_page(evaluate(pairs, truth, bootstrap_rng=rng, n_resamples=0))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&amp;x" in page


def test_shows_pictures_where_they_are_found(report: Report, rng: np.random.Generator) -> None:
    picture = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)

    def find(name: str) -> np.ndarray:
        if name == "Q4":
            raise DataError("no such picture")
        return picture

    page = evaluation_page(report, query_picture=find, reference_picture=find)
    assert page.count("data:image/jpeg;base64") == 2 * (3 + 5) - 1
    assert "no picture" in page


def test_refuses_more_pairs_than_the_protocol_allows(rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match="too many predictions"):
        evaluate(GOLDEN_PAIRS, GOLDEN_TRUTH, max_pairs=3, bootstrap_rng=rng)
