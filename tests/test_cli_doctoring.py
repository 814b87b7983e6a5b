"""The doctor and the settings, as the command line shows them."""

import json
from pathlib import Path

import pytest

from tests.conftest import make_model, make_pictures
from vit4icd import cli
from vit4icd.settings import user_file
from vit4icd.storage import map_descriptors


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    code = ended.value.code
    return 0 if code is None else int(code)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("MODEL", "DEVICE", "THREADS", "THRESHOLD"):
        monkeypatch.delenv(f"VIT4ICD_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_finds_this_installation_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("doctor", "--threads", 1) == 0
    printed = capsys.readouterr()
    lines = {line.split()[1]: line for line in printed.out.splitlines()[1:]}
    assert lines["numpy"].split()[0] == "ok"
    assert "pictures of 0.3 megapixels a second" in lines["speed"]
    assert _run("doctor", "--json", "--threads", 1) == 0
    checks = json.loads(capsys.readouterr().out)
    assert {"name", "state", "found", "advice"} == checks[0].keys()


def test_fails_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(tmp_path / "model")
    (model / "model.onnx").write_bytes(b"short")
    assert _run("doctor", "--model", model) == 1
    printed = capsys.readouterr()
    assert "wrong: model" in printed.err
    assert "restore it, or export it anew" in printed.out


def test_shows_settings_with_their_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("vit4icd.toml").write_text('threads = 2\nthreshold = "P99"\n')
    monkeypatch.setenv("VIT4ICD_THREADS", "1")
    assert _run("config", "show") == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["threads"][:2] == ["1", "VIT4ICD_THREADS"]
    assert rows["threshold"][:2] == ["P99", "vit4icd.toml"]
    assert rows["device"][:2] == ["auto", "default"]
    assert str(user_file()) in out
    assert _run("config", "show", "--json") == 0
    assert {"name": "threads", "value": 1, "origin": "VIT4ICD_THREADS"} in json.loads(
        capsys.readouterr().out
    )


def test_uses_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(tmp_path / "models" / "tiny")
    make_pictures(tmp_path / "photos", 3)
    Path("vit4icd.toml").write_text('model = "models/tiny"\nthreshold = "1.5"\n')
    assert _run("describe", "photos", "--out", "x.h5", "--quiet") == 0
    assert map_descriptors([Path("x.h5")])[0].dim == 8
    assert _run("dedup", "photos", "--quiet") == 0
    assert json.loads(Path("dedup-report/groups.json").read_text())["threshold"] == 1.5
    assert _run("describe", "photos", "--out", "y.h5", "--model", model, "--quiet") == 0
    Path("vit4icd.toml").write_text("treads = 2\n")
    capsys.readouterr()
    assert _run("describe", "photos", "--out", "z.h5") == 2
    assert "vit4icd.toml sets 'treads'" in capsys.readouterr().err
