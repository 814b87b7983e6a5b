"""Folders, shards and pair lists: their order, their classes, and what is wrong with them."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit4icd.datasets import (
    class_balanced_order,
    open_classes,
    open_images,
    read_labelled_pairs,
)
from vit4icd.errors import DataError, FormatError, ImageError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def _shard(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def test_walks_folders_in_sorted_order_and_passes_other_files_over(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jpg", "a/2.PNG", "a/1.webp", ".hidden/x.jpg", ".x.jpg", "notes.txt")
    source = open_images([tmp_path])
    found = [str(Path(name).relative_to(tmp_path)) for name in source.names]
    assert found == ["b.jpg", "a/1.webp", "a/2.PNG"]
    assert source.read(1) == b"a/1.webp"


def test_survives_symbolic_link_loops_and_odd_names(tmp_path: Path) -> None:
    odd = ["näme \n'\".jpg", "😀.jpg", os.fsdecode(b"latin-\xe9.jpg")]
    _touch(tmp_path, *odd)
    (tmp_path / "loop").symlink_to(tmp_path)
    source = open_images([tmp_path])
    assert sorted(Path(name).name for name in source.names) == sorted(odd)
    assert all(source.read(index) for index in range(3))


def test_chains_files_folders_and_shards(tmp_path: Path) -> None:
    _touch(tmp_path, "d/1.jpg", "single.dat")
    shard = _shard(tmp_path / "s.tar", "x.jpg", "readme.md", "y.png")
    source = open_images([tmp_path / "single.dat", shard, tmp_path / "d"])
    assert [Path(name).name for name in source.names] == ["single.dat", "x.jpg", "y.png", "1.jpg"]
    assert source.names[1] == "s.tar/x.jpg"
    assert [source.read(index) for index in range(4)] == [
        b"single.dat",
        b"x.jpg",
        b"y.png",
        b"d/1.jpg",
    ]


def test_says_what_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg"):
        open_images([tmp_path / "gone.jpg"])
    (tmp_path / "bad.tar").write_bytes(b"nonsense" * 100)
    with pytest.raises(FormatError, match=r"bad\.tar"):
        open_images([tmp_path / "bad.tar"])
    _touch(tmp_path, "a.jpg")
    source = open_images([tmp_path / "a.jpg"])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ImageError) as caught:
        source.read(0)
    assert caught.value.reason == "missing"


def test_numbers_the_official_layout_as_the_original_does(tmp_path: Path) -> None:
    _touch(
        tmp_path, "0_0.jpg", "1000_0.jpg", "100_0.jpg", "10_0.jpg", "1_0.jpg", "1_1.jpg", "2_0.jpg"
    )
    source = open_classes(tmp_path)
    classes = {Path(n).name.split("_")[0]: int(c) for n, c in zip(source.names, source.labels)}
    assert classes == {"0": 0, "1000": 1, "100": 2, "10": 3, "1": 4, "2": 5}
    assert source.n_classes == 6


def test_takes_a_class_per_sub_folder_or_per_picture(tmp_path: Path) -> None:
    _touch(tmp_path / "one", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    assert open_classes(tmp_path / "one").labels.tolist() == [0, 0, 1]
    _touch(tmp_path / "two", "b.jpg", "a.jpg")
    assert open_classes(tmp_path / "two").labels.tolist() == [0, 1]
    (tmp_path / "three").mkdir()
    _shard(tmp_path / "three" / "s.tar", "x.jpg", "y.jpg")
    assert open_classes(tmp_path / "three").n_classes == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        open_classes(tmp_path / "empty")


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.integers(0, 99), st.booleans())
def test_visits_every_class_once_with_four_rows_in_a_row(
    sizes: list[int], seed: int, fill: bool
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = class_balanced_order(
        labels, per_class=4, fill=fill, order_rng=np.random.default_rng(seed)
    )
    runs = [4 if size > 1 or fill else 1 for size in sizes]
    assert len(order) == sum(runs)
    seen: list[int] = []
    start = 0
    while start < len(order):
        label = int(labels[order[start]])
        run = order[start : start + runs[label]]
        assert (labels[run] == label).all()
        if sizes[label] >= 5:
            assert len(set(run.tolist())) == 4
        seen.append(label)
        start += runs[label]
    assert sorted(seen) == list(range(len(sizes)))


def test_reads_pairs_from_csv_relative_to_it(tmp_path: Path) -> None:
    _touch(tmp_path, "q/1.jpg", "r/1.jpg")
    (tmp_path / "pairs.csv").write_text("query,reference\nq/1.jpg,r/1.jpg\n")
    pairs = read_labelled_pairs(tmp_path / "pairs.csv")
    assert list(pairs.queries) == [tmp_path / "q/1.jpg"]
    (tmp_path / "pairs.csv").write_text("q/1.jpg,r/2.jpg\n")
    with pytest.raises(DataError, match=r"r/2\.jpg"):
        read_labelled_pairs(tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("q/1.jpg\n")
    with pytest.raises(FormatError, match=r"q/1\.jpg"):
        read_labelled_pairs(tmp_path / "pairs.csv")


def _official_pairs(folder: Path, protocol: int) -> None:
    queries, references = {}, {}
    for label in range(12):
        queries[str(label)], references[str(label)] = f"Q{label:05d}.jpg", f"R{label:06d}.jpg"
        _touch(folder, f"query/{label}/Q{label:05d}.jpg", f"reference/{label}/R{label:06d}.jpg")
    for name, table in (("q", queries), ("r", references)):
        path = folder / f"pull_gt_{name}_forimage.pickle"
        path.write_bytes(pickle.dumps(table, protocol=protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_the_original_dictionaries_of_any_protocol(protocol: int, tmp_path: Path) -> None:
    _official_pairs(tmp_path, protocol)
    pairs = read_labelled_pairs(tmp_path)
    assert [path.name for path in pairs.queries[:2]] == ["Q00000.jpg", "Q00001.jpg"]
    assert pairs.references[11] == tmp_path / "reference" / "11" / "R000011.jpg"


def test_executes_nothing_in_a_pickle(tmp_path: Path) -> None:
    _official_pairs(tmp_path, 4)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    path = tmp_path / "pull_gt_q_forimage.pickle"
    path.write_bytes(pickle.dumps({"0": Trap()}))
    with pytest.raises(FormatError, match="more than a dictionary of strings"):
        read_labelled_pairs(tmp_path)
    assert not trap.exists()
    path.write_bytes(b"\x80\x04}garbage")
    with pytest.raises(FormatError):
        read_labelled_pairs(tmp_path)
