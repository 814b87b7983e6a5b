"""Files: whole or not at all, refused when foreign or newer, and a journal that survives a kill."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vit4icd.errors import DataError, FormatError, MismatchError, StoreError
from vit4icd.preprocessing import OFFICIAL
from vit4icd.storage import (
    DescriptorWriter,
    ModelCard,
    atomic_path,
    fingerprint,
    map_descriptors,
    name_fields,
    read_descriptors,
    read_json,
    read_model_card,
    read_name,
    read_pairs,
    read_truth,
    write_descriptors,
    write_json,
    write_model_card,
    write_pairs,
)
from vit4icd.types import DescriptorSet, Pairs

names = st.lists(
    st.text(st.characters(exclude_characters="\x00/", exclude_categories=["Cs"]), min_size=1),
    unique_by=lambda name: name,
    min_size=1,
    max_size=6,
)


def test_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_lets_two_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_path(path) as one:
        one.write_text("first")
        with atomic_path(path) as other:
            other.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=40)
@given(ids=names, data=st.data())
def test_gives_back_the_descriptors_that_were_written(
    ids: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    floats = st.floats(-1, 1, width=32)
    vectors = data.draw(hnp.arrays(np.float32, (len(ids), 3), elements=floats))
    path = tmp_path_factory.mktemp("x") / "x.h5"
    write_descriptors(path, DescriptorSet(ids=ids, vectors=vectors, fingerprint="abc"))
    back = read_descriptors(path, ids="path")
    assert list(back.ids) == ids
    np.testing.assert_array_equal(back.vectors, vectors)
    assert back.fingerprint == "abc"


def test_maps_vectors_instead_of_reading_them(tmp_path: Path) -> None:
    vectors = np.ones((4, 2), np.float32)
    write_descriptors(tmp_path / "x.h5", DescriptorSet(ids=list("abcd"), vectors=vectors))
    (mapped,) = map_descriptors([tmp_path / "x.h5"])
    assert isinstance(mapped.vectors, np.memmap)


def _write_h5(path: Path, ids: list[str], dim: int = 2, model: str | None = None) -> Path:
    vectors = np.arange(len(ids) * dim, dtype=np.float32).reshape(len(ids), dim)
    write_descriptors(path, DescriptorSet(ids=ids, vectors=vectors, fingerprint=model))
    return path


def test_stacks_files_in_the_given_order(tmp_path: Path) -> None:
    one, two = _write_h5(tmp_path / "1.h5", ["b"]), _write_h5(tmp_path / "2.h5", ["a"])
    assert list(read_descriptors(two, one).ids) == ["a", "b"]


def test_refuses_files_that_do_not_belong_together(tmp_path: Path) -> None:
    one = _write_h5(tmp_path / "1.h5", ["a"], model="x")
    with pytest.raises(MismatchError, match="dimensions"):
        read_descriptors(one, _write_h5(tmp_path / "2.h5", ["b"], dim=3, model="x"))
    with pytest.raises(MismatchError, match="same model"):
        read_descriptors(one, _write_h5(tmp_path / "3.h5", ["b"], model="y"))
    with pytest.raises(MismatchError, match="--ids path"):
        read_descriptors(_write_h5(tmp_path / "4.h5", ["p/1.jpg", "q/1.jpg"]))


def test_reads_chunked_and_wider_files_of_others(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("vectors", data=np.eye(3), chunks=(1, 3), compression="gzip")
        file.create_dataset("image_names", data=np.array([b"a.jpg", b"b.jpg", b"c.png"]))
    back = read_descriptors(tmp_path / "x.h5")
    assert list(back.ids) == ["a", "b", "c"]
    assert back.vectors.dtype == np.float32


def test_refuses_damaged_and_newer_files(tmp_path: Path) -> None:
    good = _write_h5(tmp_path / "x.h5", ["a", "b"])
    data = good.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 9):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        with pytest.raises(FormatError, match="cut.h5"):
            read_descriptors(tmp_path / "cut.h5")
    with h5py.File(good, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(FormatError, match="format 99"):
        read_descriptors(good)


def _writer(path: Path, **changes: object) -> DescriptorWriter:
    options = {"dim": 2, "fingerprint": "m", "config": {"a": 1}} | changes
    return DescriptorWriter(path, **options)  # type: ignore[arg-type]


def test_goes_on_after_a_kill_at_any_byte(tmp_path: Path) -> None:
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    with _writer(tmp_path / "x.h5") as writer:
        writer.append(["a", "ü\n"], vectors[:2])
        writer.append(["c", "d"], vectors[2:])
    folder = tmp_path / "x.h5.partial"
    whole = {name: (folder / name).read_bytes() for name in ("names", "vectors")}
    for n_names in range(len(whole["names"]) + 1):
        for n_vectors in (0, 3, 8, 15, 16, 31, 32):
            (folder / "names").write_bytes(whole["names"][:n_names])
            (folder / "vectors").write_bytes(whole["vectors"][:n_vectors])
            with _writer(tmp_path / "x.h5") as writer:
                assert writer.names == ["a", "ü\n", "c", "d"][: len(writer.names)]
                np.testing.assert_array_equal(writer._read_vectors(), vectors[: len(writer.names)])
                assert len(writer.names) == min(
                    whole["names"][:n_names].count(b"\n"), n_vectors // 8
                )


def test_finishes_in_the_order_asked_for_and_drops_the_journal(tmp_path: Path) -> None:
    with _writer(tmp_path / "x.h5") as writer:
        writer.append(["b", "a"], np.eye(2, dtype=np.float32))
        writer.finish(order=["a", "missing", "b"])
    back = read_descriptors(tmp_path / "x.h5", ids="path")
    assert list(back.ids) == ["a", "b"]
    np.testing.assert_array_equal(back.vectors, np.eye(2)[::-1])
    assert not (tmp_path / "x.h5.partial").exists()


def test_lets_one_run_at_a_time_write_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with _writer(path) as writer:
        writer.append(["a"], np.ones((1, 2), np.float32))
        with pytest.raises(StoreError, match=r"another run is writing .*x\.h5\.partial"):
            _writer(path)
        writer.append(["b"], np.ones((1, 2), np.float32))
    with _writer(path) as writer:
        assert writer.names == ["a", "b"]
        writer.finish()
    with _writer(path) as writer:  # begins anew
        assert writer.names == []


def test_refuses_a_journal_begun_with_other_options(tmp_path: Path) -> None:
    _writer(tmp_path / "x.h5").close()
    with pytest.raises(MismatchError, match="fingerprint: 'm' there, 'n' here"):
        _writer(tmp_path / "x.h5", fingerprint="n")


def test_takes_over_no_rows_of_a_journal_that_does_not_say_whose_they_are(tmp_path: Path) -> None:
    with _writer(tmp_path / "x.h5") as writer:
        writer.append(["a"], np.ones((1, 2), np.float32))
    (tmp_path / "x.h5.partial" / "config.json").unlink()
    with _writer(tmp_path / "x.h5", fingerprint="n") as writer:
        assert writer.names == []
        writer.append(["b"], np.zeros((1, 2), np.float32))
        np.testing.assert_array_equal(writer.finish().vectors, [[0, 0]])


def test_writes_scores_with_six_decimals_or_in_full(tmp_path: Path) -> None:
    pairs = Pairs(queries=["a,b"], references=["=x"], scores=np.array([1 / 3]))
    write_pairs(tmp_path / "p.csv", pairs)
    assert (tmp_path / "p.csv").read_text() == 'query_id,ref_id,score\n"a,b",=x,0.333333\n'
    write_pairs(tmp_path / "p.csv", pairs, decimals=None)
    assert read_pairs(tmp_path / "p.csv").scores[0] == 1 / 3


@pytest.mark.parametrize("text", ["a,b\n", "a,b,c\n", "a,b,1,2\n"])
def test_names_the_line_of_a_malformed_pair(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("query_id,ref_id,score\n" + text)
    with pytest.raises(FormatError, match="line 2"):
        read_pairs(tmp_path / "p.csv")


def test_refuses_scores_that_are_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b,nan\n")
    with pytest.raises(DataError, match="finite"):
        read_pairs(tmp_path / "p.csv")


def test_skips_queries_without_a_reference_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("query_id,reference_id\nq1,r1\n\nq2,\nq3\nq1,r1\n")
    truth = read_truth(tmp_path / "t.csv")
    assert list(truth.queries) == ["q1", "q1"]


@pytest.mark.parametrize("header", ["query_id,reference_id", "query_id,ref_id", "query,reference"])
def test_takes_no_header_for_a_pair_though_a_mark_stands_before_it(
    header: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(f"\ufeff{header}\nq1,r1\n", "utf-8")
    assert list(read_truth(tmp_path / "t.csv").queries) == ["q1"]
    (tmp_path / "p.csv").write_text(f"\ufeff{header},score\nq1,r1,0.5\n", "utf-8")
    assert list(read_pairs(tmp_path / "p.csv").queries) == ["q1"]


def test_says_which_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="gone.csv"):
        read_pairs(tmp_path / "gone.csv")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        read_json(tmp_path / "x.json")


def _card() -> ModelCard:
    return ModelCard(
        architecture={"name": "vit_test"}, dim=16, preprocessing=OFFICIAL, fingerprint="f",
        files={"model.onnx": "0"}, provenance="here", licence="Apache-2.0", config={"a": [1]},
        seed=3, thresholds={"P90": 0.5},
    )  # fmt: skip


def test_gives_back_the_model_card_that_was_written(tmp_path: Path) -> None:
    write_model_card(tmp_path, _card())
    assert read_model_card(tmp_path) == _card()


def test_refuses_model_cards_that_are_newer_or_incomplete(tmp_path: Path) -> None:
    write_model_card(tmp_path, _card())
    fields = json.loads((tmp_path / "model.json").read_text())
    write_json(tmp_path / "model.json", fields | {"format_version": 2})
    with pytest.raises(FormatError, match="format 2"):
        read_model_card(tmp_path)
    del fields["dim"]
    write_json(tmp_path / "model.json", fields)
    with pytest.raises(FormatError, match="dim"):
        read_model_card(tmp_path)


def test_changes_the_fingerprint_with_weights_network_or_preprocessing() -> None:
    from dataclasses import replace

    one = fingerprint("w", {"name": "a"}, OFFICIAL)
    assert len(one) == 16
    assert one == fingerprint("w", {"name": "a"}, OFFICIAL)
    others = {
        fingerprint("v", {"name": "a"}, OFFICIAL),
        fingerprint("w", {"name": "b"}, OFFICIAL),
        fingerprint("w", {"name": "a"}, replace(OFFICIAL, image_size=256)),
    }
    assert one not in others
    assert len(others) == 3


@given(st.binary(min_size=1, max_size=40))
def test_keeps_every_byte_of_a_name_in_json(raw: bytes) -> None:
    name = os.fsdecode(raw)
    fields = json.loads(json.dumps(name_fields("path", name)))
    assert os.fsencode(read_name("path", fields)) == raw
    assert ("path_base64" in fields) == (not _is_utf8(raw))
    json.dumps(fields, ensure_ascii=False).encode("utf-8")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_writes_through_links_and_into_pipes(tmp_path: Path) -> None:
    target, link, pipe = (tmp_path / name for name in ("target", "link", "pipe"))
    target.write_text("old")
    link.symlink_to("target")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (link, pipe):
        with atomic_path(path) as given:
            given.write_bytes(b"new")
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    assert (os.read(reader, 9), pipe.is_fifo()) == (b"new", True)
    os.close(reader)
    assert {path.name for path in tmp_path.iterdir()} == {"target", "link", "pipe"}
