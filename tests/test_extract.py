"""Describing many pictures: nothing lost, nothing twice, a bad file costs only itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_model, make_pictures
from vit4icd.datasets import open_images
from vit4icd.describer import load_describer
from vit4icd.errors import ConfigError, DataError, MismatchError
from vit4icd.extract import ProgressReport, describe, skipped_path
from vit4icd.storage import read_descriptors


def test_describes_in_the_order_of_the_inputs(model: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    told: list[ProgressReport] = []
    summary = describe([pictures], out, load_describer(model), progress=told.append)
    found = read_descriptors(out, ids="path")
    assert list(found.ids) == [str(pictures / f"{row:03d}.jpg") for row in range(20)]
    assert (summary.n_described, summary.n_reused, summary.n_skipped) == (20, 0, 0)
    assert (told[-1].n_done, told[-1].n_images) == (20, 20)
    assert not skipped_path(out).exists()


@pytest.mark.parametrize("place", [0, 3, 15, 16, 19])
def test_loses_only_the_bad_file(place: int, model: Path, pictures: Path, tmp_path: Path) -> None:
    describer = load_describer(model)
    describe([pictures], tmp_path / "good.h5", describer)
    good = read_descriptors(tmp_path / "good.h5")
    (pictures / f"{place:03d}.jpg").write_bytes(b"\xff\xd8\xffnot a jpeg")
    summary = describe([pictures], tmp_path / "bad.h5", describer)
    bad = read_descriptors(tmp_path / "bad.h5")
    assert summary.n_skipped == 1
    assert summary.skipped[0].name == str(pictures / f"{place:03d}.jpg")
    assert list(bad.ids) == [name for row, name in enumerate(good.ids) if row != place]
    np.testing.assert_array_equal(bad.vectors, np.delete(good.vectors, place, axis=0))
    (line,) = skipped_path(tmp_path / "bad.h5").read_text().splitlines()
    assert json.loads(line)["name"].endswith(f"{place:03d}.jpg")
    assert json.loads(line)["reason"] in {"corrupt", "unsupported_format"}


def test_describes_what_is_opened_already(model: Path, pictures: Path, tmp_path: Path) -> None:
    describer, source = load_describer(model), open_images([pictures])
    describe([pictures], tmp_path / "paths.h5", describer)
    describe(source, tmp_path / "source.h5", describer)
    paths = read_descriptors(tmp_path / "paths.h5")
    opened = read_descriptors(tmp_path / "source.h5")
    assert list(paths.ids) == list(opened.ids)
    np.testing.assert_array_equal(paths.vectors, opened.vectors)


def test_tries_skipped_files_again(model: Path, pictures: Path, tmp_path: Path) -> None:
    good = (pictures / "003.jpg").read_bytes()
    (pictures / "003.jpg").write_bytes(b"")
    out = tmp_path / "x.h5"
    assert describe([pictures], out, load_describer(model)).n_skipped == 1
    assert json.loads(skipped_path(out).read_text())["reason"] == "empty"
    (pictures / "003.jpg").write_bytes(good)
    assert describe([pictures], out, load_describer(model)).n_skipped == 0
    assert not skipped_path(out).exists()


def test_keeps_odd_names(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    (path,) = make_pictures(folder, 1)
    names = ["new\nline.jpg", 'quote".jpg', "😀.jpg", os.fsdecode(b"latin-\xe9.jpg")]
    for name in names:
        (folder / name).write_bytes(path.read_bytes())
    (folder / os.fsdecode(b"bad-\xe9.jpg")).write_bytes(b"")
    path.unlink()
    describe([folder], tmp_path / "x.h5", load_describer(model))
    found = read_descriptors(tmp_path / "x.h5", ids="path")
    assert sorted(Path(name).name for name in found.ids) == sorted(names)
    skipped = json.loads(skipped_path(tmp_path / "x.h5").read_text())
    assert "name_base64" in skipped


_CHILD = """
import sys, time
from pathlib import Path
from vit4icd import extract
from vit4icd.describer import load_describer
extract._JOURNAL_EVERY_S = 0.0
class Slow:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def describe(self, pixels):
        time.sleep(0.1)
        return self.inner.describe(pixels)
folder, out, model = map(Path, sys.argv[1:])
extract.describe([folder], out, Slow(load_describer(model, n_threads=1)))
"""


def _wait_for_more(journal: Path, child: subprocess.Popen[bytes]) -> None:
    """Return once the child has written another batch to its journal."""
    before = journal.stat().st_size if journal.exists() else 0
    while child.poll() is None:
        if journal.exists() and journal.stat().st_size > before:
            return
        time.sleep(0.01)
    raise AssertionError("the child ended by itself")


@pytest.mark.slow
def test_goes_on_after_kills_and_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    make_pictures(tmp_path / "pictures", 320)
    describer = load_describer(model, n_threads=1)
    describe([tmp_path / "pictures"], tmp_path / "whole.h5", describer)
    out = tmp_path / "killed.h5"
    words = [sys.executable, "-c", _CHILD, str(tmp_path / "pictures"), str(out), str(model)]
    for _ in range(4):
        child = subprocess.Popen(words)
        _wait_for_more(tmp_path / "killed.h5.partial" / "names", child)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not out.exists()
    summary = describe([tmp_path / "pictures"], out, describer)
    assert summary.n_reused >= 4 * 16
    assert summary.n_reused + summary.n_described == 320
    whole, killed = read_descriptors(tmp_path / "whole.h5"), read_descriptors(out)
    assert list(whole.ids) == list(killed.ids)
    np.testing.assert_allclose(whole.vectors, killed.vectors, atol=1e-6)


def test_keeps_what_is_done_when_it_is_stopped(model: Path, pictures: Path, tmp_path: Path) -> None:
    def stop(report: ProgressReport) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt):
        describe([pictures], out, load_describer(model), progress=stop)
    assert describe([pictures], out, load_describer(model)).n_reused == 16


def test_refuses_to_go_on_with_another_model(model: Path, pictures: Path, tmp_path: Path) -> None:
    def stop(report: ProgressReport) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt):
        describe([pictures], out, load_describer(model), progress=stop)
    other = load_describer(make_model(tmp_path / "other", seed=5))
    with pytest.raises(MismatchError, match="fingerprint"):
        describe([pictures], out, other)


def test_shares_the_work_without_overlap(model: Path, pictures: Path, tmp_path: Path) -> None:
    ids: list[str] = []
    for part in range(3):
        out = tmp_path / f"{part}.h5"
        describe([pictures], out, load_describer(model), share=(part, 3))
        ids.extend(read_descriptors(out).ids)
    assert sorted(ids) == [f"{row:03d}" for row in range(20)]


def test_refuses_inputs_that_make_no_sense(model: Path, pictures: Path, tmp_path: Path) -> None:
    describer = load_describer(model)
    with pytest.raises(ConfigError, match="share"):
        describe([pictures], tmp_path / "x.h5", describer, share=(3, 3))
    with pytest.raises(MismatchError, match="give each input once"):
        describe([pictures, pictures], tmp_path / "x.h5", describer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        describe([tmp_path / "empty"], tmp_path / "x.h5", describer)
    with pytest.raises(DataError, match="gone"):
        describe([tmp_path / "gone"], tmp_path / "x.h5", describer)
