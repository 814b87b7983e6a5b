"""Folders and shards: their order, their classes, and what is wrong with them."""

import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import write_names
from vit4icd import datasets
from vit4icd.datasets import class_balanced_order, open_classes, open_images
from vit4icd.errors import DataError, FormatError, ImageError


def _shard(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return path


def test_walks_folders_in_sorted_order_and_passes_other_files_over(tmp_path: Path) -> None:
    write_names(tmp_path, "b.jpg", "a/2.PNG", "a/1.webp", ".hidden/x.jpg", ".x.jpg", "notes.txt")
    source = open_images([tmp_path])
    found = [str(Path(name).relative_to(tmp_path)) for name in source.names]
    assert found == ["b.jpg", "a/1.webp", "a/2.PNG"]
    assert source.read(1) == b"a/1.webp"


def test_survives_symbolic_link_loops_and_odd_names(tmp_path: Path) -> None:
    odd = ["näme \n'\".jpg", "😀.jpg", os.fsdecode(b"latin-\xe9.jpg")]
    write_names(tmp_path, *odd)
    (tmp_path / "loop").symlink_to(tmp_path)
    source = open_images([tmp_path])
    assert sorted(Path(name).name for name in source.names) == sorted(odd)
    assert all(source.read(index) for index in range(3))


def test_chains_files_folders_and_shards(tmp_path: Path) -> None:
    write_names(tmp_path, "d/1.jpg", "single.dat")
    shard = _shard(tmp_path / "s.tar", "x.jpg", "readme.md", "y.png")
    source = open_images([tmp_path / "single.dat", shard, tmp_path / "d"])
    assert [Path(name).name for name in source.names] == ["single.dat", "x.jpg", "y.png", "1.jpg"]
    assert source.names[1] == str(tmp_path / "s.tar" / "x.jpg")
    assert [source.read(index) for index in range(4)] == [
        b"single.dat",
        b"x.jpg",
        b"y.png",
        b"d/1.jpg",
    ]


def test_finds_shards_below_a_folder_before_its_pictures(tmp_path: Path) -> None:
    write_names(tmp_path, "a.jpg", "b/c.jpg")
    _shard(tmp_path / "z.tar", "1.jpg")
    _shard(tmp_path / "b" / "y.tar", "2.jpg")
    _shard(tmp_path / ".hidden.tar", "3.jpg")
    names = [Path(name).name for name in open_images([tmp_path]).names]
    assert names == ["1.jpg", "2.jpg", "a.jpg", "c.jpg"]


def test_tells_shards_of_one_name_apart(tmp_path: Path) -> None:
    shards = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shards.append(_shard(tmp_path / folder / "s.tar", "x.jpg"))
    assert len(set(open_images(shards).names)) == 2


def test_passes_members_of_shards_over_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("._a.jpg", "a.json", "a.jpg", "dir.jpg", "link.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 1
            if name == "dir.jpg":
                member.type, member.size = tarfile.DIRTYPE, 0
            if name == "link.jpg":
                member.type, member.size, member.linkname = tarfile.SYMTYPE, 0, "/etc/passwd"
            tar.addfile(member, io.BytesIO(b"x"))
    assert open_images([path]).names == [f"{path}/a.jpg"]


def test_reads_shards_in_any_order_from_threads_and_after_pickling(tmp_path: Path) -> None:
    names = [f"{number:03d}.jpg" * (number % 7 + 1) for number in range(60)]
    source = open_images([_shard(tmp_path / "s.tar", *names)])
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 5))
    for reader in (source, pickle.loads(pickle.dumps(source))):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(reader.read, rows.tolist()))
        assert found == [names[row].encode() for row in rows]


def test_says_when_a_shard_is_cut_or_shrinks(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "x.jpg" * 40, "y.jpg" * 40)
    source = open_images([path])
    os.truncate(path, 512 + 100)
    with pytest.raises(FormatError, match=r"s\.tar"):
        open_images([path])
    with pytest.raises(ImageError, match="ends inside") as caught:
        source.read(0)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("size", [1024, 1024 + 100])
def test_says_when_a_shard_ends_between_members(size: int, tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "x.jpg", "y.jpg")
    os.truncate(path, size)
    with pytest.raises(FormatError, match=r"s\.tar .* cut off, at byte 1024"):
        open_images([path])


