"""Settings: which of several wins, where it comes from, and what is refused."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from vit4icd.cli.options import settled
from vit4icd.errors import ConfigError
from vit4icd.settings import FILE_NAME, KNOWN, Setting, effective, user_file


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    return {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "APPDATA": str(home)}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _one(
    name: str, environment: Mapping[str, str], folder: Path, flag: str | int | None = None
) -> Setting:
    return effective({name: flag}, environment=environment, folder=folder)[name]


def test_has_defaults(environment: dict[str, str], tmp_path: Path) -> None:
    found = effective(environment=environment, folder=tmp_path)
    assert found.keys() == KNOWN.keys()
    assert {setting.origin for setting in found.values()} == {"default"}
    assert (found["threads"].value, found["device"].value) == (None, "auto")


def test_does_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("vit4icd.settings.Path.home", unknown)
    assert effective(environment={}, folder=tmp_path)["device"].value == "auto"


def test_lets_the_nearest_win(environment: dict[str, str], tmp_path: Path) -> None:
    user, local = user_file(environment), tmp_path / FILE_NAME
    _write(user, "threads = 1\n")
    assert _one("threads", environment, tmp_path) == Setting("threads", 1, str(user))
    _write(local, "threads = 2\n")
    assert _one("threads", environment, tmp_path) == Setting("threads", 2, str(local))
    environment["VIT4ICD_THREADS"] = "3"
    assert _one("threads", environment, tmp_path) == Setting("threads", 3, "VIT4ICD_THREADS")
    assert _one("threads", environment, tmp_path, 4) == Setting("threads", 4, "--threads")
    environment["VIT4ICD_THREADS"] = ""
    assert _one("threads", environment, tmp_path).value == 2


def test_finds_a_model_beside_the_file_that_names_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    _write(tmp_path / FILE_NAME, 'model = "mine"\n')
    assert _one("model", environment, tmp_path).value == str(tmp_path / "mine")
    _write(tmp_path / FILE_NAME, f'model = "{Path("/models/mine").as_posix()}"\n')
    assert _one("model", environment, tmp_path).value == str(Path("/models/mine"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("threads = 0\n", "sets threads to '0'; it is a whole number from 1 on"),
        ("threads = 1.5\n", "'1.5'"),
        ('device = "tpu"\n', "one of auto, cpu, cuda"),
        ("treads = 2\n", "sets 'treads'; there are only model, device, threads, threshold"),
        ("threads =\n", "cannot be read as TOML"),
    ],
)
def test_refuses_what_it_does_not_know(
    text: str, message: str, environment: dict[str, str], tmp_path: Path
) -> None:
    _write(tmp_path / FILE_NAME, text)
    with pytest.raises(ConfigError, match=message) as refused:
        effective(environment=environment, folder=tmp_path)
    assert FILE_NAME in str(refused.value)


def test_names_the_variable_that_is_wrong(environment: dict[str, str], tmp_path: Path) -> None:
    environment["VIT4ICD_DEVICE"] = "tpu"
    with pytest.raises(ConfigError, match="VIT4ICD_DEVICE sets device to 'tpu'"):
        effective(environment=environment, folder=tmp_path)


def test_a_flag_beats_the_environment_with_the_default_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIT4ICD_DEVICE", "cuda")
    monkeypatch.setenv("VIT4ICD_THRESHOLD", "0.9")
    assert (settled().device, settled().threshold) == ("cuda", "0.9")
    asked = settled(device="auto", threshold="auto")
    assert (asked.device, asked.threshold) == ("auto", "auto")


def test_passes_over_a_home_that_cannot_be_entered(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refused)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert _one("threads", environment, tmp_path) == Setting("threads", None, "default")
    monkeypatch.setattr(os, "access", lambda *_: True)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        _one("threads", environment, tmp_path)


def test_reads_a_file_that_notepad_wrote(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("\ufeffthreads = 3\n", "utf-8")
    assert _one("threads", environment, tmp_path).value == 3
