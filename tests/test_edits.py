"""Edits: seeded, replayable, the right size, and doing what their names say."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit4icd.edits import (
    EDITS,
    HELD_OUT_EDITS,
    OFFICIAL_EDITS,
    TRAINING_EDITS,
    EditConfig,
    EditPlan,
    apply_plan,
    contact_sheet,
    draw_plan,
    edited_copy,
    official_config,
    robust_config,
)
from vit4icd.edits.geometry import matrix_rotate, warp
from vit4icd.errors import ConfigError
from vit4icd.images import resize

PICTURE = resize(np.random.default_rng(1).integers(0, 255, (9, 12, 3)).astype(np.uint8), 120, 90)
DONORS = [PICTURE[::-1], PICTURE[:, ::-1], 255 - PICTURE]


def _donor(number: int) -> np.ndarray:
    return np.ascontiguousarray(DONORS[number % 3])


def _apply(name: str, seed: int = 0, strength: float = 1.0, **changes: Any) -> np.ndarray:
    params = EDITS[name].draw(np.random.default_rng(seed), strength) | changes
    params["donors"] = [0, 1, 2]
    return apply_plan(PICTURE, ((name, params),), donors=_donor, size=64)


PLAIN = apply_plan(PICTURE, (), donors=_donor, size=64)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("strength", [0.01, 0.5, 1.0])
def test_gives_a_picture_of_the_asked_size(name: str, strength: float) -> None:
    for seed in range(8):
        copy = _apply(name, seed, strength)
        assert copy.shape == (64, 64, 3)
        assert copy.dtype == np.uint8


@pytest.mark.parametrize("name", EDITS)
def test_changes_the_picture(name: str) -> None:
    assert any((_apply(name, seed) != PLAIN).any() for seed in range(4))


@pytest.mark.parametrize("name", EDITS)
def test_leaves_its_input_alone(name: str) -> None:
    before = PICTURE.copy()
    _apply(name)
    np.testing.assert_array_equal(PICTURE, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 1.0), st.booleans())
def test_makes_the_same_bytes_from_the_same_seed(
    seed: int, strength: float, official: bool
) -> None:
    config = official_config() if official else robust_config(strength)
    one, other = (
        edited_copy(
            PICTURE, edit_rng=np.random.default_rng(seed), config=config, donors=_donor, size=48
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


def test_replays_a_plan_that_went_through_json() -> None:
    for seed in range(30):
        plan = draw_plan(np.random.default_rng(seed), robust_config())
        read = tuple((name, params) for name, params in json.loads(json.dumps(plan)))
        np.testing.assert_array_equal(
            apply_plan(PICTURE, plan, donors=_donor, size=32),
            apply_plan(PICTURE, read, donors=_donor, size=32),
        )


def test_draws_three_distinct_official_edits() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        names = [name for name, _ in draw_plan(rng, official_config())]
        assert len(names) == len(set(names)) == 3
        seen.update(names)
    assert seen == set(OFFICIAL_EDITS)
    assert len(OFFICIAL_EDITS) == 24


def test_never_draws_a_held_out_edit_by_default() -> None:
    rng = np.random.default_rng(0)
    names = {name for _ in range(800) for name, _ in draw_plan(rng, robust_config())}
    assert not names & set(HELD_OUT_EDITS)
    assert names == set(TRAINING_EDITS)
    assert len(HELD_OUT_EDITS) >= 5


def test_hides_the_asked_share_of_copies() -> None:
    rng = np.random.default_rng(0)
    config = EditConfig(names=("blur",), count_shares=(1.0,), hide_share=0.5)
    n_hidden = sum(len(draw_plan(rng, config)) == 2 for _ in range(1000))
    assert 440 < n_hidden < 560


def test_undoes_a_flip_by_a_second_one() -> None:
    for name in ("flip_horizontally", "flip_vertically"):
        plan: EditPlan = ((name, {}), (name, {}))
        np.testing.assert_array_equal(apply_plan(PICTURE, plan, donors=_donor, size=64), PLAIN)
    flipped = apply_plan(PICTURE, (("flip_horizontally", {}),), donors=_donor, size=64)
    assert np.abs(flipped[:, ::-1].astype(int) - PLAIN).max() <= 1


def test_composes_neighbouring_moves_into_one_warp() -> None:
    crop = {"width": 0.5, "height": 0.5, "left": 0.5, "top": 0.0}
    twice = apply_plan(PICTURE, (("crop", crop), ("crop", crop)), donors=_donor, size=64)
    once = {"width": 0.25, "height": 0.25, "left": 0.75, "top": 0.0}
    np.testing.assert_array_equal(
        twice, apply_plan(PICTURE, (("crop", once),), donors=_donor, size=64)
    )


def test_cuts_the_crop_out_of_the_right_place() -> None:
    window = {"width": 0.5, "height": 0.5, "left": 0.5, "top": 0.5}
    found = apply_plan(PICTURE, (("crop", window),), donors=_donor, size=60)
    expected = resize(np.ascontiguousarray(PICTURE[45:, 60:]), 60, 60, "bilinear")
    assert np.abs(found[2:-2, 2:-2].astype(int) - expected[2:-2, 2:-2]).mean() < 2


def test_rotates_without_borders() -> None:
    white = np.full((90, 120, 3), 255, np.uint8)
    for degrees in range(-180, 181, 15):
        matrix = matrix_rotate({"degrees": degrees}, 120 / 90)
        turned = warp(white, matrix, size=64, fill=(0, 0, 0))
        assert turned[1:-1, 1:-1].min() > 200


def test_gives_gray_for_grayscale_and_inverts_twice_to_itself() -> None:
    gray = _apply("grayscale")
    assert (gray[..., 0] == gray[..., 1]).all()
    inverted = _apply("channel_change", kind="invert", inverted=[True] * 3)
    np.testing.assert_array_equal(255 - inverted, PLAIN)


def test_keeps_all_pixels_when_it_shuffles_them() -> None:
    shuffled = _apply("shuffle_pixels", 3)
    np.testing.assert_array_equal(
        np.sort(shuffled.reshape(-1, 3), axis=0), np.sort(PLAIN.reshape(-1, 3), axis=0)
    )


def test_pastes_the_picture_where_it_says() -> None:
    box: dict[str, Any] = {"opacity": 1.0, "width": 0.5, "height": 0.5, "x": 0.25, "y": 0.25}
    pasted = _apply("underlay", **box)
    donor = apply_plan(_donor(0), (), donors=_donor, size=64)
    assert np.abs(pasted[:14].astype(int) - donor[:14]).mean() < 8
    inside = resize(PLAIN, 32, 32, "bilinear")
    assert np.abs(pasted[16:48, 16:48].astype(int) - inside).mean() < 6


def test_redraws_copies_that_show_nothing() -> None:
    config = EditConfig(names=("brightness",), count_shares=(1.0,))
    black = np.zeros((30, 30, 3), np.uint8)
    rng = np.random.default_rng(0)
    copy = edited_copy(black, edit_rng=rng, config=config, donors=_donor, size=32)
    assert copy.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("nonsense",)}, "no edit 'nonsense'"),
        ({"count_shares": (0.5, 0.2)}, "sum to 1"),
        ({"names": ("blur",), "count_shares": (0.5, 0.5)}, "at most 1"),
        ({"strength": 2.0}, "between 0 and 1"),
    ],
)
def test_refuses_configurations_that_make_no_sense(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        EditConfig(**changes)  # type: ignore[arg-type]


def test_draws_every_edit_on_the_contact_sheet() -> None:
    sheet = contact_sheet(PICTURE, donors=_donor)
    assert sheet.shape[1] > 4 * 3 * 160
    assert sheet.shape[0] > len(EDITS) / 4 * 160
    np.testing.assert_array_equal(sheet, contact_sheet(PICTURE, donors=_donor))
