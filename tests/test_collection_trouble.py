"""Collections in trouble: full disks, several programs, files that go or change meanwhile."""

import hashlib
import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_pictures
from tests.test_images import _bombs
from vit4icd.collection import AddProgress, Collection
from vit4icd.collection import adding as adding_room
from vit4icd.collection import disk as disk_room
from vit4icd.collection import writing as writing_room
from vit4icd.collection.views import picture_of
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import StoreError
from vit4icd.images import read_image
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage import flush


@pytest.fixture
def collection(
    describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Collection:
    monkeypatch.setattr(writing_room, "_COMMIT_ROWS", 16)
    return Collection.create(tmp_path / "collection", describer=describer)


def _require_right(collection: Collection, describer: OnnxDescriber, folder: Path) -> None:
    """Check that each picture has the descriptor of the content that it is stored with."""
    assert collection.verify().problems == ()
    by_content = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in folder.iterdir()}
    found = collection.descriptors()
    for id_, vector in zip(found.ids, found.vectors, strict=True):
        image = read_image(by_content[collection.get(id_).sha256])
        np.testing.assert_allclose(vector, describer.describe_images([image])[0], atol=1e-3)


_ADDS = """
import json, os, resource, signal, sys
from pathlib import Path
from vit4icd.collection import Collection, writing
from vit4icd.describer import load_describer
from vit4icd.errors import StoreError
writing._COMMIT_ROWS = 8
uri, model, folder, most = sys.argv[1:]
collection = Collection.open(uri, describer=load_describer(Path(model), n_threads=1))
stored = []
if int(most) > 0:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
try:
    collection.add(Path(folder), id_from="name", progress=lambda told: stored.extend(told.stored))
    failure = ""
    if int(most) < 0:
        os.kill(os.getpid(), signal.SIGKILL)
except StoreError as error:
    failure = str(error)
print(json.dumps([failure, stored, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def _added(uri: str, model: Path, folder: Path, *, most: int = 0) -> tuple[str, list[str], int]:
    """Add a folder in a process of its own, which may write files of ``most`` bytes at most."""
    words = [sys.executable, "-c", _ADDS, uri, str(model), str(folder), str(most)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    failure, stored, memory = json.loads(done.stdout)
    return failure, stored, memory


@pytest.mark.parametrize("most", [100, 2_000, 20_000])
def test_loses_nothing_when_files_cannot_be_written(
    most: int, collection: Collection, describer: OnnxDescriber, model: Path, pictures: Path
) -> None:
    collection.add(pictures / "000.jpg", id_from="name")
    failure, stored, _ = _added(collection.uri, model, pictures, most=most)
    assert "cannot be written" in failure
    assert stored == []
    assert [record.id for record in collection.list()] == ["000.jpg"]
    _require_right(collection, describer, pictures)
    assert collection.add(pictures, id_from="name").n_added == 19
    _require_right(collection, describer, pictures)


@pytest.mark.parametrize("n_flushes", [0, 1, 2, 5])
def test_acknowledges_nothing_that_was_not_flushed(
    n_flushes: int, collection: Collection, describer: OnnxDescriber, pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = list[Path]()

    def full(path: Path) -> None:
        calls.append(path)
        if len(calls) > n_flushes:
            raise OSError(28, "No space left on device", str(path))
        flush(path)

    monkeypatch.setattr(disk_room, "flush", full)
    told: list[AddProgress] = []
    with pytest.raises(StoreError, match="No space left on device"):
        collection.add(pictures, id_from="name", progress=told.append)
    stored = {id_ for report in told for id_ in report.stored}
    monkeypatch.setattr(disk_room, "flush", flush)
    assert stored <= {record.id for record in collection.list()}
    collection.add(pictures, id_from="name")
    assert len(collection) == 20
    _require_right(collection, describer, pictures)


def test_lets_two_programs_add_at_once(
    collection: Collection, describer: OnnxDescriber, model: Path, tmp_path: Path
) -> None:
    paths = make_pictures(tmp_path / "all", 48)
    parts = tmp_path / "one", tmp_path / "two"
    for part, own in zip(parts, (paths[:32], paths[16:]), strict=True):
        part.mkdir()
        for path in own:
            shutil.copy(path, part)
    words = [sys.executable, "-c", _ADDS, collection.uri, str(model)]
    children = [subprocess.Popen([*words, str(part), "0"]) for part in parts]
    assert [child.wait() for child in children] == [0, 0]
    assert len(collection) == 48
    _require_right(collection, describer, tmp_path / "all")


def test_needs_no_lock_that_a_killed_writer_could_leave(
    collection: Collection, describer: OnnxDescriber, model: Path, pictures: Path
) -> None:
    words = [sys.executable, "-c", _ADDS, collection.uri, str(model), str(pictures), "-1"]
    child = subprocess.run(words)
    assert child.returncode == -9
    assert collection.add(pictures, id_from="name").n_unchanged == 20
    _require_right(collection, describer, pictures)


def test_loses_only_files_that_go_or_cannot_be_read_meanwhile(
    collection: Collection, describer: OnnxDescriber, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    make_pictures(folder, 120)
    other = (folder / "000.jpg").read_bytes()

    def meddle(report: AddProgress) -> None:
        if report.n_done > 16:
            return
        (folder / "110.jpg").unlink()
        (folder / "112.jpg").write_bytes(other)
        (folder / "114.jpg").write_bytes(b"no picture any more")

    summary = collection.add(folder, id_from="name", progress=meddle)
    reasons = {Path(item.name).name: item.reason for item in summary.skipped}
    assert reasons == {"110.jpg": "missing", "114.jpg": "unsupported_format"}
    assert collection.get("112.jpg").sha256 == collection.get("000.jpg").sha256
    assert len(collection) == 118
    _require_right(collection, describer, folder)


def test_stores_each_file_as_it_was_when_it_was_read(
    collection: Collection, describer: OnnxDescriber, pictures: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A picture that changes right after it was read is noticed by the next run."""
    before = shutil.copytree(pictures, tmp_path / "before")
    new, as_read = make_pictures(tmp_path / "new", 8, seed=5)[7], (before / "007.jpg").read_bytes()

    def late(source: bytes, wanted: Preprocessing, *, regions: bool, max_pixels: int) -> np.ndarray:
        if source == as_read:
            new.replace(pictures / "007.jpg")
            monkeypatch.setattr(adding_room, "picture_of", picture_of)
        return picture_of(source, wanted, regions=regions, max_pixels=max_pixels)

    monkeypatch.setattr(adding_room, "picture_of", late)
    collection.add(pictures, id_from="name")
    _require_right(collection, describer, before)
    summary = collection.add(pictures, id_from="name")
    assert (summary.n_updated, summary.n_unchanged) == (1, 19)
    _require_right(collection, describer, pictures)


