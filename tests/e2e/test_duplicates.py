"""The commands and the example of docs/duplicates.md, run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "src" / "vit4icd" / "demo"
NAMES = ["brushes", "coffee", "lamp", "nuthatch", "pagoda", "wine"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos: photographs and edited copies; train and test: the same apart."""
    for number, name in enumerate(NAMES):
        picture = DEMO / "photographs" / f"{name}.jpg"
        for part in ("photos", "train"):
            (tmp_path / part).mkdir(exist_ok=True)
            shutil.copy(picture, tmp_path / part)
        (tmp_path / "test").mkdir(exist_ok=True)
        query = DEMO / "queries" / f"q{(12, 20, 9, 8, 10, 1)[number]:02d}.jpg"
        for part in ("photos", "test"):
            shutil.copy(query, tmp_path / part)
    shutil.copy(tmp_path / "photos" / "wine.jpg", tmp_path / "photos" / "wine-again.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIT4ICD_THREADS", "1")
    return tmp_path


def _blocks(path: Path, kind: str = "") -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [text for name, text in blocks if name == kind]


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    command = line.replace("vit4icd", f"{sys.executable} -m vit4icd", 1)
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_does_what_the_page_says(folder: Path) -> None:
    commands = [
        line
        for block in _blocks(ROOT / "docs" / "duplicates.md")
        for line in block.splitlines()
        if line.startswith("vit4icd")
    ]
    assert len(commands) == 5
    done = [_shell(line) for line in commands]
    assert [each.returncode for each in done] == [0, 0, 0, 0, 11]
    assert "same bytes" in done[0].stdout
    assert "add --yes" in done[2].stderr
    assert "moved: " in done[3].stderr
    assert not (folder / "photos" / "wine-again.jpg").exists()
    assert (folder / "photos" / "wine.jpg").exists()
    leaked = (folder / "leaks.csv").read_text("utf-8").splitlines()
    assert len(leaked) == 1 + 5


@pytest.mark.slow
def test_does_what_the_readme_says(folder: Path) -> None:
    (block,) = [text for text in _blocks(ROOT / "README.md") if text.startswith("vit4icd dedup")]
    done = [_shell(line) for line in block.splitlines()]
    assert [each.returncode for each in done] == [0, 0, 11]
    assert len(done[2].stdout.splitlines()) == 1 + 5


def test_gives_python_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = _blocks(ROOT / "docs" / "duplicates.md", "python")
    exec(example, {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(NAMES)
    assert "['photos/wine.jpg', 'photos/wine-again.jpg'] " in "".join(printed)


def test_reads_the_settings_of_the_page(folder: Path) -> None:
    (settings,) = [
        block for block in _blocks(ROOT / "docs" / "duplicates.md") if "threshold = " in block
    ]
    (folder / "vit4icd.toml").write_text(settings)
    done = _shell("vit4icd config show")
    assert done.returncode == 0
    assert "vit4icd.toml" in done.stdout
    assert os.environ["VIT4ICD_THREADS"] == "1"
