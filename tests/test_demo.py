"""The packaged pictures: complete, small, and found in a collection."""

import csv
from pathlib import Path

import pytest

from tests.conftest import make_model
from vit4icd.demo import run_demo
from vit4icd.demo.run import _FOLDER
from vit4icd.describer import load_describer
from vit4icd.errors import ConfigError
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


def test_takes_away_no_collection_but_an_earlier_demos(tmp_path: Path) -> None:
    precious = tmp_path / "collection" / "holiday.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    with pytest.raises(ConfigError, match="choose another --out"):
        run_demo(tmp_path, load_describer(n_threads=1))
    assert precious.read_text() == "mine"


def test_finds_what_is_there(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    result = run_demo(
        tmp_path / "out", load_describer(n_threads=1), progress=lambda *state: told.append(state)
    )
    assert len(result.rows) == 22
    assert sum(row.is_right for row in result.rows) >= 20
    assert all(row.is_right for row in result.rows if row.verdict != "none")
    assert f"of {16} copies among 22 pictures, 0 false alarms" in result.headline
    assert result.report.exists()
    assert told[-1] == (22, 22)


def test_gives_a_page_whatever_the_model_knows(tmp_path: Path) -> None:
    """A model that knows nothing finds little, and the demo runs again over what is there."""
    model = load_describer(make_model(tmp_path / "model"))
    for _ in range(2):
        result = run_demo(tmp_path / "out", model)
        assert len(result.rows) == 22
        assert result.report.exists()
