"""Checksums of a collection's files: damage is told before Lance believes it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from vit4icd.collection import Collection, sums
from vit4icd.collection.sums import damaged, keep
from vit4icd.collection.table import _is_conflict
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import FormatError, StoreError


@pytest.fixture
def collection(describer: OnnxDescriber, pictures: Path, tmp_path: Path) -> Collection:
    """Twenty pictures of two commits, one of them removed."""
    collection = Collection.create(tmp_path / "mine", describer=describer)
    paths = sorted(pictures.iterdir())
    collection.add(paths[:8], id_from="name")
    collection.add(paths[8:], id_from="name")
    collection.remove(["003.jpg"])
    return collection


def _files(collection: Collection) -> list[Path]:
    folders = (Path(collection.uri, name) for name in ("data", "_deletions"))
    return [path for folder in folders for path in folder.glob("*")]


def _summed(collection: Collection) -> list[str]:
    sums = Path(collection.uri, "_sums").iterdir()
    return sorted(path.name.rpartition(".")[0] for path in sums)


def test_has_a_checksum_of_each_file(collection: Collection) -> None:
    assert _summed(collection) == sorted(path.name for path in _files(collection))
    assert not list(damaged(Path(collection.uri), _files(collection)))


@pytest.mark.parametrize("folder", ["data", "_deletions"])
def test_refuses_a_damaged_file_by_its_name(
    folder: str, collection: Collection, describer: OnnxDescriber
) -> None:
    path = max(Path(collection.uri, folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"{path.name}; .* vit4icd index recover"):
        Collection.open(collection.uri, describer=describer)


def test_notices_what_others_wrote_and_was_damaged_since(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    reader = Collection.open(collection.uri, describer=describer)
    before = set(_files(collection))
    collection.add(pictures / "000.jpg", id_from="sha256")
    (path, *_) = set(_files(collection)) - before
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=path.name):
        reader.descriptors()


def test_forgets_the_checksums_of_files_that_are_gone(collection: Collection) -> None:
    collection.compact(keep=timedelta(0))
    assert _summed(collection) == sorted(path.name for path in _files(collection))
    assert len(_files(collection)) == 1


def test_keeps_the_checksum_of_a_file_that_is_just_written(
    collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing(table: Path) -> Iterator[tuple[str, str]]:
        found = list(listed(table))
        if not added:
            added.append(True)
            collection.add(pictures / "000.jpg", id_from="sha256")
        yield from found

    listed, added = sums._kept, list[bool]()
    monkeypatch.setattr(sums, "_kept", listing)
    sums.forget_gone(Path(collection.uri))
    assert added
    assert _summed(collection) == sorted(path.name for path in _files(collection))


def test_takes_no_path_for_a_conflict(tmp_path: Path) -> None:
    error = StoreError("no")
    error.__cause__ = OSError(f"{tmp_path}/conflict/x.lance: No space left on device")
    assert not _is_conflict(error, f"{tmp_path}/conflict/x.lance")
    error.__cause__ = OSError("Commit conflict for version 5: concurrent commit")
    assert _is_conflict(error, f"{tmp_path}/conflict/x.lance")


def test_takes_a_collection_without_checksums_as_it_is(
    collection: Collection, describer: OnnxDescriber
) -> None:
    folder = Path(collection.uri, "_sums")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    opened = Collection.open(collection.uri, describer=describer)
    assert len(opened.descriptors()) == 19
    opened.remove(["004.jpg"])
    assert len(_summed(opened)) == 2  # of the new seal, and of the list of what is removed


def test_leaves_rows_to_their_own_checksums(
    collection: Collection, describer: OnnxDescriber
) -> None:
    path = max(Path(collection.uri, "data").iterdir(), key=lambda path: path.stat().st_size)
    (sum_,) = Path(collection.uri, "_sums").glob(f"{path.name}.*")
    size = path.stat().st_size
    start = int(sum_.name.rpartition(".")[2].partition("-")[0], 16)
    assert size / 2 < start < size - 1_000
    for at, wrong in ((start - 1, []), (start, [path]), (size - 1, [path])):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        assert list(damaged(Path(collection.uri), _files(collection))) == wrong
        data[at] ^= 1
        path.write_bytes(data)


def test_sums_what_is_no_lance_file_whole(tmp_path: Path) -> None:
    contents = {
        "empty": b"",
        "short": b"a",
        "odd": bytes(range(200)),
        "lies": b"\xff" * 36 + b"LANC",
    }
    files = [tmp_path / name for name in contents]
    for path in files:
        path.write_bytes(contents[path.name])
    keep(tmp_path, [*files, tmp_path / "gone"])
    assert not list(damaged(tmp_path, files))
    for path in files:
        path.write_bytes(b"b" + contents[path.name][1:])
    assert list(damaged(tmp_path, files)) == files


@pytest.mark.parametrize("name", ["data", "_deletions"])
def test_takes_no_collection_for_a_file_whatever_its_folder_is_called(
    name: str, describer: OnnxDescriber, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    collection = Collection.create(tmp_path / name / "mine", describer=describer)
    collection.add(pictures / "000.jpg", id_from="name")
    assert _summed(collection) == sorted(path.name for path in _files(collection))
