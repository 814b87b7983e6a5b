"""The command line: what it prints, where, and how it ends."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_model, make_pictures
from vit4icd import cli
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage import read_descriptors, read_pairs


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    code = ended.value.code
    return 0 if code is None else int(code)


def test_goes_from_pictures_to_figures(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for role, seed in (("queries", 0), ("references", 0), ("background", 7)):
        make_pictures(tmp_path / role, 12, seed=seed)
        out = tmp_path / f"{role}.h5"
        assert _run("describe", tmp_path / role, "--out", out, "--model", model) == 0
    (tmp_path / "truth.csv").write_text("".join(f"{row:03d},{row:03d}\n" for row in range(12)))
    files = ("--queries", tmp_path / "queries.h5", "--references", tmp_path / "references.h5")
    pairs = tmp_path / "pairs.csv"
    background = ("--background", tmp_path / "background.h5")
    assert _run("match", *files, *background, "--out", tmp_path / "normalised.csv") == 0
    assert _run("match", *files, "--out", pairs) == 0
    assert len(read_pairs(pairs)) == 144
    assert len(read_pairs(tmp_path / "normalised.csv")) == 144
    assert (read_pairs(tmp_path / "normalised.csv").scores != read_pairs(pairs).scores).any()
    capsys.readouterr()
    outputs = ("--json", tmp_path / "r.json", "--report", tmp_path / "r.html")
    pictures = (
        "--query-images",
        tmp_path / "queries",
        "--reference-images",
        tmp_path / "references",
    )
    truth = ("--truth", tmp_path / "truth.csv")
    assert _run("evaluate", "--pairs", pairs, *truth, *outputs, *pictures) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        "Track 1 results of 144 predictions (12 GT matches)",
        "Average Precision: 1.00000",
    ]
    assert "all queries" in printed.err
    assert json.loads((tmp_path / "r.json").read_text())["average_precision"] == 1.0
    assert "data:image/jpeg" in (tmp_path / "r.html").read_text()


def test_says_with_strict_that_files_were_skipped(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "004.jpg").write_bytes(b"")
    words = ("describe", pictures, "--out", tmp_path / "x.h5", "--model", model)
    assert _run(*words) == 0
    assert _run(*words, "--strict") == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1 skipped" in printed.err


def test_shares_the_work(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    words = ("describe", pictures, "--out", out, "--model", model, "--quiet", "--share")
    assert _run(*words, "1/4") == 0
    assert len(read_descriptors(out)) == 5
    assert _run(*words, "five") == 2


def test_reports_errors_in_one_line_and_usage_by_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.csv"
    assert _run("evaluate", "--pairs", gone, "--truth", gone) == 1
    error = capsys.readouterr().err
    assert error.startswith("vit4icd: ")
    assert "gone.csv" in error
    assert len(error.splitlines()) == 1
    assert _run("match", "--nonsense") == 2
    assert _run("--version") == 0


def test_refuses_places_that_it_could_not_write_to_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.csv"
    nowhere, file = tmp_path / "nowhere" / "out", tmp_path / "mine.csv"
    file.write_text("precious")
    inputs = ("--pairs", gone, "--truth", gone)
    for words, place in (
        (("search", "gone", gone, "--format", "csv", "--out", nowhere), nowhere.parent),
        (("match", "--queries", gone, "--references", gone, "--out", nowhere), nowhere.parent),
        (("evaluate", *inputs, "--report", nowhere), nowhere.parent),
        (("evaluate", *inputs, "--json", tmp_path), tmp_path),
        (("dedup", gone, "--out", file), file),
        (("leaks", gone, gone, "--out", file), file),
        (("demo", "--out", file), file),
    ):
        assert _run(*words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"vit4icd: {place}: ")
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ("describe gone --out .", "a folder; name a file", 1),
        ("evaluate --pairs gone --truth gone --seed -1", "--seed must be at least 0, not -1", 2),
        ("evaluate --pairs gone --truth gone --query-images away", "no file or folder away", 1),
        ("prepare-copies gone --out copies --seed -1", "--seed must be at least 0, not -1", 2),
        ("describe gone --out x.h5 --share ²/3", "--share is i/n, such as 0/4, not '²/3'", 2),
        (
            "match --queries gone --references gone --background gone --factor nan --out x.csv",
            "the factor must be a finite number, not nan",
            2,
        ),
        ("serve gone --port 99999", "--port lies between 0 and 65535, not 99999", 2),
    ],
)
def test_says_what_cannot_be_before_the_work(
    words: str, message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*words.split()) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_fails_when_no_picture_could_be_described(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    words = ("describe", broken, "--out", tmp_path / "x.h5", "--model", model)
    assert _run(*words) == 1
    assert _run(*words, "--strict") == 3


@pytest.mark.parametrize(
    ("encoding", "name"), [("ascii", "é.jpg"), ("cp1252", "😀.jpg"), ("utf-8", "é.jpg")]
)
def test_prints_utf8_to_programs(
    encoding: str, name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make_pictures(tmp_path / "one", 1)[0]).rename(tmp_path / name)
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    words = ("index", "add", tmp_path / "mine", tmp_path / name, "--id-from", "name", "--jsonl")
    assert _run(*words, "--model", model) == 0
    assert json.loads(printed.getvalue().decode("utf-8")) == {"id": name}


def test_escapes_what_a_terminal_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(shown, "ascii"))
    assert _run("--version") == 0
    sys.stdout.write("é.jpg " + os.fsdecode(b"\xe9.jpg"))
    sys.stdout.flush()
    assert shown.getvalue().splitlines()[-1] == rb"\xe9.jpg \udce9.jpg"


@pytest.mark.parametrize("option", ["--max-pixels", "--threads"])
def test_refuses_counts_below_one(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("describe", "gone", "--out", "x.h5"),
        ("index", "add", "gone", "gone.jpg"),
        ("search", "gone", "gone.jpg"),
        ("dedup", "gone"),
        ("leaks", "gone", "gone"),
    ):
        assert _run(*words, option, 0) == 2
        assert option in capsys.readouterr().err
    files = ("--queries", "gone", "--references", "gone", "--out", "x.csv")
    for option in ("--threads", "--per-query", "--max-pairs", "--neighbours"):
        assert _run("match", *files, option, 0) == 2
        assert option in capsys.readouterr().err
    assert _run("match", *files) == 1
    assert capsys.readouterr().err.endswith("there is no file gone; look at its spelling\n")
    assert _run("match", *files[:-1], "x.parquet") == 2
    assert "pairs are written as CSV" in capsys.readouterr().err


_COUNTS_THREADS = """
import sys
from vit4icd import cli
from vit4icd.preprocessing import Preprocessing
try:
    cli.main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code
