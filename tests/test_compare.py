"""Comparing two pictures: verdict, proof, drawing and the command."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit4icd.cli import main
from vit4icd.compare import compare
from vit4icd.demo.run import _FOLDER
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.drawing import draw_match
from vit4icd.errors import ImageError
from vit4icd.images import Source, read_image

QUERIES, PHOTOGRAPHS = _FOLDER / "queries", _FOLDER / "photographs"


@pytest.fixture(scope="module")
def describer() -> OnnxDescriber:
    return load_describer(n_threads=1)


def test_proves_a_copy_and_says_of_which_part(describer: OnnxDescriber) -> None:
    match = compare(QUERIES / "q13.jpg", PHOTOGRAPHS / "cat.jpg", describer=describer)  # a crop
    assert match.verdict == "copy"
    assert match.overlap is not None
    assert match.overlap.query_share > 0.9
    assert match.overlap.reference_share < 0.5
    assert match.probability is not None
    assert match.probability > 0.9


def test_calls_no_look_alikes_copies_that_cannot_be_proven(describer: OnnxDescriber) -> None:
    ridge, peaks = PHOTOGRAPHS / "ridge.jpg", PHOTOGRAPHS / "peaks.jpg"  # of other mountains
    match = compare(ridge, peaks, describer=describer)
    assert match.overlap is None
    assert match.verdict == "similar"


def test_finds_strangers_to_be_none(describer: OnnxDescriber) -> None:
    match = compare(QUERIES / "q07.jpg", PHOTOGRAPHS / "brook.jpg", describer=describer)
    assert not match.is_copy
    assert match.overlap is None
    assert match.verified


def test_takes_pictures_in_every_form(describer: OnnxDescriber) -> None:
    path = PHOTOGRAPHS / "cat.jpg"
    image = read_image(path)
    forms: list[Source] = [path, str(path), path.read_bytes(), Image.fromarray(image), image]
    for form in forms:
        assert compare(form, path, describer=describer).similarity > 0.99
    same = compare(path, path.read_bytes(), describer=describer)
    assert (same.verdict, same.same_bytes) == ("exact", True)
    assert compare(image, image.copy(), describer=describer).verdict == "exact"
    assert compare(image, path, describer=describer).query == "query"


def test_calls_a_picture_exact_in_another_format_but_not_in_gray(describer: OnnxDescriber) -> None:
    path = PHOTOGRAPHS / "brook.jpg"
    image = Image.fromarray(read_image(path))
    again = io.BytesIO()
    image.save(again, "JPEG", quality=80)
    anew = compare(again.getvalue(), path, describer=describer)
    assert (anew.verdict, anew.same_bytes) == ("exact", False)
    assert compare(image.convert("L"), path, describer=describer).verdict == "copy"


def test_refuses_pictures_too_plain_to_judge(describer: OnnxDescriber) -> None:
    blank = np.full((80, 80, 3), 200, np.uint8)
    with pytest.raises(ImageError) as caught:
        compare(blank, PHOTOGRAPHS / "cat.jpg", describer=describer)
    assert caught.value.reason == "image_too_plain"
    assert str(caught.value).startswith("query: ")
    assert compare(blank, blank.copy(), describer=describer).verdict == "exact"


def test_names_the_picture_that_cannot_be_read(tmp_path: Path, describer: OnnxDescriber) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((PHOTOGRAPHS / "cat.jpg").read_bytes()[:300])
    for pair in ((broken, PHOTOGRAPHS / "cat.jpg"), (PHOTOGRAPHS / "cat.jpg", broken)):
        with pytest.raises(ImageError, match=r"broken\.jpg: "):
            compare(*pair, describer=describer)


def test_draws_a_panel_more_where_there_is_a_proof(describer: OnnxDescriber) -> None:
    sheets = {}
    for query in ("q13", "q07"):
        one, other = QUERIES / f"{query}.jpg", PHOTOGRAPHS / "cat.jpg"
        match = compare(one, other, describer=describer)
        sheets[query] = draw_match(read_image(one), read_image(other), match)
    assert sheets["q13"].shape[0] == sheets["q07"].shape[0]
    assert sheets["q13"].shape[1] > sheets["q07"].shape[1]
    accent = (np.abs(sheets["q13"].astype(int) - (222, 74, 41)).max(axis=2) < 12).sum()
    assert accent > 500


def test_tells_and_draws_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(QUERIES / "q13.jpg"), str(PHOTOGRAPHS / "cat.jpg")]
    out = tmp_path / "proof.png"
    with pytest.raises(SystemExit) as ended:
        main(["compare", *pair, "--out", str(out), "--fail-on-match"])
    assert ended.value.code == 11
    text = capsys.readouterr().out
    assert "verdict      copy" in text
    assert max(map(len, text.splitlines())) <= 80
    assert read_image(out).shape[0] > 400
    with pytest.raises(SystemExit) as ended:
        main(["compare", "nowhere.jpg", "nowhere.jpg", "--out", str(tmp_path / "proof.bmp")])
    assert ended.value.code == 2
    assert "a .jpg or .png" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["compare", *pair, "--format", "json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "copy"
