"""Parts of references: described beside them, compared like them, told by name, never lost."""

import shutil
from datetime import timedelta
from functools import partial
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import make_collection, make_pictures
from vit4icd.collection import Collection
from vit4icd.collection import memory as memory_room
from vit4icd.collection.descriptors import VECTOR_COLUMNS, ids_having, vectors_in
from vit4icd.collection.memory import Memory
from vit4icd.collection.records import encode
from vit4icd.collection.sketches import SketchIndex
from vit4icd.collection.table import Table
from vit4icd.collection.views import N_PARTS, part_name, parts_of, views_of
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ConfigError, FormatError
from vit4icd.images import read_image, resize, write_image
from vit4icd.matches import Match

PHOTOGRAPHS = Path("src/vit4icd/demo/photographs")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures in several files, of which eight have parts and one was removed."""
    collection, paths = make_collection(tmp_path_factory.mktemp("made"))
    for start in range(0, 20, 6):
        collection.add(paths[start : start + 6], id_from="name")
    collection.add(paths[3:11], id_from="name", regions=True)
    collection.remove(["007.jpg"])
    return Path(collection.uri)


@pytest.fixture
def collection(made: Path, describer: OnnxDescriber, tmp_path: Path) -> Collection:
    """The same, to do with as a test likes."""
    place = shutil.copytree(made, tmp_path / "collection")
    return Collection.open(place, describer=describer)


@pytest.fixture
def old(
    describer: OnnxDescriber, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Collection:
    """A collection as the first format was, which had no columns for parts."""
    with monkeypatch.context() as patch:
        patch.setattr("vit4icd.collection.table.FORMAT_VERSION", 1)
        collection = Collection.create(tmp_path / "old", describer=describer)
    collection.add(pictures, id_from="name")
    return Collection.open(collection.uri, describer=describer)


def _columns(collection: Collection) -> pa.Table:
    table = Table(collection.uri)
    return table.find([encode(one.id) for one in collection.list()], table.schema.names)


def _unstamped(collection: Collection) -> pa.Table:
    """Return all but the stamps of files, which they get some seconds after they are written."""
    return _columns(collection).drop(["stamp", "record_check"]).sort_by("id")


def _parted(collection: Collection) -> set[str]:
    return ids_having(_columns(collection), "parts_check")


def _nearest_by_hand(
    describer: OnnxDescriber, folder: Path, parted: set[str], query: np.ndarray, regions: bool
) -> list[tuple[str, float, str, str]]:
    """Compare every view of a query with every view of every reference, the obvious way."""
    found: dict[str, tuple[float, str, str]] = {}
    for orientation, view in views_of(query, regions=regions):
        (vector,) = describer.describe_images([view])
        for path in sorted(folder.iterdir()):
            image = read_image(path)
            views = {0: image} | (dict(parts_of(image)) if path.name in parted else {})
            stored = describer.describe_images(list(views.values())).astype(np.float16)
            for number, similarity in zip(views, stored.astype(np.float32) @ vector, strict=True):
                score = float(similarity) - (0.1 if number else 0)
                if path.name not in found or score > found[path.name][0]:
                    found[path.name] = (score, orientation, part_name(number))
    return sorted(((name, *rest) for name, rest in found.items()), key=lambda one: -one[1])


@pytest.mark.parametrize("most", [1_000, 5])
@pytest.mark.parametrize("regions", [False, True])
def test_searches_as_the_obvious_computation_does(
    regions: bool,
    most: int,
    collection: Collection,
    describer: OnnxDescriber,
    pictures: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_room, "EXACT_ROWS", most)
    monkeypatch.setattr(memory_room, "_COMPARED", 5_000)  # of three views, not of all at once
    (pictures / "007.jpg").unlink()
    small = [rng.integers(0, 255, (4, 5, 3)).astype(np.uint8) for _ in range(4)]
    queries = [resize(image, 50, 40) for image in small]
    parted, said = _parted(collection), set()
    assert len(parted) == 7
    for query, matches in zip(
        queries, collection.search(queries, k=19, threshold=-2, regions=regions), strict=True
    ):
        expected = _nearest_by_hand(describer, pictures, parted, query, regions)
        told = [(m.reference, m.orientation, m.reference_part) for m in matches]
        assert told == [(name, orientation, part) for name, _, orientation, part in expected]
        np.testing.assert_allclose(
            [match.score for match in matches], [one[1] for one in expected], atol=2e-3
        )
        (fewer,) = collection.search(query, k=3, threshold=-2, regions=regions)
        assert fewer == matches[:3] or _close(fewer, matches[:3])
        said |= {match.reference_part for match in matches}
    assert len(said) > 4
    block = collection._memory.newest().blocks[0]
    assert isinstance(block.descriptors, SketchIndex) == (most == 5)


def _close(some: list[Match], others: list[Match]) -> bool:
    """Return whether only the last digit of a similarity differs, as between sizes of batches."""
    return [one.reference for one in some] == [one.reference for one in others] and np.allclose(
        [one.similarity for one in some], [one.similarity for one in others], atol=1e-5
    )


def test_finds_a_reference_of_which_a_part_is_shown(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "collection")
    paths = [PHOTOGRAPHS / name for name in ("lamp.jpg", "wine.jpg", "cat.jpg")]
    collection.add(paths, id_from="name", features=False)
    image = read_image(paths[0])
    part = np.ascontiguousarray(image[image.shape[0] // 2 :, image.shape[1] // 2 :])
    (before,) = collection.search(part, threshold=-2)
    assert collection.add(paths, id_from="name", features=False, regions=True).n_updated == 3
    (after,) = collection.search(part, threshold=-2)
    assert (after[0].reference, after[0].reference_part) == ("lamp.jpg", "bottom right")
    assert after[0].similarity > 0.97 > before[0].similarity
    assert after[0].to_json()["reference_part"] == "bottom right"
    assert {match.reference_part for match in before} == {"whole"}
    assert len(after) == len(collection) == len(collection.descriptors()) == 3


def test_counts_every_descriptor_as_a_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit4icd.scale._FEWEST", 1)  # else ten are as a hundred
    collection = Collection.create(tmp_path / "collection")
    collection.add(PHOTOGRAPHS / "cat.jpg", id_from="name", features=False, regions=True)
    n_chances = 1 + collection.info().n_parts
    assert 2 < n_chances <= 1 + N_PARTS
    calibration = collection.describer.calibration
    assert calibration is not None
    thresholds = list[float]()
    for flip, n_views in ((False, 1), (True, 2)):
        (answer,) = collection.ask(PHOTOGRAPHS / "wine.jpg", threshold="P50", flip=flip)
        assert answer.nearest is not None
        expected = calibration.probability(answer.nearest.score, n_references=n_chances * n_views)
        assert answer.nearest.probability == pytest.approx(float(expected))
        assert (answer.basis.version, answer.basis.n_images) == (collection.version, 1)
        thresholds.append(answer.basis.threshold)
    assert thresholds[1] > thresholds[0]


def test_tells_every_file_of_the_same_bytes_with_parts_of_the_query(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Their parts want a larger picture, which fine grain makes look unlike the one stored."""
    collection, file = Collection.create(tmp_path / "collection"), tmp_path / "grainy.jpg"
    image = resize(read_image(PHOTOGRAPHS / "cat.jpg"), 1030, 1030)
    grainy = (image + rng.normal(0, 90, image.shape)).clip(0, 255).astype(np.uint8)
    write_image(file, grainy, suffix=".jpg", quality=95)
    collection.add([file.read_bytes()] * 2, ids=["one", "two"], features=False)
    (answer,) = collection.ask(file, regions=True, threshold=1.9)
    assert answer.matches[1].similarity < 0.99
    assert [match.verdict for match in answer.matches] == ["exact", "exact"]