def test_says_when_the_head_of_a_member_is_damaged(tmp_path: Path) -> None:
    path = _shard(tmp_path / "s.tar", "x.jpg", "y.jpg")
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"s\.tar .* damaged, or cut off, at byte 1024"):
        open_images([path])


def test_refuses_to_read_more_bytes_than_a_picture_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_images([_shard(tmp_path / "s.tar", "x.jpg")])
    monkeypatch.setattr(datasets, "MAX_BYTES", 4)
    with pytest.raises(ImageError) as caught:
        source.read(0)
    assert caught.value.reason == "too_many_bytes"


def test_lists_names_once(tmp_path: Path) -> None:
    write_names(tmp_path, "a.jpg", "b.jpg")
    source = open_images([tmp_path])
    assert source.names is source.names


def test_says_when_a_folder_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_names(tmp_path, "a/1.jpg", "secret/2.jpg")
    listed = os.scandir

    def scan(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("secret"):  # the super-user may list anything
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(DataError, match="secret.*Permission denied"):
        open_images([tmp_path])


def test_says_what_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg"):
        open_images([tmp_path / "gone.jpg"])
    (tmp_path / "bad.tar").write_bytes(b"nonsense" * 100)
    with pytest.raises(FormatError, match=r"bad\.tar"):
        open_images([tmp_path / "bad.tar"])
    write_names(tmp_path, "a.jpg")
    source = open_images([tmp_path / "a.jpg"])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ImageError) as caught:
        source.read(0)
    assert caught.value.reason == "missing"


def test_numbers_the_official_layout_as_the_original_does(tmp_path: Path) -> None:
    write_names(
        tmp_path, "0_0.jpg", "1000_0.jpg", "100_0.jpg", "10_0.jpg", "1_0.jpg", "1_1.jpg", "2_0.jpg"
    )
    source = open_classes(tmp_path)
    classes = {Path(n).name.split("_")[0]: int(c) for n, c in zip(source.names, source.labels)}
    assert classes == {"0": 0, "1000": 1, "100": 2, "10": 3, "1": 4, "2": 5}
    assert source.n_classes == 6


def test_takes_a_class_per_sub_folder_or_per_picture(tmp_path: Path) -> None:
    write_names(tmp_path / "one", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    assert open_classes(tmp_path / "one").labels.tolist() == [0, 0, 1]
    write_names(tmp_path / "two", "b.jpg", "a.jpg")
    assert open_classes(tmp_path / "two").labels.tolist() == [0, 1]
    (tmp_path / "three").mkdir()
    _shard(tmp_path / "three" / "s.tar", "x.jpg", "y.jpg")
    assert open_classes(tmp_path / "three").n_classes == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        open_classes(tmp_path / "empty")


def test_takes_linked_class_folders_but_no_hidden_ones(tmp_path: Path) -> None:
    write_names(tmp_path, "elsewhere/cat/1.jpg", "data/dog/1.jpg", "data/.cache/1.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    source = open_classes(tmp_path / "data")
    assert [Path(name).parts[-2] for name in source.names] == ["cat", "dog"]


def test_refuses_pictures_beside_class_folders(tmp_path: Path) -> None:
    write_names(tmp_path, "cat/1.jpg", "dog/1.jpg", "stray.jpg")
    with pytest.raises(DataError, match=r"stray\.jpg"):
        open_classes(tmp_path)


def test_gives_every_picture_of_shards_a_class_of_its_own(tmp_path: Path) -> None:
    write_names(tmp_path, "loose.jpg")
    (tmp_path / "more").mkdir()
    _shard(tmp_path / "more" / "s.tar", "x.jpg", "y.jpg")
    assert open_classes(tmp_path).labels.tolist() == [0, 1, 2]


def test_fills_small_classes_from_their_other_pictures() -> None:
    labels = np.array([0, 0, 0, 1])
    for seed in range(20):
        order = class_balanced_order(labels, order_rng=np.random.default_rng(seed))
        rows = [row for row in order.tolist() if labels[row] == 0]
        assert len(order) == 5
        assert rows[0] not in rows[1:]
        again = class_balanced_order(labels, order_rng=np.random.default_rng(seed))
        assert order.tolist() == again.tolist()


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