import cv2, faiss, pyarrow
print(cv2.getNumThreads(), faiss.omp_get_max_threads(), pyarrow.cpu_count(), file=sys.stderr)
"""


@pytest.mark.parametrize("verb", ["describe", "index add", "compare", "dedup"])
def test_holds_every_library_to_the_threads_asked_for(
    verb: str, model: Path, pictures: Path, tmp_path: Path
) -> None:
    words = {
        "describe": ["describe", pictures, "--out", tmp_path / "x.h5"],
        "index add": ["index", "add", tmp_path / "mine", pictures],
        "compare": ["compare", pictures / "000.jpg", pictures / "001.jpg"],
        "dedup": ["dedup", pictures, "--threshold", "0.9", "--out", tmp_path / "report"],
    }[verb]
    command = [sys.executable, "-c", _COUNTS_THREADS, *map(str, words), "--quiet"]
    options = ["--model", str(model), "--threads", "3"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "3 3 3"


def test_says_which_file_failed(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = pictures / "nowhere" / "sheet.png"
    assert _run("edits", pictures / "000.jpg", "--out", sheet) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vit4icd: {sheet.parent}")
    assert line.endswith(": No such file or directory")


def test_ends_with_130_when_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vit4icd.extract.describe", lambda *words, **options: stop())
    model = make_model(tmp_path / "model")
    assert _run("describe", tmp_path, "--out", tmp_path / "x.h5", "--model", model) == 130
    assert "to go on" in capsys.readouterr().err


_STOPPED_AT_START_UP = """
import os, runpy, signal, sys

class Stopper:
    def find_spec(self, name, path=None, target=None):
        if name == "tyro":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stopper())
