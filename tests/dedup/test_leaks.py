"""Leaks: every test picture that is a copy of a training picture, and no other."""

import json
import os
from pathlib import Path

import pytest

from tests.dedup.conftest import put, put_plain
from vit4icd.dedup.leaks import Leaks, find_leaks
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import DataError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Training pictures, and test pictures of which two are copies of these."""
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    for name in ("cat", "clock", "brook", "fig", "dogs"):
        put(name, train / f"{name}.jpg")
    put("fig", train / "fig-too.jpg", width=400)
    put("wine", test / "1.jpg")
    put("fig", test / "2.jpg", width=300)
    put("clock", test / "3.jpg")
    put("peaks", test / "4.jpg")
    put("peaks", test / "5.jpg", width=300)
    put_plain(test / "6.jpg", 255)
    put_plain(train / "plain.jpg", 250)
    (test / "7.jpg").write_bytes(b"no picture")
    return train, test


def _pairs(leaks: Leaks) -> list[tuple[str, str, str]]:
    return [
        (Path(match.query).name, Path(match.reference).name, match.verdict)
        for match in leaks.matches
    ]


@pytest.mark.parametrize("verify", [False, True])
def test_finds_test_pictures_that_are_copies_of_training_pictures(
    verify: bool, folders: tuple[Path, Path], tmp_path: Path, describer: OnnxDescriber
) -> None:
    train, test = folders
    leaks = find_leaks([train], [test], tmp_path / "cache", describer, verify=verify, n_threads=1)
    found = _pairs(leaks)
    assert {pair[:2] for pair in found} == {
        ("2.jpg", "fig.jpg"),
        ("2.jpg", "fig-too.jpg"),
        ("3.jpg", "clock.jpg"),
    }
    assert found[-1] == ("3.jpg", "clock.jpg", "exact")
    assert (leaks.n_leaked, leaks.n_train, leaks.n_test) == (2, 7, 7)
    reasons = {Path(item.name).name: item.reason for item in leaks.skipped}
    assert reasons["7.jpg"] == "unsupported_format"
    assert reasons["6.jpg"] == "image_too_plain"
    assert all(match.verified for match in leaks.matches[:-1]) == verify
    fields = json.loads(json.dumps(leaks.to_json()))
    assert fields["leaked"] == 2
    assert len(fields["matches"]) == 3


def test_finds_a_test_file_that_is_a_training_file(
    folders: tuple[Path, Path], tmp_path: Path, describer: OnnxDescriber
) -> None:
    train, test = folders
    os.link(train / "cat.jpg", test / "8.jpg")
    leaks = find_leaks([train], [test], tmp_path / "cache", describer, n_threads=1)
    assert ("8.jpg", "cat.jpg", "exact") in _pairs(leaks)


def test_describes_nothing_again(
    folders: tuple[Path, Path],
    tmp_path: Path,
    describer: OnnxDescriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, test = folders
    (test / "7.jpg").unlink()
    find_leaks([train], [test], tmp_path / "cache", describer, n_threads=1)

    def never(pixels: object) -> object:
        raise AssertionError("described again")

    monkeypatch.setattr(describer, "describe", never)
    leaks = find_leaks([train], [test], tmp_path / "cache", describer, threshold=0.9)
    assert [pair[0] for pair in _pairs(leaks)] == ["3.jpg"]


def test_finds_nothing_between_strangers(tmp_path: Path, describer: OnnxDescriber) -> None:
    for part, names in (("train", ("cat", "clock")), ("test", ("wine", "fig")), ("none", ())):
        (tmp_path / part).mkdir()
        for name in names:
            put(name, tmp_path / part / f"{name}.jpg")
    leaks = find_leaks([tmp_path / "train"], [tmp_path / "test"], tmp_path / "cache", describer)
    assert leaks.matches == ()
    train, none = tmp_path / "train", tmp_path / "none"
    for sides in ((train, none), (none, train)):
        with pytest.raises(DataError, match=r"there is no picture in .*none"):
            find_leaks([sides[0]], [sides[1]], tmp_path / "cache", describer)
    (none / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture that can be read in .*none"):
        find_leaks([none], [train], tmp_path / "cache", describer)
    with pytest.raises(DataError, match="gone"):
        find_leaks([tmp_path / "gone"], [tmp_path / "test"], tmp_path / "cache", describer)


def test_counts_each_file_once_however_it_is_reached(
    tmp_path: Path, describer: OnnxDescriber
) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    put("cat", train / "cat.jpg")
    put("brook", train / "brook.jpg")
    put("wine", train / "wine.jpg")
    os.link(train / "brook.jpg", train / "brook-again.jpg")
    put("cat", test / "copy.jpg")
    os.link(test / "copy.jpg", test / "copy-again.jpg")
    os.link(train / "wine.jpg", test / "wine.jpg")
    put("fig", test / "fig.jpg")
    for folder in (train, test):
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "bad.jpg").write_bytes(b"no picture" + folder.name.encode())
    (test / "link.jpg").symlink_to(train / "brook.jpg")
    leaks = find_leaks([train], [test, test], tmp_path / "cache", describer, n_threads=1)
    assert {pair[:2] for pair in _pairs(leaks)} == {
        ("copy-again.jpg", "cat.jpg"),
        ("wine.jpg", "wine.jpg"),
    }
    assert (leaks.n_leaked, leaks.n_train, leaks.n_test) == (2, 4, 4)
    assert (leaks.n_symlinks, leaks.n_in_both) == (1, 0)
    skipped = sorted((Path(item.name).relative_to(tmp_path).as_posix()) for item in leaks.skipped)
    assert skipped == ["test/bad.jpg", "test/empty.jpg", "train/bad.jpg", "train/empty.jpg"]


def test_takes_what_lies_in_both_folders_for_test_pictures(
    tmp_path: Path, describer: OnnxDescriber
) -> None:
    test = tmp_path / "all" / "test"
    test.mkdir(parents=True)
    put("cat", tmp_path / "all" / "cat.jpg")
    put("brook", tmp_path / "all" / "brook.jpg")
    os.link(tmp_path / "all" / "brook.jpg", test / "brook.jpg")
    put("cat", test / "copy.jpg")
    put("fig", test / "fig.jpg")
    put_plain(test / "plain.jpg", 255)
    (test / "empty.jpg").write_bytes(b"")
    (test / "bad.jpg").write_bytes(b"no picture")
    leaks = find_leaks([tmp_path / "all"], [test], tmp_path / "cache", describer, n_threads=1)
    assert {pair[:2] for pair in _pairs(leaks)} == {
        ("brook.jpg", "brook.jpg"),
        ("copy.jpg", "cat.jpg"),
    }
    assert {match.reference for match in leaks.matches} == {
        str(tmp_path / "all" / "brook.jpg"),
        str(tmp_path / "all" / "cat.jpg"),
    }
    assert (leaks.n_train, leaks.n_test, leaks.n_in_both) == (2, 5, 4)
    names = [Path(item.name).name for item in leaks.skipped]
    assert sorted(names) == ["bad.jpg", "empty.jpg"]
    with pytest.raises(DataError, match="none is left"):
        find_leaks([test], [test], tmp_path / "cache", describer, n_threads=1)
