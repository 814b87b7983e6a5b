"""Collections under fire: kills, damaged files, many writers; VIT4ICD_TRIALS=200 tries harder."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import make_collection, make_model, make_pictures
from vit4icd.collection import AddProgress, Collection, Verification
from vit4icd.collection import disk as disk_room
from vit4icd.collection import table as table_room
from vit4icd.collection import writing as writing_room
from vit4icd.collection.descriptors import Parts, sketches_in, vectors_in
from vit4icd.collection.features import features_in
from vit4icd.collection.records import Record, records_in
from vit4icd.collection.rows import Row, schema_of, to_table
from vit4icd.collection.table import Table
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.errors import ConfigError, DataError, FormatError, Vit4icdError
from vit4icd.images import read_image

N_TRIALS = int(os.environ.get("VIT4ICD_TRIALS", "24"))
N_KILLS = max(3, N_TRIALS // 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, seven with parts, stored by several commits, three of them removed."""
    collection, paths = make_collection(tmp_path_factory.mktemp("made"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing_room, "_COMMIT_ROWS", 8)
        collection.add(paths, id_from="name", metadata={"owner": "me"})
        collection.add(paths[10:18], id_from="name", regions=True)
    collection.remove(["003.jpg", "017.jpg", "019.jpg"])
    return Path(collection.uri)


@pytest.fixture
def collection(
    made: Path, describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Collection:
    """The same, to do with as a test likes."""
    monkeypatch.setattr(writing_room, "_COMMIT_ROWS", 8)
    place = shutil.copytree(made, tmp_path / "collection")
    return Collection.open(place, describer=describer)


def _is_whole(found: Verification, n_images: int) -> bool:
    return found.problems == () and found.n_images == n_images


def _said(collection: Collection, queries: Path) -> list[Any]:
    """Return all that a user can ask, but for the check."""
    answers = collection.ask(queries, k=5, threshold=-2)
    matches = [
        (match.reference, match.reference_part, match.similarity, match.verdict, match.metadata)
        for answer in answers
        for match in answer.matches
    ]
    listed = [record.to_json() for record in collection.list()]
    return [matches, listed, len(collection), collection.fingerprint, "003.jpg" in collection]


def test_finds_itself_whole(collection: Collection) -> None:
    assert _is_whole(collection.verify(), 17)


def _damaged(path: Path, damage_rng: random.Random) -> None:
    """Flip a bit, cut, blank or scramble some bytes of a file."""
    data = bytearray(path.read_bytes())
    at = damage_rng.randrange(len(data))
    kind = damage_rng.choice(["flip", "flip", "cut", "blank", "scramble"])
    if kind == "flip":
        data[at] ^= 1 << damage_rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "blank":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    else:
        data[at : at + 16] = damage_rng.randbytes(len(data[at : at + 16]))
    path.write_bytes(data)


def test_is_never_silently_wrong_when_files_are_damaged(
    collection: Collection, describer: OnnxDescriber, pictures: Path, tmp_path: Path
) -> None:
    expected, damage_rng = _said(collection, pictures), random.Random(7)
    whole = Path(collection.uri)
    groups = [list((whole / name).iterdir()) for name in ("data", "_deletions")]
    groups.append([min((whole / "_versions").glob("*.manifest"))])  # the newest has the least name
    outcomes: Counter[str] = Counter()
    for trial in range(N_TRIALS):
        copy = shutil.copytree(whole, tmp_path / f"copy-{trial}")
        _damaged(copy / damage_rng.choice(groups[trial % 3]).relative_to(whole), damage_rng)
        try:
            opened = Collection.open(copy, describer=describer)
            assert _said(opened, pictures) == expected
            outcomes["right" if not opened.verify().problems else "right, but reported"] += 1
        except Vit4icdError:
            outcomes["refused"] += 1
        shutil.rmtree(copy)
    assert sum(outcomes.values()) == N_TRIALS
    assert outcomes["refused"] > N_TRIALS // 8


def test_reports_rows_that_are_hidden_or_back_from_the_dead(collection: Collection) -> None:
    import lance

    lance.dataset(collection.uri).delete("id = X'3030302e6a7067'")  # 000.jpg, behind our back
    with pytest.raises(FormatError, match="holds 16 pictures and 63 parts, not the 17"):
        collection.descriptors()
    (problem,) = collection.verify().problems
    assert "16 pictures and 63 parts are there whole, but 17" in problem


def _row(number: int, features: bytes | None = b"") -> Row:
    vector = np.zeros(8, np.float32)
    vector[number] = 1
    record = Record(id=str(number), source="", sha256="0" * 64, width=1, height=1,
                    added=datetime(2024, 1, 1, tzinfo=UTC))  # fmt: skip
    parts = None
    if features is not None:
        parts = Parts(numbers=[1 + number, 9], vectors=np.roll(np.eye(2, 8), number, axis=1))
    return Row(record=record, vector=vector, features=features, parts=parts)


_COLUMNS = (
    "id", "vector", "sketch", "sketch_check", "sha256", "stamp", "source", "width", "height",
    "metadata", "added", "features", "features_check", "record_check", "part_numbers", "parts",
    "parts_check", "part_sketches", "part_sketches_check",
)  # fmt: skip


@pytest.mark.parametrize("column", _COLUMNS)
def test_notices_a_change_in_any_column(column: str) -> None:
    schema = schema_of(8, {}, with_parts=True)
    rows = to_table([_row(0, b"abc"), _row(1, b"abd"), _row(2, None)], schema)
    other = {"width": 7, "height": 7, "metadata": b"{}x", "added": 0}.get(column, b"x" * 32)
    if column in ("sha256", "source", "width", "height", "metadata", "added", "stamp"):
        changed = pa.array([other] * 3, rows.schema.field(column).type)
    else:
        changed = rows[column].combine_chunks().take(pa.array([2, 0, 1]))
    damaged = rows.set_column(rows.column_names.index(column), schema.field(column), changed)
    with pytest.raises(FormatError, match="damaged"):
        for read in (vectors_in, sketches_in, records_in, _require_features):
            read(damaged)


def _require_features(rows: pa.Table) -> None:
    for problem in features_in(rows).unreadable:
        raise FormatError(problem)


def test_refuses_descriptors_that_are_none(collection: Collection) -> None:
    table = Table(collection.uri)
    row = _row(0, None)
    row.vector[:] = np.nan
    table.upsert(to_table([row], table.schema))
    assert any("length nan" in problem for problem in collection.verify().problems)


def test_restores_a_snapshot_exactly(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    before = _said(collection, pictures)
    collection.snapshot("before")
    collection.remove([f"{row:03d}.jpg" for row in range(9)])
    make_pictures(pictures, 8, seed=4)
    collection.add(pictures, id_from="name")
    collection.compact(keep=timedelta(0))
    assert _said(collection, pictures) != before
    collection.restore("before")
    make_pictures(pictures, 20)
    assert _said(collection, pictures) == before
    assert _is_whole(collection.verify(), 17)
    collection.add(pictures, id_from="name")
    assert len(collection) == 20


def test_names_snapshots_once_and_forgets_them(collection: Collection) -> None:
    collection.snapshot("a-1.0")
    assert [snapshot.name for snapshot in collection.info().snapshots] == ["a-1.0"]
    with pytest.raises(ConfigError, match="already"):
        collection.snapshot("a-1.0")
    with pytest.raises(ConfigError, match="letters"):
        collection.snapshot("../a")
    with pytest.raises(DataError, match=r"a-1\.0"):
        collection.restore("b")
    collection.forget("a-1.0")
    assert collection.info().snapshots == ()
    with pytest.raises(DataError, match="none"):
        collection.forget("a-1.0")


def test_compacts_without_a_change(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    before = _said(collection, pictures)
    size = sum(path.stat().st_size for path in Path(collection.uri).rglob("*"))
    assert collection.compact(keep=timedelta(0)) > 0
    for reader in (collection, Collection.open(collection.uri, describer=describer)):
        matches, *others = _said(reader, pictures)
        assert others == before[1:]
        for match, (name, part, similarity, *rest) in zip(matches, before[0], strict=True):
            # rows lie elsewhere now, so products may be summed in another order
            assert match == (name, part, pytest.approx(similarity, abs=1e-6), *rest)
    assert collection.verify() == Verification(n_images=17, n_files=1, problems=())
    assert sum(path.stat().st_size for path in Path(collection.uri).rglob("*")) < size


def test_compacts_by_itself_when_files_are_many(
    describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_room, "_COMMIT_ROWS", 1)
    monkeypatch.setattr(writing_room, "_COMPACT_EVERY", 3)
    make_pictures(tmp_path / "pictures", 200)
    collection = Collection.create(tmp_path / "collection", describer=describer)
    collection.add(tmp_path / "pictures", id_from="name")
    found = collection.verify()
    assert _is_whole(found, 200)
    assert found.n_files <= 6


def test_lets_several_write_and_others_read(
    describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_room, "_COMMIT_ROWS", 4)
    pictures = make_pictures(tmp_path / "pictures", 48)
    uri = Collection.create(tmp_path / "collection", describer=describer).uri
    failures: list[BaseException] = []
    writing = threading.Event()
    writing.set()

    def write(first: int) -> None:
        try:
            Collection.open(uri, describer=describer).add(
                pictures[first : first + 32], id_from="name"
            )
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        reader, n_before = Collection.open(uri, describer=describer), 0
        try:
            while writing.is_set():
                n_images = len(reader.descriptors())
                assert n_images >= n_before
                n_before = n_images
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 16)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    writing.clear()
    for thread in readers:
        thread.join()
    assert failures == []
    assert _is_whole(Collection.open(uri).verify(), 48)


_CHILD = """
import json, random, sys
from pathlib import Path
from vit4icd.collection import Collection, writing
from vit4icd.describer import load_describer
writing._COMMIT_ROWS, writing._COMPACT_EVERY = 4, 5
uri, model, folder, seed = sys.argv[1:]
choice_rng = random.Random(int(seed))
files = sorted(Path(folder).iterdir())
collection = Collection.open(uri, describer=load_describer(Path(model), n_threads=1))
def tell(what, ids):
    print(json.dumps([what, list(ids)]), flush=True)
tell("ready", [])
while True:
    ids = choice_rng.sample([f"id {n}" for n in range(60)], 12)
    tell("adding", ids)
    collection.add(choice_rng.sample(files, 12), ids=ids, regions=choice_rng.random() < 0.5,
                   progress=lambda report: tell("added", report.stored))
    ids = choice_rng.sample(ids, 4)
    tell("removing", ids)
    collection.remove(ids)
    tell("removed", ids)
    if choice_rng.random() < 0.3:
        collection.compact()
"""


def _killed(words: list[str], kill_rng: random.Random) -> list[tuple[str, list[str]]]:
    """Run the child, kill it at a moment of its work, and return what it told."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(kill_rng.randrange(2, 25))]
        time.sleep(kill_rng.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines()
    told = [json.loads(line) for line in lines if line.strip()]
    assert told[0] == ["ready", []]
    assert len(told) > 1
    return [(what, ids) for what, ids in told]


@pytest.mark.slow
def test_loses_nothing_that_it_acknowledged_to_kills(tmp_path: Path) -> None:
    model, folder = make_model(tmp_path / "model"), tmp_path / "pictures"
    describer = load_describer(model, n_threads=1)
    expected = {}
    uri = Collection.create(tmp_path / "collection", describer=describer).uri
    probe = Collection.create(tmp_path / "probe", describer=describer)
    for path in make_pictures(folder, 30):
        expected[path.read_bytes()] = describer.describe_images([read_image(path)])[0]
    probe.add(folder, id_from="name")
    by_content = {
        probe.get(path.name).sha256: expected[path.read_bytes()] for path in folder.iterdir()
    }
    state: dict[str, bool | None] = {}  # id -> there, not there, or not known
    kill_rng = random.Random(11)
    for kill in range(N_KILLS):
        words = [sys.executable, "-c", _CHILD, uri, str(model), str(folder), str(kill)]
        for what, ids in _killed(words, kill_rng):
            known = {"added": True, "removed": False}.get(what)
            state.update(dict.fromkeys(ids, known))
        collection = Collection.open(uri, describer=describer)
        there = {record.id: record.sha256 for record in collection.list(limit=1_000)}
        for id_, is_there in state.items():
            assert is_there is None or is_there == (id_ in there), id_
        assert _is_whole(collection.verify(), len(there))
        descriptors = collection.descriptors()
        for id_, vector in zip(descriptors.ids, descriptors.vectors, strict=True):
            np.testing.assert_allclose(vector, by_content[there[id_]], atol=1e-3)
        state = {id_: id_ in there for id_ in state}
    assert any(state.values())


@pytest.mark.skipif("VIT4ICD_TEST_S3" not in os.environ, reason="VIT4ICD_TEST_S3 names no bucket")
def test_works_the_same_in_an_object_store(
    describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_room, "_COMMIT_ROWS", 4)
    pictures = make_pictures(tmp_path / "pictures", 30)
    uri = f"{os.environ['VIT4ICD_TEST_S3']}/{time.time_ns()}"
    collection = Collection.create(uri, describer=describer)
    halves = pictures[:20], pictures[10:]
    writers = [
        threading.Thread(
            target=Collection.open(uri, describer=describer).add,
            args=(half,),
            kwargs={"id_from": "name"},
        )
        for half in halves
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert _is_whole(collection.verify(), 30)
    before = _said(collection, tmp_path / "pictures")
    collection.snapshot("before")
    assert collection.remove(["000.jpg", "001.jpg"]) == 2
    collection.compact(keep=timedelta(0))
    assert _is_whole(collection.verify(), 28)
    collection.restore("before")
    assert _said(Collection.open(uri, describer=describer), tmp_path / "pictures") == before


def test_flushes_to_the_disk_before_it_acknowledges(
    collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[Path] = set()
    monkeypatch.setattr(disk_room, "flush", flushed.add)
    before = set(Path(collection.uri).rglob("*"))

    def progress(report: AddProgress) -> None:
        if report.stored:
            written = set(Path(collection.uri).rglob("*")) - before
            assert {path.parent.name for path in written} >= {"data", "_versions"}
            assert written <= flushed
            assert Path(collection.uri) / "data" in flushed

    make_pictures(pictures, 20, seed=3)
    collection.add(pictures, id_from="name", progress=progress)
    assert flushed


def test_flushes_snapshots_to_the_disk(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[Path] = set()
    monkeypatch.setattr(disk_room, "flush", flushed.add)
    for change in (collection.snapshot, collection.restore):
        before = set(Path(collection.uri).rglob("*"))
        change("one")
        written = set(Path(collection.uri).rglob("*")) - before
        assert {path for path in written if path.is_file()}
        assert written <= flushed
        assert {path.parent for path in written} <= flushed
        flushed.clear()


def test_drops_versions_of_many_small_commits(
    collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_room, "_TIDY_EVERY", 8)
    monkeypatch.setattr(table_room, "KEPT_FOR", timedelta(0))
    collection.snapshot("kept")
    counts = []
    for number in range(30):  # each leaves no file of rows behind, so nothing has to be joined
        collection.add([pictures / "000.jpg"], ids=["again"])
        collection.remove(["again"])
        counts.append(sum(1 for _ in (Path(collection.uri) / "_versions").iterdir()))
        assert number < 8 or counts[-1] < 16
    assert max(counts[20:]) <= max(counts[:10])
    collection.restore("kept")
    assert collection.verify().problems == ()
