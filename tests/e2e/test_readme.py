"""The README's commands, run as they stand, on the packaged photographs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vit4icd.storage import read_pairs

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "src" / "vit4icd" / "demo"


def _commands(heading: str) -> list[list[str]]:
    section = (ROOT / "README.md").read_text("utf-8").split(f"## {heading}\n")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines() if line]


def test_compares_two_pictures_as_the_readme_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DEMO / "photographs" / "cat.jpg", tmp_path / "a.jpg")
    shutil.copy(DEMO / "photographs" / "cat.jpg", tmp_path / "b.jpg")
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    exec(block[1], {})
    assert capsys.readouterr().out.startswith("similarity 1.000, copy above 0.")


def _run(words: list[str], folder: Path) -> None:
    assert words[0] == "vit4icd"
    environment = {**os.environ, "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, check=True, capture_output=True, env=environment
    )


@pytest.mark.slow
def test_finds_copies_by_the_readmes_commands(tmp_path: Path) -> None:
    shutil.copytree(DEMO / "photographs", tmp_path / "my-collection")
    shutil.copytree(DEMO / "queries", tmp_path / "incoming")
    for words in _commands("Find copies in your own pictures"):
        _run(words, tmp_path)
    truth = dict(
        line.split(",") for line in (DEMO / "truth.csv").read_text("utf-8").splitlines()[1:]
    )
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert len(pairs) == len(truth)
    found = sum(
        truth[Path(query).stem] == Path(reference).stem
        for query, reference in zip(pairs.queries, pairs.references, strict=True)
    )
    assert found >= 13  # of 16 copies; the others have no reference
