"""The packaged pictures: complete, small, and judged by the model's own threshold."""

import csv
from pathlib import Path

from tests.conftest import make_model
from vit4icd.demo import run_demo
from vit4icd.demo.run import _FOLDER
from vit4icd.describer import load_describer
from vit4icd.storage import official_id


def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_packs_a_truth_for_every_query() -> None:
    queries = {official_id(path.name) for path in (_FOLDER / "queries").iterdir()}
    photographs = {official_id(path.name) for path in (_FOLDER / "photographs").iterdir()}
    assert {row["query_id"] for row in _rows("truth.csv")} == queries
    assert {row["query_id"] for row in _rows("edits.csv")} == queries
    named = {row["reference_id"] for row in _rows("truth.csv")} - {""}
    assert named < photographs
    assert len(named) == 16


def test_weighs_little() -> None:
    assert sum(path.stat().st_size for path in _FOLDER.rglob("*.jpg")) < 4 * 2**20


def test_judges_by_the_models_threshold(tmp_path: Path) -> None:
    """A model that knows nothing still gets a page, and verdicts that follow the threshold."""
    model = make_model(tmp_path / "model")
    told: list[tuple[int, int]] = []
    result = run_demo(
        tmp_path / "out", load_describer(model), progress=lambda *state: told.append(state)
    )
    assert len(result.rows) == 22
    assert all((row.score >= 0.5) == (row.verdict == "copy") for row in result.rows)
    assert [row.score for row in result.rows] == sorted(
        (r.score for r in result.rows), reverse=True
    )
    assert result.report.exists()
    assert told[-1] == (22, 22)