def test_keeps_names_apart_that_look_the_same(
    collection: Collection, describer: OnnxDescriber, tmp_path: Path
) -> None:
    folder = tmp_path / "names"
    deep = folder.joinpath(*["d" * 90] * 4)
    deep.mkdir(parents=True)
    paths = make_pictures(tmp_path / "pictures", 6)
    names = [
        unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg"), "a.jpg",
        "A.jpg", "-rf.jpg", str(deep.relative_to(folder) / "long.jpg"),
    ]  # fmt: skip
    for path, name in zip(paths, names, strict=True):
        path.rename(folder / name)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    if len(list(folder.iterdir())) < 7:
        pytest.skip("this file system takes some of the names for the same")
    assert collection.add(folder).n_added == 6
    for name in names:
        (matches,) = collection.search(folder / name, threshold=-2)
        assert matches[0].reference == str(folder / name)
    assert collection.remove([str(folder / names[0])]) == 1
    assert str(folder / names[1]) in collection


def test_takes_ids_for_names_and_nothing_else(
    collection: Collection, describer: OnnxDescriber, pictures: Path, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.rglob("*") if "collection" not in path.parts}
    ids = [
        "../../up.jpg",
        "/etc/passwd",
        "a\0b",
        "C:\\x",
        "=1+1",
        "' OR id != '",
        "X'00'",
        "%2e%2e",
    ]
    collection.add(sorted(pictures.iterdir())[: len(ids)], ids=ids)
    assert sorted(record.id for record in collection.list()) == sorted(ids)
    for id_ in ids:
        assert collection.get(id_).id == id_
        assert collection.remove(id_) == 1
        assert id_ not in collection
    assert len(collection) == 0
    assert before == {path for path in tmp_path.rglob("*") if "collection" not in path.parts}


def test_takes_hostile_pictures_in_bounded_memory(
    collection: Collection, describer: OnnxDescriber, model: Path, pictures: Path, tmp_path: Path
) -> None:
    plain = Collection.create(tmp_path / "plain", describer=describer)
    _, _, usual = _added(plain.uri, model, pictures)
    for number, data in enumerate(_bombs().values()):
        (pictures / f"bomb {number}.png").write_bytes(data)
    data = (pictures / "000.jpg").read_bytes()
    for size in range(0, len(data), max(1, len(data) // 60)):
        (pictures / f"cut {size:06d}.jpg").write_bytes(data[:size])
    (pictures / "archive.png").write_bytes(b"PK\x03\x04" + bytes(1_000))
    (pictures / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    failure, _, memory = _added(collection.uri, model, pictures)
    assert failure == ""
    assert len(collection) == 20
    kib = 1 if sys.platform != "darwin" else 1 / 1024
    assert (memory - usual) * kib < 100_000  # 100 MB more than without them