sys.argv = ["vit4icd", "demo"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
runpy.run_module("vit4icd", run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ends_with_130_when_it_is_stopped_at_start_up() -> None:
    done = subprocess.run([sys.executable, "-c", _STOPPED_AT_START_UP], capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"")


def test_names_the_extra_that_training_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = importlib.util.find_spec

    def without_torch(name: str) -> object:
        return None if name == "torch" else known(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_torch)
    for words in (("train", "tiny", "--data", tmp_path), ("import-weights", "x"), ("export", "x")):
        assert _run(*words, "--out", tmp_path / "out") == 1
        assert "pip install 'vit4icd[train]'" in capsys.readouterr().err


def test_needs_a_background_for_score_normalisation(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.h5"
    _run("describe", pictures, "--out", out, "--model", model, "--quiet")
    words = ("match", "--queries", out, "--references", out, "--out", tmp_path / "p.csv")
    assert _run(*words, "--factor", 2) == 2
    assert "--background" in capsys.readouterr().err
    assert _run(*words, "--per-query", 2, "--all-digits") == 0
    pairs = read_pairs(tmp_path / "p.csv")
    assert len(pairs) == 40
    np.testing.assert_allclose(np.sort(pairs.scores)[-20:], 1.0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_draws_a_sheet_of_edits(suffix: str, pictures: Path, tmp_path: Path) -> None:
    sheet = tmp_path / f"sheet{suffix}"
    assert _run("edits", pictures / "000.jpg", "--out", sheet) == 0
    assert sheet.stat().st_size > 10_000
    assert _run("edits", pictures / "000.jpg", "--out", sheet, "--donors", pictures) == 0


def test_writes_the_offline_layout_and_goes_on(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "copies"
    words = ("prepare-copies", pictures, "--out", out, "--copies", 2, "--size", 32, "--quiet")
    assert _run(*words) == 0
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(first) == 61  # and copies.json, which says what they are
    (out / "7_1.jpg").unlink()
    assert _run(*words) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with weights that torch reads; of a small network."""
    from vit4icd.train.descriptor import Architecture, build
    from vit4icd.train.export import export

    folder = tmp_path_factory.mktemp("trained") / "model"
    export(
        build(Architecture(name="resnet_test", image_size=32, dim=16)),
        Preprocessing(image_size=32, colour="colour"),
        folder,
        provenance="test",
        licence="none",
    )
    return folder


def test_imports_weights(trained: Path, tmp_path: Path) -> None:
    import torch

    from vit4icd.train.descriptor import Architecture, build

    state = build(Architecture(name="efficientnet_lite0")).backbone.state_dict()
    torch.save(dict(state), tmp_path / "lite0.pth")
    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    assert _run("import-weights", tmp_path / "lite0.pth", "--out", folder) == 2
    assert _run("import-weights", tmp_path / "lite0.pth", "--out", folder, "--overwrite") == 0
    card = json.loads((folder / "model.json").read_text())
    assert card["provenance"].startswith("ImageNet EfficientNet-Lite0")


def test_exports_model_folders(trained: Path, tmp_path: Path) -> None:
    folder, again = trained, tmp_path / "again"
    assert (
        _run(
            "export", folder, "--out", again, "--image-size", 64, "--half", "--threshold", "P90=0.5"
        )
        == 0
    )
    card = json.loads((again / "model.json").read_text())
    assert card["preprocessing"]["image_size"] == 64
    assert card["thresholds"] == {"P90": 0.5}
    assert _run("export", folder, "--out", tmp_path / "third", "--threshold", "P90") == 2
    assert _run("export", folder, "--out", again) == 2
    assert (again / "model.safetensors").exists()
    bare = tmp_path / "bare"
    options = ("--image-size", 64, "--without-torch-weights")
    assert _run("export", folder, "--out", bare, *options) == 0
    assert (bare / "model.onnx").exists()
    assert not (bare / "model.safetensors").exists()


def test_runs_the_demo_and_writes_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("demo", "--out", tmp_path / "demo") == 0
    printed = capsys.readouterr().out
    assert "report.html" in printed
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert len(result["rows"]) == 22
    copies = [row for row in result["rows"] if row["verdict"] == "copy"]
    assert sum(row["is_right"] for row in copies) >= 13
    assert sum(not row["is_right"] for row in copies) <= 1
    assert (tmp_path / "demo" / "report.html").read_text().count("<article") == 22


def test_keeps_talk_out_of_a_pipe(model: Path, pictures: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vit4icd", "describe", str(pictures), "--out",
             str(tmp_path / "x.h5"), "--model", str(model)]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
