"""Copies as files: the official layout, whoever makes which file, whatever is broken."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vit4icd.copies import prepare_copies, write_contact_sheet
from vit4icd.datasets import open_classes, open_images
from vit4icd.edits import robust_config
from vit4icd.errors import ConfigError, DataError, ImageError, MismatchError
from vit4icd.images import read_image, resize, to_gray


def test_writes_a_layout_that_training_reads(pictures: Path, tmp_path: Path) -> None:
    summary = prepare_copies(open_images([pictures]), tmp_path / "out", n_copies=3, size=32)
    assert (summary.n_written, summary.n_reused, summary.skipped) == (80, 0, ())
    classes = open_classes(tmp_path / "out")
    assert classes.n_classes == 20
    assert np.bincount(classes.labels).tolist() == [4] * 20


def test_writes_the_plain_picture_first_in_gray(pictures: Path, tmp_path: Path) -> None:
    prepare_copies(open_images([pictures]), tmp_path / "out", n_copies=0, size=32)
    found = read_image(tmp_path / "out" / "5_0.jpg")
    plain = to_gray(resize(read_image(pictures / "005.jpg"), 32, 32))
    assert np.abs(found.astype(int) - plain).max() <= 3


def test_makes_the_same_files_in_any_order(pictures: Path, tmp_path: Path) -> None:
    source = open_images([pictures])
    prepare_copies(source, tmp_path / "a", n_copies=2, size=32, seed=4)
    prepare_copies(source, tmp_path / "b", n_copies=1, size=32, seed=4)
    again = prepare_copies(source, tmp_path / "b", n_copies=2, size=32, seed=4)
    assert again.n_reused == 40
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 5}, "seed 4 there, 5 here"),
        ({"size": 48}, "size 32 there, 48 here"),
        ({"gray": False}, "gray True there, False here"),
        ({"config": robust_config()}, "other edits"),
        ({"source": "others"}, "other pictures"),
    ],
)
def test_mixes_no_copies_of_other_making(
    pictures: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    (tmp_path / "others").symlink_to(pictures)
    out = tmp_path / "out"
    settings = {"source": "pictures", "n_copies": 1, "size": 32, "seed": 4}

    def prepare(settings: dict[str, Any]) -> None:
        source = open_images([tmp_path / settings["source"]])
        prepare_copies(out=out, **{**settings, "source": source})

    prepare(settings)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(MismatchError, match=rf"{told}.*another --out"):
        prepare({**settings, "n_copies": 2, **change})
    assert sorted(path.name for path in out.iterdir()) == before


def test_adds_nothing_to_copies_of_which_nothing_is_known(pictures: Path, tmp_path: Path) -> None:
    prepare_copies(open_images([pictures]), tmp_path / "out", n_copies=1, size=32)
    (tmp_path / "out" / "copies.json").unlink()
    with pytest.raises(MismatchError, match=r"no copies\.json .* another --out"):
        prepare_copies(open_images([pictures]), tmp_path / "out", n_copies=2, size=32)


def test_lists_pictures_that_cannot_be_read(pictures: Path, tmp_path: Path) -> None:
    (pictures / "000.jpg").write_bytes(b"broken")
    summary = prepare_copies(open_images([pictures]), tmp_path / "out", n_copies=6, size=32)
    assert summary.skipped == ((str(pictures / "000.jpg"), "unsupported_format"),)
    assert summary.n_written == 19 * 7


def test_names_the_picture_it_cannot_draw_edits_of(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.jpg: "):
        write_contact_sheet(tmp_path / "bad.jpg", tmp_path / "sheet.png")


def test_draws_edits_with_donors_that_can_be_read(pictures: Path, tmp_path: Path) -> None:
    donors = tmp_path / "donors"
    donors.mkdir()
    with pytest.raises(DataError, match="no picture can be read"):
        write_contact_sheet(pictures / "000.jpg", tmp_path / "sheet.png", donors=donors)
    (donors / "bad.jpg").write_bytes(b"no picture")
    (donors / "good.jpg").write_bytes((pictures / "001.jpg").read_bytes())
    write_contact_sheet(pictures / "000.jpg", tmp_path / "sheet.png", donors=donors)
    assert (tmp_path / "sheet.png").exists()


def test_refuses_a_size_that_edits_draw_nothing_into(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        prepare_copies(open_images([pictures]), tmp_path / "copies", size=15)


def test_refuses_a_negative_number(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="-1"):
        prepare_copies(open_images([pictures]), tmp_path, n_copies=-1)
