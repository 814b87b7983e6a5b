"""Collections: what is added is found, kept apart, replaced, removed; nothing is lost or mixed."""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_model, make_pictures
from vit4icd.collection import AddProgress, Collection, matches_table
from vit4icd.collection import memory as memory_room
from vit4icd.collection import searching as searching_room
from vit4icd.collection import writing as writing_room
from vit4icd.collection.sketches import SketchIndex
from vit4icd.collection.table import Table
from vit4icd.collection.views import views_of
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import (
    ConfigError,
    DataError,
    FormatError,
    ImageError,
    MismatchError,
    StoreError,
)
from vit4icd.images import Source, read_image, resize
from vit4icd.overlap import LocalFeatures

PHOTOGRAPHS = Path("src/vit4icd/demo/photographs")
QUERIES = Path("src/vit4icd/demo/queries")


@pytest.fixture
def collection(describer: OnnxDescriber, tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "collection", describer=describer)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The packaged photographs, described by the packaged model."""
    collection = Collection.create(tmp_path_factory.mktemp("photographs") / "collection")
    collection.add(PHOTOGRAPHS, id_from="name")
    return collection


def _best(collection: Collection, image: Path | np.ndarray | bytes | Image.Image) -> str:
    (matches,) = collection.search(image, threshold=-2)
    return matches[0].reference


def test_finds_each_picture_it_holds(collection: Collection, pictures: Path) -> None:
    summary = collection.add(pictures)
    assert (summary.n_added, summary.n_updated, summary.n_unchanged) == (20, 0, 0)
    assert len(collection) == 20
    for path, matches in zip(
        sorted(pictures.iterdir()), collection.search(pictures, threshold=-2), strict=True
    ):
        assert matches[0].reference == str(path)
        assert matches[0].verdict == "exact"
        assert matches[0].similarity == pytest.approx(1, abs=1e-3)
        assert len(matches) == 10
        scores = [match.score for match in matches]
        assert scores == sorted(scores, reverse=True)


def test_opens_what_it_made(collection: Collection, pictures: Path, model: Path) -> None:
    collection.add(pictures)
    again = Collection.open(collection.uri, model=model)
    assert len(again) == 20
    assert again.fingerprint == collection.fingerprint
    assert again.version == collection.version
    assert _best(again, pictures / "003.jpg") == str(pictures / "003.jpg")


def test_stores_the_describers_own_vectors(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    collection.add(pictures, id_from="name")
    found = collection.descriptors()
    assert found.fingerprint == describer.fingerprint
    images = [read_image(pictures / name) for name in found.ids]
    np.testing.assert_allclose(found.vectors, describer.describe_images(images), atol=1e-3)


def test_takes_every_kind_of_picture(collection: Collection, pictures: Path) -> None:
    path = pictures / "000.jpg"
    pixels = read_image(path)
    collection.add([path], ids=["path"])
    kinds: list[Source] = [str(path), path.read_bytes(), Image.fromarray(pixels), pixels]
    collection.add(kinds, ids=["text", "bytes", "pillow", "array"])
    vectors = dict(zip(collection.descriptors().ids, collection.descriptors().vectors, strict=True))
    for kind in ("text", "bytes", "pillow", "array"):
        np.testing.assert_array_equal(vectors[kind], vectors["path"])
    assert collection.get("bytes").sha256 == collection.get("path").sha256
    assert {len(found) for found in collection.search(kinds, threshold=-2)} == {5}
    with pytest.raises(ConfigError, match="sha256"):
        collection.add(pixels)


def test_names_pictures_by_path_name_or_content(
    collection: Collection, pictures: Path, tmp_path: Path
) -> None:
    collection.add(pictures / "000.jpg")
    collection.add(pictures / "001.jpg", id_from="name")
    collection.add([pictures / "002.jpg", (pictures / "002.jpg").read_bytes()], id_from="sha256")
    ids = {record.id for record in collection.list()}
    sha256 = collection.get(next(id_ for id_ in ids if len(id_) == 64)).sha256
    assert ids == {str(pictures / "000.jpg"), "001.jpg", sha256}
    other = make_pictures(tmp_path / "other", 1, seed=9)
    with pytest.raises(MismatchError, match="000.jpg"):
        collection.add([pictures, *other], id_from="name")
    with pytest.raises(MismatchError, match="3 ids for 20 pictures"):
        collection.add(pictures, ids=["a", "b", "c"])
    with pytest.raises(DataError, match="empty"):
        collection.add(pictures / "000.jpg", ids=[""])
    assert len(collection) == 3


def test_passes_over_what_has_not_changed(
    collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit4icd.collection.pictures._SETTLED_NS", 0)
    collection.add(pictures)
    version = collection.version
    summary = collection.add(pictures)
    assert (summary.n_added, summary.n_updated, summary.n_unchanged) == (0, 0, 20)
    assert collection.version == version
    (pictures / "004.jpg").write_bytes((pictures / "005.jpg").read_bytes())
    os.utime(pictures / "006.jpg")
    summary = collection.add(pictures)
    assert (summary.n_updated, summary.n_unchanged) == (1, 19)
    assert len(collection) == 20
    first, second = (
        collection.get(str(pictures / "004.jpg")),
        collection.get(str(pictures / "005.jpg")),
    )
    assert first.sha256 == second.sha256


def test_notices_a_change_that_keeps_size_and_time(collection: Collection, pictures: Path) -> None:
    path = pictures / "000.jpg"
    data, when = path.read_bytes(), path.stat().st_mtime_ns
    collection.add(path)
    path.write_bytes(data[:-40] + bytes(len(data[-40:])))
    os.utime(path, ns=(when, when))
    summary = collection.add(path)
    assert summary.n_unchanged == 0


def test_keeps_metadata_until_other_is_given(collection: Collection, pictures: Path) -> None:
    collection.add(pictures / "000.jpg", ids=["a"], metadata={"owner": "me", "ä": "\n"})
    collection.add(pictures / "001.jpg", ids=["a"])
    assert collection.get("a").metadata == {"owner": "me", "ä": "\n"}
    assert collection.add(pictures / "001.jpg", ids=["a"], metadata={"owner": "you"}).n_updated == 1
    assert collection.get("a").metadata == {"owner": "you"}
    collection.add(
        [pictures / "002.jpg", pictures / "003.jpg"], ids=["b", "c"], metadata=[{"n": "2"}, {}]
    )
    assert collection.search(pictures / "002.jpg", threshold=-2)[0][0].metadata == {"n": "2"}
    with pytest.raises(MismatchError, match="1 for 20"):
        collection.add(pictures, metadata=[{}])


def test_leaves_out_what_it_cannot_judge(collection: Collection, pictures: Path) -> None:
    (pictures / "000.jpg").write_bytes(b"")
    (pictures / "001.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    Image.new("RGB", (80, 60), "white").save(pictures / "blank.png")
    summary = collection.add(pictures)
    assert summary.n_added == 18
    assert [item.reason for item in summary.skipped] == ["empty", "corrupt", "image_too_plain"]
    assert len(collection) == 18
    (answer,) = collection.ask(pictures / "blank.png", threshold=-2)
    assert answer.skipped is not None
    assert answer.skipped.reason == "image_too_plain"
    assert answer.matches == ()
    with pytest.raises(ImageError, match="one colour"):
        collection.search([pictures / "002.jpg", pictures / "blank.png"], threshold=-2)


@pytest.mark.parametrize("place", [0, 7, 15, 16, 19])
def test_loses_only_the_bad_file(
    place: int, collection: Collection, describer: OnnxDescriber, pictures: Path, tmp_path: Path
) -> None:
    collection.add(pictures, id_from="name")
    good = dict(zip(collection.descriptors().ids, collection.descriptors().vectors, strict=True))
    (pictures / f"{place:03d}.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    other = Collection.create(tmp_path / "other", describer=describer)
    other.add(pictures, id_from="name")
    found = other.descriptors()
    assert sorted(found.ids) == sorted(good.keys() - {f"{place:03d}.jpg"})
    for id_, vector in zip(found.ids, found.vectors, strict=True):
        np.testing.assert_array_equal(vector, good[id_])


@pytest.mark.parametrize("place", [0, 10, 15, 16, 19])
def test_goes_on_with_other_queries_when_one_is_bad(
    place: int, collection: Collection, pictures: Path
) -> None:
    collection.add(pictures)
    (pictures / f"{place:03d}.jpg").write_bytes(b"")
    answers = list(collection.ask(pictures, threshold=-2))
    assert [answer.query for answer in answers] == [
        str(path) for path in sorted(pictures.iterdir())
    ]
    for row, answer in enumerate(answers):
        assert (answer.skipped is not None) == (row == place)
        assert row == place or answer.matches[0].reference == answer.query


def test_survives_odd_names(collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    paths = make_pictures(folder, 6)
    names = [
        "new\nline.jpg",
        "q\"uo'te.jpg",
        "😀.jpg",
        os.fsdecode(b"latin-\xe9.jpg"),
        "a" * 240 + ".jpg",
    ]
    for path, name in zip(paths, names):
        path.rename(folder / name)
    collection.add(folder, id_from="name")
    assert sorted(record.id for record in collection.list()) == sorted([*names, "005.jpg"])
    for name in names:
        assert name in collection
        assert _best(collection, folder / name) == name
    assert collection.remove(names) == 5
    assert [record.id for record in collection.list()] == ["005.jpg"]


def test_removes_pictures_for_good(collection: Collection, pictures: Path) -> None:
    collection.add(pictures, id_from="name")
    assert _best(collection, pictures / "003.jpg") == "003.jpg"
    assert collection.remove(["003.jpg", "nowhere.jpg"]) == 1
    assert collection.remove("003.jpg") == 0
    assert "003.jpg" not in collection
    assert "" not in collection
    assert _best(collection, pictures / "003.jpg") != "003.jpg"
    with pytest.raises(DataError, match=r"003\.jpg"):
        collection.get("003.jpg")
    collection.add(pictures / "003.jpg", id_from="name")
    assert _best(collection, pictures / "003.jpg") == "003.jpg"
    assert collection.remove([f"{row:03d}.jpg" for row in range(20)]) == 20
    assert len(collection) == 0


def test_finds_what_another_process_added(
    collection: Collection, describer: OnnxDescriber, pictures: Path
) -> None:
    collection.add(pictures / "000.jpg", id_from="name")
    reader = Collection.open(collection.uri, describer=describer)
    assert _best(reader, pictures / "005.jpg") == "000.jpg"
    collection.add(pictures, id_from="name")
    assert _best(reader, pictures / "005.jpg") == "005.jpg"
    collection.remove(["005.jpg"])
    assert _best(reader, pictures / "005.jpg") != "005.jpg"


def test_searches_as_the_obvious_computation_does(
    collection: Collection, describer: OnnxDescriber, pictures: Path, rng: np.random.Generator
) -> None:
    for start in range(0, 20, 6):  # several files in the table, one with a hole
        collection.add(sorted(pictures.iterdir())[start : start + 6], id_from="name")
    collection.remove(["007.jpg"])
    queries = [rng.integers(0, 255, (30, 40, 3)).astype(np.uint8) for _ in range(5)]
    stored = collection.descriptors()
    similarities = describer.describe_images(queries) @ stored.vectors.T
    for row, matches in zip(
        similarities, collection.search(queries, k=7, threshold=-2), strict=True
    ):
        order = np.argsort(-row)[:7]
        assert [match.reference for match in matches] == [stored.ids[index] for index in order]
        np.testing.assert_allclose([match.similarity for match in matches], row[order], atol=1e-5)


def test_finds_the_same_by_sketches(
    collection: Collection,
    describer: OnnxDescriber,
    pictures: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for start in range(0, 20, 6):
        collection.add(sorted(pictures.iterdir())[start : start + 6], id_from="name")
    collection.remove(["007.jpg"])
    queries = [rng.integers(0, 255, (30, 40, 3)).astype(np.uint8) for _ in range(5)]
    exact = collection.search(queries, k=7, threshold=-2)
    monkeypatch.setattr(memory_room, "EXACT_ROWS", 10)
    opened = Collection.open(collection.uri, describer=describer)
    for one, other in zip(exact, opened.search(queries, k=7, threshold=-2), strict=True):
        assert [match.reference for match in one] == [match.reference for match in other]
        scores = [match.score for match in one]
        np.testing.assert_allclose([match.score for match in other], scores, atol=1e-6)
    assert isinstance(opened._memory.newest().blocks[0].descriptors, SketchIndex)
    assert opened.descriptors().ids == collection.descriptors().ids
    opened.remove([f"{row:03d}.jpg" for row in range(10)])  # few enough to hold them all again
    assert _best(opened, pictures / "015.jpg") == "015.jpg"
    assert not isinstance(opened._memory.newest().blocks[0].descriptors, SketchIndex)


@pytest.mark.parametrize("most", [0, 100])
def test_answers_all_queries_by_one_version(
    most: int, collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_room, "EXACT_ROWS", most)
    collection.add(pictures, id_from="name")
    collection.remove(["004.jpg"])
    collection.add(pictures / "004.jpg", id_from="name")
    monkeypatch.setattr(Table, "find", None)  # rows are read by their places, not by their ids
    answers = collection.ask(pictures, k=3, threshold=-2)
    first = next(answers)
    collection.remove([f"{row:03d}.jpg" for row in range(10, 20)])
    found = {match.reference for answer in answers for match in answer.matches}
    assert first.matches[0].reference == "000.jpg"
    assert {f"{row:03d}.jpg" for row in range(1, 20)} <= found


@pytest.mark.parametrize("most", [0, 100])
def test_passes_over_what_it_can_read_no_more(
    most: int, collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_room, "EXACT_ROWS", most)
    collection.add(pictures, id_from="name")
    answers = collection.ask(pictures, k=20, threshold=-2)
    next(answers)
    collection.remove([f"{row:03d}.jpg" for row in range(10, 20)])
    collection.compact(keep=timedelta(0))
    last = [answer.matches for answer in answers][-1]
    assert {match.reference for match in last} == {f"{row:03d}.jpg" for row in range(10)}


def test_tells_of_an_empty_collection(collection: Collection, pictures: Path) -> None:
    (answer,) = collection.ask(pictures / "000.jpg", threshold=-2)
    assert (answer.matches, answer.nearest) == ((), None)
    assert len(collection.descriptors()) == 0
    assert collection.list() == []
    assert collection.remove(["a"]) == 0
    assert collection.add([]).n_added == 0


def test_pages_through_the_ids(collection: Collection, pictures: Path) -> None:
    collection.add(pictures, id_from="name")
    pages, after = [], None
    while page := collection.list(after=after, limit=7):
        pages.append([record.id for record in page])
        after = page[-1].id
    assert [len(page) for page in pages] == [7, 7, 6]
    assert [id_ for page in pages for id_ in page] == [f"{row:03d}.jpg" for row in range(20)]
    record = collection.get("000.jpg")
    assert (record.width, record.height) == Image.fromarray(read_image(pictures / "000.jpg")).size
    assert record.source == str(pictures / "000.jpg")


def test_records_the_size_of_large_pictures(collection: Collection, tmp_path: Path) -> None:
    Image.effect_noise((1200, 900), 90).convert("RGB").save(tmp_path / "large.jpg")
    packaged = Collection.create(tmp_path / "packaged")
    packaged.add(tmp_path / "large.jpg", ids=["a"])
    assert (packaged.get("a").width, packaged.get("a").height) == (1200, 900)


def test_acknowledges_only_what_is_stored(
    collection: Collection,
    describer: OnnxDescriber,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing_room, "_COMMIT_ROWS", 16)
    reader, told = Collection.open(collection.uri, describer=describer), []

    def progress(report: AddProgress) -> None:
        told.append(report)
        assert all(id_ in reader for id_ in report.stored)

    collection.add(pictures, id_from="name", progress=progress)
    assert [id_ for report in told for id_ in report.stored] == [
        f"{row:03d}.jpg" for row in range(20)
    ]
    assert (told[-1].n_done, told[-1].n_images) == (20, 20)


def test_stores_what_is_done_when_it_is_stopped(
    collection: Collection, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_room, "_COMMIT_S", 1_000)  # however slow the machine is

    def stop(report: AddProgress) -> None:
        if not report.stored:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collection.add(pictures, progress=stop)
    assert len(collection) == 16
    assert collection.add(pictures).n_unchanged == 16


def test_refuses_another_model(collection: Collection, tmp_path: Path, pictures: Path) -> None:
    other = make_model(tmp_path / "other-model", seed=5)
    with pytest.raises(MismatchError, match="index add NEW"):
        Collection.open(collection.uri, model=other)
    unasked = Collection.open(collection.uri)
    assert unasked.info().n_images == 0
    with pytest.raises(MismatchError, match="--model"):
        unasked.add(pictures)


def test_refuses_what_is_no_collection(
    collection: Collection, describer: OnnxDescriber, tmp_path: Path
) -> None:
    import lance
    import pyarrow as pa

    with pytest.raises(StoreError, match="index add"):
        Collection.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        Collection.create(collection.uri, describer=describer)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="exists already"):
        Collection.create(tmp_path / "full", describer=describer)
    (tmp_path / "begun" / "data").mkdir(parents=True)  # as a kill may leave it
    (tmp_path / "begun" / "data" / "01.lance").write_bytes(b"LANC")
    assert len(Collection.create(tmp_path / "begun", describer=describer)) == 0
    lance.write_dataset(pa.table({"a": [1]}), tmp_path / "table")
    with pytest.raises(FormatError, match="no collection"):
        Collection.open(tmp_path / "table")
    with pytest.raises(ConfigError, match="UTF-8"):
        Collection.create(tmp_path / os.fsdecode(b"\xe9"), describer=describer)


def test_refuses_a_newer_format(
    describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("vit4icd.collection.table.FORMAT_VERSION", 99)
        Collection.create(tmp_path / "newer", describer=describer)
    with pytest.raises(FormatError, match="format 99"):
        Collection.open(tmp_path / "newer")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "at least 1"), ({"threshold": "P1x"}, "P99"), ({"threshold": "auto"}, "calibrat")],
)
def test_refuses_bad_options(
    options: dict[str, int | str], message: str, collection: Collection, pictures: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        collection.search(pictures, **options)  # type: ignore[arg-type]


def test_normalises_and_calibrates_scores(photographs: Collection) -> None:
    describer = photographs.describer
    assert describer.calibration is not None
    for answer in photographs.ask(QUERIES):
        assert answer.nearest is not None
        assert answer.nearest.score < answer.nearest.similarity
        expected = describer.calibration.probability(answer.nearest.score, n_references=100)
        assert answer.nearest.probability == pytest.approx(float(expected))
        assert all((match.probability or 0) >= 0.89 for match in answer.matches)
        assert all(match.verdict in ("copy", "exact") for match in answer.matches)
    lax, strict = (photographs.search(QUERIES, threshold=name) for name in ("P50", "P99.9"))
    assert sum(map(len, lax)) > sum(map(len, strict)) > 0


def test_finds_the_copies_of_the_demo(photographs: Collection) -> None:
    truth = dict(
        line.split(",") for line in Path("src/vit4icd/demo/truth.csv").read_text().splitlines()[1:]
    )
    found = {Path(answer.query).stem: answer for answer in photographs.ask(QUERIES)}
    right = [
        query
        for query, answer in found.items()
        if answer.matches and Path(answer.matches[0].reference).stem == truth[query]
    ]
    assert len(right) >= 12
    assert all(truth[query] for query, answer in found.items() if answer.matches)


def test_proves_matches_and_reports_the_proof(photographs: Collection) -> None:
    (matches,) = photographs.search(QUERIES / "q02.jpg", verify=True)
    assert matches[0].reference == "brook.jpg"
    assert matches[0].verified
    assert matches[0].overlap is not None
    assert 0 < matches[0].overlap.query_share <= 1
    (unproven,) = photographs.search(QUERIES / "q02.jpg")
    assert not unproven[0].verified


@pytest.mark.parametrize(("k", "n_tried"), [(1, 10), (10, 10), (14, 14), (22, 18)])
def test_tries_to_prove_as_many_as_are_asked_for_within_bounds(
    k: int, n_tried: int, photographs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[LocalFeatures] = []

    def counted(query: LocalFeatures, reference: LocalFeatures) -> None:
        tried.append(reference)

    monkeypatch.setattr(searching_room, "_MOST_TRIED", 18)
    monkeypatch.setattr(searching_room, "find_overlap", counted)
    (matches,) = photographs.search(PHOTOGRAPHS / "cat.jpg", k=k, threshold=-2, verify=True)
    assert len(tried) == n_tried
    assert len(matches) == k
    assert sum(match.verified for match in matches) == min(k, n_tried)


def test_does_not_prove_without_local_features(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "collection")
    collection.add(PHOTOGRAPHS / "cat.jpg", id_from="name", features=False)
    (matches,) = collection.search(PHOTOGRAPHS / "cat.jpg", verify=True)
    assert (matches[0].verified, matches[0].verdict) == (False, "exact")
    assert collection.add(PHOTOGRAPHS / "cat.jpg", id_from="name").n_updated == 1
    (matches,) = collection.search(PHOTOGRAPHS / "cat.jpg", verify=True)
    assert matches[0].verified
    assert collection.add(PHOTOGRAPHS / "cat.jpg", id_from="name", features=False).n_unchanged == 1


@pytest.mark.parametrize(
    ("turns", "mirrored", "orientation"),
    [(1, False, "rotated 270"), (2, False, "rotated 180"), (3, True, "flipped and rotated 90")],
)
def test_finds_turned_and_mirrored_pictures(
    turns: int, mirrored: bool, orientation: str, photographs: Collection
) -> None:
    image = read_image(PHOTOGRAPHS / "lamp.jpg")
    turned = np.ascontiguousarray(np.rot90(image, -turns)[:, :: -1 if mirrored else 1])
    (matches,) = photographs.search(turned, rotate=True)
    assert matches[0].reference == "lamp.jpg"
    assert matches[0].orientation == orientation
    assert matches[0].similarity == pytest.approx(1, abs=0.02)


def test_turns_large_pictures_reduced(photographs: Collection) -> None:
    large = resize(read_image(PHOTOGRAPHS / "lamp.jpg"), 1_200, 900)
    views = dict(views_of(large, rotate=True, at_least=200))
    assert views["upright"] is large
    assert views["rotated 180"].shape == (225, 200, 3)
    assert views["flipped and rotated 90"].shape == (200, 225, 3)
    assert views["flipped"].mean() == pytest.approx(large.mean(), abs=1)
    (matches,) = photographs.search(np.rot90(large).copy(), rotate=True)
    assert (matches[0].reference, matches[0].orientation) == ("lamp.jpg", "rotated 90")


def test_finds_mirrored_pictures(photographs: Collection) -> None:
    mirrored = np.ascontiguousarray(read_image(PHOTOGRAPHS / "lamp.jpg")[:, ::-1])
    (matches,) = photographs.search(mirrored, flip=True)
    assert (matches[0].reference, matches[0].orientation) == ("lamp.jpg", "flipped")
    upright = photographs.search(mirrored, threshold=-2)[0][0]
    assert 1 >= matches[0].similarity > upright.similarity
    assert matches[0].score > upright.score


def test_gives_matches_as_an_arrow_table(photographs: Collection, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xe9.jpg")
    odd.write_bytes((PHOTOGRAPHS / "cat.jpg").read_bytes())
    table = matches_table(photographs.search([PHOTOGRAPHS / "wine.jpg", odd], verify=True, k=1))
    assert table["reference"].to_pylist() == ["wine.jpg", "cat.jpg"]
    assert table["verdict"].to_pylist() == ["exact", "exact"]
    assert table["query_share"].to_pylist() == pytest.approx([1, 1], abs=0.02)
    assert table["query_base64"].to_pylist()[0] is None
    assert matches_table([]).num_rows == 0
    assert "query" in matches_table([]).column_names


def test_finds_a_small_copy_in_a_part_of_the_query(photographs: Collection) -> None:
    canvas = resize(read_image(PHOTOGRAPHS / "wine.jpg"), 900, 800)
    canvas[400:, 450:] = resize(read_image(PHOTOGRAPHS / "lamp.jpg"), 450, 400)
    whole = {match.reference: match for match in photographs.search(canvas, threshold=-2)[0]}
    (matches,) = photographs.search(canvas, regions=True)
    found = {match.reference: match for match in matches}
    assert found["lamp.jpg"].orientation == "upright, bottom right"
    assert found["lamp.jpg"].similarity > 0.85 > whole["lamp.jpg"].similarity


def test_leaves_out_parts_too_plain_to_judge(photographs: Collection) -> None:
    canvas = np.full((800, 900, 3), 255, np.uint8)
    canvas[:400, :450] = resize(read_image(PHOTOGRAPHS / "lamp.jpg"), 450, 400)
    (matches,) = photographs.search(canvas, regions=True, threshold=-2)
    places = {match.orientation for match in matches}
    assert matches[0].reference == "lamp.jpg"
    assert places <= {"upright"} | {
        f"upright, {place}" for place in ("top left", "top centre", "middle left", "middle centre")
    }