def test_adds_parts_to_what_is_there_and_keeps_them(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    again = collection.add(pictures, id_from="name", regions=True)
    assert (again.n_added, again.n_updated, again.n_unchanged) == (1, 12, 7)
    before = _unstamped(collection)
    assert len(_parted(collection)) == len(collection) == 20
    for regions in (False, True):
        assert collection.add(pictures, id_from="name", regions=regions).n_unchanged == 20
    assert _unstamped(collection).equals(before)
    (pictures / "002.jpg").write_bytes((pictures / "003.jpg").read_bytes())
    assert collection.add(pictures, id_from="name").n_updated == 1
    assert collection.add(pictures, id_from="name", metadata={"owner": "me"}).n_updated == 20
    stored = vectors_in(Table(collection.uri).find([b"002.jpg"], VECTOR_COLUMNS))
    parts = [part for _, part in parts_of(read_image(pictures / "003.jpg"))]
    expected = describer.describe_images([read_image(pictures / "003.jpg"), *parts])
    np.testing.assert_allclose(stored.values.astype(np.float32), expected, atol=1e-3)
    assert len(_parted(collection)) == 20
    assert collection.verify().problems == ()


def test_gives_whole_pictures_as_descriptors(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    found = collection.descriptors()
    images = [read_image(pictures / name) for name in found.ids]
    np.testing.assert_allclose(found.vectors, describer.describe_images(images), atol=1e-3)
    collection.search(images[0], threshold=-2)  # what is held now has the parts as well
    again = collection.descriptors()
    assert again.ids == found.ids
    assert (again.vectors == found.vectors).all()


def test_changes_nothing_where_no_parts_are_asked_for(
    old: Collection, describer: OnnxDescriber, pictures: Path, tmp_path: Path
) -> None:
    new = Collection.create(tmp_path / "new", describer=describer)
    new.add(pictures, id_from="name")
    assert (old.info().format_version, new.info().format_version) == (1, 2)
    one, other = _unstamped(old).drop(["added"]), _unstamped(new)
    assert other.select(one.column_names).equals(one)
    assert {other[name].null_count for name in other.column_names if "part" in name} == {20}
    assert old.search(pictures, threshold=-2) == new.search(pictures, threshold=-2)


def test_goes_on_with_collections_of_the_first_format(
    old: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="index add NEW PICTURES --regions"):
        old.add(pictures, id_from="name", regions=True)
    make_pictures(pictures, 4, seed=8)
    assert old.add(pictures, id_from="name").n_updated == 4
    assert old.remove(["009.jpg"]) == 1
    assert old.verify().problems == ()
    assert {record.n_parts for record in old.list()} == {0}
    for most in (1_000, 5):
        monkeypatch.setattr(memory_room, "EXACT_ROWS", most)
        opened = Collection.open(old.uri, describer=old.describer)
        (matches,) = opened.search(pictures / "001.jpg", threshold=-2, regions=True)
        assert (matches[0].reference, matches[0].reference_part) == ("001.jpg", "whole")
        assert len(opened.descriptors()) == 19


def test_notices_parts_that_are_lost(collection: Collection) -> None:
    table = Table(collection.uri)
    row = table.find([b"004.jpg"], table.schema.names)
    for name in (name for name in row.column_names if "part" in name):
        field = table.schema.field(name)
        row = row.set_column(row.column_names.index(name), field, pa.nulls(1, field.type))
    merge = lance.dataset(collection.uri).merge_insert("id")  # behind our back
    merge.when_matched_update_all().execute(row.cast(table.schema))
    with pytest.raises(FormatError, match="19 pictures and 54 parts, not the 19 pictures and 63"):
        collection.descriptors()
    (problem,) = collection.verify().problems
    assert "19 pictures and 54 parts are there whole, but 19 pictures and 63 parts" in problem


@pytest.mark.parametrize("kept", [["004.jpg", "012.jpg"], []])
def test_passes_over_what_it_can_read_no_more(
    kept: list[str], collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_room, "EXACT_ROWS", 0)
    answers = collection.ask(pictures, k=20, threshold=-2)
    next(answers)
    collection.remove({record.id for record in collection.list()} - {*kept})
    collection.compact(keep=timedelta(0))
    last = [answer.matches for answer in answers][-1]
    assert sorted(match.reference for match in last) == kept


def test_holds_sketches_once_there_are_many_descriptors(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = collection.info()
    assert (info.n_images, info.n_parts) == (19, 7 * N_PARTS)
    assert sum(record.n_parts == N_PARTS for record in collection.list()) == 7
    n_descriptors, table = info.n_images + info.n_parts, Table(collection.uri)
    for most, kind in ((n_descriptors, "vectors"), (n_descriptors - 1, "sketches")):
        monkeypatch.setattr(memory_room, "EXACT_ROWS", most)
        held = Memory(table).newest()
        assert {block.kind for block in held.blocks} == {kind}
        assert (len(held), held.n_descriptors) == (19, n_descriptors)


def test_remembers_that_no_part_could_be_judged(tmp_path: Path, describer: OnnxDescriber) -> None:
    canvas = np.full((400, 400, 3), 255, np.uint8)
    small = np.random.default_rng(0).integers(0, 255, (5, 5, 3)).astype(np.uint8)
    canvas[:100, :100] = resize(small, 100, 100)
    collection = Collection.create(tmp_path / "collection", describer=describer)
    add = partial(collection.add, features=False, regions=True)
    parts = [number for number, _ in parts_of(canvas)]
    assert parts == [1]
    add(canvas, ids=["corner"])
    assert collection.info().n_parts == collection.get("corner").n_parts == len(parts)
    line = resize(small, 40, 40)[20:21]  # no part of it has a pixel
    assert add(line, ids=["line"]).n_added == 1
    assert collection.info().n_parts == len(parts)
    assert add([canvas, line], ids=["corner", "line"]).n_unchanged == 2
    assert collection.verify().problems == ()
