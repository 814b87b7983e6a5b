"""The README's commands, run as they stand, on the packaged photographs."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "src" / "vit4icd" / "demo"


def _commands(heading: str) -> list[list[str]]:
    section = (ROOT / "README.md").read_text("utf-8").split(f"## {heading}\n")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines() if line]


def _run(words: list[str], folder: Path, *, ends_with: int = 0) -> str:
    assert words[0] == "vit4icd"
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, env=environment,
        check=False,
    )  # fmt: skip
    assert done.returncode == ends_with, done.stderr
    return done.stdout


@pytest.mark.slow
def test_finds_copies_as_the_readme_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DEMO / "photographs", tmp_path / "my-pictures")
    shutil.copytree(DEMO / "queries", tmp_path / "incoming")
    for words in _commands("Find copies in your own pictures"):
        _run(words, tmp_path)
    truth = dict(
        line.split(",") for line in (DEMO / "truth.csv").read_text("utf-8").splitlines()[1:]
    )
    with (tmp_path / "matches.csv").open(encoding="utf-8") as file:
        found = {
            (Path(row["query"]).stem, Path(row["reference"]).stem) for row in csv.DictReader(file)
        }
    assert len(found & set(truth.items())) >= 13  # of 16 copies
    assert all(truth[query] for query, _ in found)  # the others have no reference
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    exec(block[1], {})
    assert capsys.readouterr().out.startswith("my-pictures/brook.jpg copy p = 1.000")


@pytest.mark.slow
def test_finds_copies_within_folders_and_between_them_as_the_readme_does(tmp_path: Path) -> None:
    shutil.copytree(DEMO / "photographs", tmp_path / "photos")
    shutil.copytree(DEMO / "photographs", tmp_path / "train")
    shutil.copytree(DEMO / "queries", tmp_path / "test")
    shutil.copy(tmp_path / "photos" / "brook.jpg", tmp_path / "photos" / "again.jpg")
    groups, planned, leaks = _commands("Copies within folders, leaks between them")
    assert "again.jpg" in _run(groups, tmp_path)
    before = sorted((tmp_path / "photos").iterdir())
    _run(planned, tmp_path)
    assert sorted((tmp_path / "photos").iterdir()) == before  # only --yes moves
    assert "brook.jpg" in _run(leaks, tmp_path, ends_with=11)
