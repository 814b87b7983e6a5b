"""What a score means: tails, ratios, thresholds, and the whole way from pictures to a folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vit4icd.calibrate import calibrate, calibration_page
from vit4icd.calibration import Calibration, fit_calibration, read_calibration, write_calibration
from vit4icd.datasets import open_images
from vit4icd.describer import DEFAULT_MODEL, OnnxDescriber, load_describer
from vit4icd.errors import ConfigError, DataError, FormatError, MismatchError
from vit4icd.images import write_image
from vit4icd.storage import write_descriptors
from vit4icd.types import DescriptorSet


def _known(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    copies, unrelated = rng.normal(0.5, 0.15, 4_000), rng.normal(-0.1, 0.06, 400_000)
    return copies, unrelated


def _fitted() -> Calibration:
    copies, unrelated = _known()
    return fit_calibration(copies, unrelated, fingerprint="f", factor=1.0, neighbours=10)


def test_tail_is_that_of_the_scores() -> None:
    calibration = _fitted()
    _, fresh = _known(seed=1)
    for score in (0.0, 0.05, 0.1):
        assert calibration.false_rate(score) == pytest.approx((fresh >= score).mean(), rel=0.15)
    assert calibration.expected_false(0.1, 1_000) == pytest.approx(
        1_000 * calibration.false_rate(0.1)
    )


def test_probability_is_the_share_of_copies() -> None:
    calibration, n_references, n_queries = _fitted(), 200, 20_000
    rng = np.random.default_rng(2)
    others = rng.normal(-0.1, 0.06, (n_queries, n_references)).max(axis=1)
    own = np.where(rng.random(n_queries) < 0.5, rng.normal(0.5, 0.15, n_queries), -1.0)
    right, score = own > others, np.maximum(own, others)
    told = calibration.probability(score, n_references=n_references, copy_share=0.5)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        chosen = (told >= low) & (told < high)
        assert told[chosen].mean() == pytest.approx(right[chosen].mean(), abs=0.12)


def test_probability_is_the_share_of_copies_where_the_score_says_nothing() -> None:
    calibration = _fitted()
    silent = replace(calibration, log_ratios=(0.0,) * len(calibration.knots))
    for n_references in (1, 2, 1_000):
        told = silent.probability(0.3, n_references=n_references, copy_share=0.2)
        assert told == pytest.approx(0.2 / n_references)


def test_probability_never_falls_with_the_score_and_falls_with_the_collection() -> None:
    calibration, scores = _fitted(), np.linspace(-0.5, 1.2, 200)
    small = calibration.probability(scores, n_references=100)
    large = calibration.probability(scores, n_references=1_000_000)
    assert (np.diff(small) >= 0).all()
    assert (large <= small).all()


def test_thresholds_keep_their_precision() -> None:
    calibration, share = _fitted(), 0.2
    copies, unrelated = _known(seed=3)
    for precision in (0.9, 0.99):
        threshold = calibration.threshold(precision, n_references=100, copy_share=share)
        true = share * (copies >= threshold).mean()
        false = 100 * (unrelated >= threshold).mean()
        assert true / (true + false) == pytest.approx(precision, abs=0.02)
    rising = [calibration.threshold(0.99, n_references=n) for n in (10, 1_000, 100_000, 10_000_000)]
    assert rising == sorted(rising)


def test_refuses_what_says_nothing() -> None:
    with pytest.raises(DataError, match="at least 50 copies"):
        fit_calibration(np.ones(3), np.ones(5), fingerprint="f", factor=1.0, neighbours=10)
    with pytest.raises(ConfigError, match="n_references"):
        _fitted().probability(0.1, n_references=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        _fitted().threshold(1.0, n_references=5)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("log_ratios", [float("nan")] * 121, "not finite"),
        ("copy_scores", [], "copy_scores"),
        ("copy_scores", [0.2, 0.1], "copy_scores"),
        ("n_copies", 0, "n_copies is 0"),
        ("n_unrelated", "many", "n_unrelated is 'many'"),
        ("n_unrelated", 1.5, r"n_unrelated is 1\.5"),
    ],
)
def test_refuses_a_damaged_file(tmp_path: Path, field: str, value: object, told: str) -> None:
    write_calibration(tmp_path, _fitted())
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(FormatError, match=told):
        read_calibration(tmp_path)


def test_file_round_trip(tmp_path: Path) -> None:
    calibration = _fitted()
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path) == calibration
    (tmp_path / "calibration.json").write_text('{"format_version": 1, "knots": [1, 1]}')
    with pytest.raises(FormatError, match="not a calibration"):
        read_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text("7")
    with pytest.raises(FormatError, match="not a calibration"):
        read_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text('{"format_version": 9}')
    with pytest.raises(FormatError, match="format 9"):
        read_calibration(tmp_path)


def _photographs(folder: Path, n: int) -> Path:
    rng = np.random.default_rng(7)
    folder.mkdir()
    for number in range(n):
        blocks = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        write_image(folder / f"{number}.jpg", blocks.repeat(30, 0).repeat(30, 1), suffix=".jpg")
    return folder


def _random_set(describer: OnnxDescriber, n: int, seed: int) -> DescriptorSet:
    vectors = np.random.default_rng(seed).normal(size=(n, describer.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [str(row) for row in range(n)]
    return DescriptorSet(ids=ids, vectors=vectors, fingerprint=describer.fingerprint)


def test_calibrates_a_model_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, folder)
    for name in ("background.h5", "calibration.json"):
        (folder / name).unlink(missing_ok=True)
    describer = load_describer(folder, n_threads=1)
    pictures = _photographs(tmp_path / "pictures", 26)
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8no")
    report = calibrate(
        describer,
        open_images([pictures]),
        background=_random_set(describer, 40, 1),
        unrelated=_random_set(describer, 400, 2),
        folder=folder,
        n_copies=4,
    )
    assert (report.n_pictures, report.n_skipped) == (26, 1)
    assert "Reliability" in calibration_page(report)
    again = load_describer(folder, n_threads=1)
    assert again.calibration == report.calibration
    assert again.background is not None
    assert len(again.background) == 40
    assert again.background.vectors.dtype == np.float32


def test_names_the_model_of_a_background_that_named_none(model: Path, tmp_path: Path) -> None:
    describer = load_describer(model, n_threads=1)
    calibrate(
        describer,
        open_images([_photographs(tmp_path / "pictures", 26)]),
        background=replace(_random_set(describer, 40, 1), fingerprint=None),
        unrelated=_random_set(describer, 400, 2),
        folder=model,
        n_copies=4,
    )
    stored = load_describer(model, n_threads=1).background
    assert stored is not None
    assert stored.fingerprint == describer.fingerprint


def test_refuses_what_it_cannot_use_before_the_work(model: Path, tmp_path: Path) -> None:
    describer = load_describer(model, n_threads=1)
    pictures = open_images([_photographs(tmp_path / "pictures", 26)])
    good = _random_set(describer, 40, 1)
    foreign = replace(good, fingerprint="another")

    def refused(error: type[Exception], said: str, **sets: DescriptorSet) -> None:
        given = {"background": good, "unrelated": _random_set(describer, 400, 2), **sets}
        done: list[int] = []
        with pytest.raises(error, match=said):
            calibrate(
                describer,
                pictures,
                background=given["background"],
                unrelated=given["unrelated"],
                n_copies=4,
                progress=lambda n, _: done.append(n),
            )
        assert not done

    refused(MismatchError, "another", background=foreign)
    refused(MismatchError, "another", unrelated=foreign)
    refused(DataError, "has 9 images", background=good.only(range(9)))
    refused(DataError, "10000 unrelated", unrelated=good)


def test_leaves_no_calibration_beside_a_background_it_was_not_fitted_with(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    describer = load_describer(model, n_threads=1)
    write_calibration(model, replace(_fitted(), fingerprint=describer.fingerprint))
    monkeypatch.setattr("vit4icd.calibrate.write_calibration", killed)
    with pytest.raises(KeyboardInterrupt):
        calibrate(
            describer,
            open_images([_photographs(tmp_path / "pictures", 26)]),
            background=_random_set(describer, 40, 1),
            unrelated=_random_set(describer, 400, 2),
            folder=model,
            n_copies=4,
        )
    again = load_describer(model, n_threads=1)
    assert again.background is not None
    assert again.calibration is None


def test_reads_no_calibration_where_the_background_is_missing(model: Path) -> None:
    describer = load_describer(model, n_threads=1)
    write_calibration(model, replace(_fitted(), fingerprint=describer.fingerprint))
    assert load_describer(model, n_threads=1).calibration is None
    write_descriptors(model / "background.h5", _random_set(describer, 40, 1))
    assert load_describer(model, n_threads=1).calibration is not None


def test_refuses_the_calibration_of_another_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, folder)
    write_calibration(folder, _fitted())
    with pytest.raises(MismatchError, match="vit4icd calibrate"):
        _ = load_describer(folder, n_threads=1).calibration


def test_packaged_model_has_a_background_and_a_calibration() -> None:
    describer = load_describer(n_threads=1)
    assert describer.background is not None
    assert describer.calibration is not None
    assert len(describer.background) >= 5_000
    scores = [row["score"] for row in describer.calibration.thresholds()]
    assert 0.0 < min(scores) < max(scores) < 1.0
