"""Finding files: every name survives, every file counts once, a bad one costs only itself."""

import os
import sys
import unicodedata
from pathlib import Path

import pytest

from vit4icd.dedup import files
from vit4icd.dedup.files import Inventory, take_inventory
from vit4icd.errors import DataError
from vit4icd.storage import file_sha256


def _names(inventory: Inventory) -> list[str]:
    return [Path(file.path).name for file in inventory.files]


def _reasons(inventory: Inventory) -> dict[str, str]:
    return {Path(item.name).name: item.reason for item in inventory.skipped}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "deeper").mkdir(parents=True)
    return tmp_path / "photos"


def test_keeps_odd_names(folder: Path) -> None:
    names = [
        "😀.jpg",
        unicodedata.normalize("NFC", "é.jpg"),
        unicodedata.normalize("NFD", "é.jpg"),
        os.fsdecode(b"latin-\xe9.jpg"),
        "new\nline.jpg",
        "quote\"'`$x.jpg",
        " space .jpg",
        "-dash.jpg",
        "CASE.jpg",
        "case.jpg",
        "x" * 240 + ".jpg",
    ]
    for number, name in enumerate(names):
        (folder / name).write_bytes(bytes([number + 1]))
    inventory = take_inventory([folder])
    assert sorted(_names(inventory)) == sorted(names)
    for file in inventory.files:
        assert file.sha256 == file_sha256(Path(file.path))
    assert not inventory.skipped


def test_counts_hard_links_as_one_file(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"a")
    (folder / "b.jpg").hardlink_to(folder / "a.jpg")
    (folder / "c.jpg").write_bytes(b"a")
    inventory = take_inventory([folder])
    assert _names(inventory) == ["a.jpg", "c.jpg"]
    assert inventory.files[0].other_names == (str(folder / "b.jpg"),)
    (content,) = inventory.by_content().values()
    assert len(content) == 2


def test_passes_symbolic_links_over(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"outside")
    (folder / "a.jpg").write_bytes(b"a")
    (folder / "same.jpg").symlink_to(folder / "a.jpg")
    (folder / "outside.jpg").symlink_to(outside)
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "deeper" / "loop").symlink_to(folder, target_is_directory=True)
    inventory = take_inventory([folder])
    assert _names(inventory) == ["a.jpg"]
    assert inventory.n_symlinks == 4
    assert not inventory.skipped


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_reaches_a_file_once_however_it_is_named(
    folder: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    for name in ("a.jpg", "deeper/b.jpg"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    ways = [folder, folder / "deeper", tmp_path / "link", folder / "a.jpg"]
    inventory = take_inventory([ways[way] for way in order])
    assert sorted(_names(inventory)) == ["a.jpg", "b.jpg"]
    assert all(not file.other_names for file in inventory.files)


def test_marks_as_reference_what_is_reached_from_both(folder: Path) -> None:
    for name in ("a.jpg", "deeper/b.jpg"):
        (folder / name).write_bytes(name.encode())
    (folder / "c.jpg").hardlink_to(folder / "deeper" / "b.jpg")
    inventory = take_inventory([folder], references=[folder / "deeper"])
    assert [file.is_reference for file in inventory.files] == [False, True]


def test_finds_pictures_in_a_folder_however_it_is_spelt(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "deeper" / "b.jpg").write_bytes(b"b")
    (folder / "empty").mkdir()
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    relative = folder.relative_to(tmp_path)
    inventory = take_inventory([relative])
    for same in (relative, folder, Path("link"), Path("link/deeper"), relative / "deeper/b.jpg"):
        inventory.require_pictures([same / "empty" / ".."] if same.is_dir() else [same])
    with pytest.raises(DataError, match="no picture in"):
        inventory.require_pictures([folder / "empty"])


def test_takes_a_file_that_is_named_itself_whatever_its_suffix(folder: Path) -> None:
    (folder / "picture.bin").write_bytes(b"x")
    (folder / ".hidden.jpg").write_bytes(b"y")
    assert not take_inventory([folder]).files
    assert _names(take_inventory([folder / "picture.bin"])) == ["picture.bin"]


def test_lists_what_it_cannot_use(folder: Path) -> None:
    (folder / "good.jpg").write_bytes(b"x")
    (folder / "empty.jpg").write_bytes(b"")
    os.mkfifo(folder / "pipe.jpg")
    inventory = take_inventory([folder])
    assert _names(inventory) == ["good.jpg"]
    assert _reasons(inventory) == {"empty.jpg": "empty", "pipe.jpg": "unreadable_file"}


def test_loses_only_a_file_that_goes_or_changes_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (folder / name).write_bytes(name.encode())

    def hashed_while_others_write(path: Path) -> str:
        if path.name == "b.jpg":
            path.unlink()
        sha256 = file_sha256(path)
        if path.name == "c.jpg":
            path.write_bytes(b"more than before")
        return sha256

    monkeypatch.setattr(files, "file_sha256", hashed_while_others_write)
    inventory = take_inventory([folder])
    assert _names(inventory) == ["a.jpg", "d.jpg"]
    assert _reasons(inventory) == {"b.jpg": "unreadable_file", "c.jpg": "changed"}


def test_reads_again_only_what_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(name.encode())
    first = take_inventory([folder])
    known = {file.path: (file.stamp, file.sha256) for file in first.files}
    (folder / "b.jpg").write_bytes(b"B.jpg")  # as long as before
    os.utime(folder / "b.jpg", ns=(first.files[1].stamp.modified_ns,) * 2)  # and as old
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(files, "file_sha256", noted)
    second = take_inventory([folder], known=known)
    assert read == ["b.jpg"]
    assert second.files[0] == first.files[0]
    assert second.files[1].sha256 != first.files[1].sha256


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_lists_a_folder_that_cannot_be_listed(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"a")
    (folder / "deeper").chmod(0)
    inventory = take_inventory([folder])
    (folder / "deeper").chmod(0o700)
    assert _names(inventory) == ["a.jpg"]
    assert _reasons(inventory) == {"deeper": "unreadable_folder"}


def test_refuses_inputs_that_are_not_there(folder: Path) -> None:
    with pytest.raises(DataError, match="no file or folder .*gone"):
        take_inventory([folder / "gone"])
    with pytest.raises(DataError, match="reference"):
        take_inventory([folder], references=[folder / "reference"])


def test_tells_progress(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(bytes(number))
    told: list[tuple[int, int, int]] = []
    take_inventory([folder], progress=lambda *counts: told.append(counts))
    assert told == [(1, 3, 1), (2, 3, 1), (3, 3, 1)]


def test_writes_names_that_are_not_utf_8_as_json(folder: Path) -> None:
    (folder / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    (file,) = take_inventory([folder]).files
    fields = file.to_json()
    assert "path_base64" in fields
    assert fields["bytes"] == 1
    assert sys.getfilesystemencodeerrors() == "surrogateescape"
