"""Edits: seeded, replayable, the right size, and doing what their names say."""

import json
import string
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
from vit4icd.edits.geometry import Move, move
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


@settings(max_examples=60)
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
        plan: EditPlan = (("rotate", {"degrees": degrees}),)
        turned = apply_plan(white, plan, donors=_donor, size=64)
        assert turned[1:-1, 1:-1].min() > 200


MOVES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("crop", {"width": 0.5, "height": 0.4, "left": 0.3, "top": 0.2}),
    ("pad", {"width": 0.3, "height": 0.1, "fill": [250, 0, 0]}),
    ("rotate", {"degrees": 25.0}),
    ("skew", {"slope": 0.4, "vertical": False, "fill": [0, 250, 0]}),
    ("flip_horizontally", {}),
    ("pad_square", {"fill": [0, 0, 250]}),
    ("perspective", {"corners": [[0.1, 0], [-0.1, 0.1], [0, 0], [0, -0.2]], "fill": [9, 9, 9]}),
)


@pytest.mark.parametrize("first", range(len(MOVES)))
@pytest.mark.parametrize("second", range(len(MOVES)))
def test_moves_at_once_as_it_moves_one_after_another(first: int, second: int) -> None:
    moves: list[Move] = []
    for name, params in (MOVES[first], MOVES[second], MOVES[(first + second) % len(MOVES)]):
        matrix = EDITS[name].matrix
        assert matrix is not None
        red, green, blue = params.get("fill", (0, 0, 0))
        moves.append((matrix(params, 4 / 3), (red, green, blue)))
    at_once = move(PICTURE, moves, size=320)
    singly = PICTURE
    for step in moves:
        singly = move(singly, [step], size=640)
    singly = move(singly, [], size=320)
    far_off = np.abs(at_once.astype(int) - singly).max(axis=2) > 60
    assert far_off.mean() < 0.02  # seams: borders start within a pixel of their place


def test_does_not_paint_over_a_crop_that_is_tilted_away() -> None:
    """The whole picture's corners may then lie beyond the horizon."""
    crop = EDITS["crop"].matrix
    assert crop is not None
    window = crop({"width": 0.2, "height": 0.2, "left": 0.7, "top": 0.7}, 1.0)
    tilt = np.array([[0.8, 0.0, 0.1], [0.0, 0.8, 0.1], [0.2, 0.3, 1.0]])
    moves: list[Move] = [(window, (0, 0, 0)), (tilt, (255, 0, 255))]
    gray = np.full((60, 60, 3), 100, np.uint8)
    moved = move(gray, moves, size=64)
    singly = move(move(gray, moves[:1], size=64), moves[1:], size=64)
    assert (np.abs(moved.astype(int) - singly).max(axis=2) > 60).mean() < 0.03
    assert 0.2 < (moved == 100).all(axis=2).mean() < 0.9


def test_does_not_bring_back_what_a_crop_cut_away() -> None:
    picture = np.full((60, 60, 3), 255, np.uint8)
    picture[15:45, 15:45] = 100
    window = {"width": 0.5, "height": 0.5, "left": 0.25, "top": 0.25}
    border = {"width": 0.5, "height": 0.5, "fill": [0, 0, 0]}
    plan: EditPlan = (("crop", window), ("pad", border))
    framed = apply_plan(picture, plan, donors=_donor, size=64)
    assert framed.max() <= 110
    assert framed[:14].max() == 0
    assert (framed[20:44, 20:44] == 100).all()


def test_shows_each_border_in_its_own_colour() -> None:
    border = {"width": 0.5, "height": 0.5}
    plan: EditPlan = (
        ("pad", border | {"fill": [200, 0, 0]}),
        ("pad", border | {"fill": [0, 0, 200]}),
    )
    framed = apply_plan(PICTURE, plan, donors=_donor, size=64)
    assert framed[4, 4].tolist() == [0, 0, 200]
    assert framed[20, 20].tolist() == [200, 0, 0]


def test_shears_by_the_slope_in_pixels() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 31:33] = 255
    params = {"slope": 0.5, "vertical": False, "fill": [0, 0, 0]}
    sheared = apply_plan(picture, (("skew", params),), donors=_donor, size=64)[..., 0].astype(float)
    columns = sheared @ np.arange(64) / sheared.sum(axis=1)
    np.testing.assert_allclose(columns[0] - columns[-1], 0.5 * 63, atol=0.5)


def test_never_folds_the_picture_in_perspective() -> None:
    for seed in range(300):
        params = EDITS["perspective"].draw(np.random.default_rng(seed), 1.0)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) + params["corners"]
        sides = np.roll(corners, -1, 0) - corners
        after = np.roll(sides, -1, 0)
        assert (sides[:, 0] * after[:, 1] > sides[:, 1] * after[:, 0]).all()


def test_averages_a_long_side_that_shrinks() -> None:
    stripes = np.zeros((40, 4000, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = apply_plan(stripes, (), donors=_donor, size=64)
    assert np.abs(shrunk.astype(int) - 127).max() < 12


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_edits_pictures_of_any_shape(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    copy = edited_copy(picture, edit_rng=rng, config=robust_config(), donors=_donor, size=40)
    assert copy.shape == (40, 40, 3)


def test_gives_gray_for_grayscale_and_inverts_twice_to_itself() -> None:
    gray = _apply("grayscale")
    assert (gray[..., 0] == gray[..., 1]).all()
    inverted = _apply("channel_change", kind="invert", inverted=[True] * 3)
    np.testing.assert_array_equal(255 - inverted, PLAIN)


def test_turns_saturation_to_gray_and_keeps_luma_when_it_jitters() -> None:
    same: dict[str, Any] = {"brightness": 1.0, "contrast": 1.0, "hue": 0.0}
    gray = _apply("colour_jitter", saturation=0.0, **same)
    np.testing.assert_allclose(gray, _apply("grayscale"), atol=1)
    assert np.abs(_apply("colour_jitter", saturation=1.0, **same).astype(int) - PLAIN).max() <= 6


def test_adds_noise_of_the_drawn_mean_and_variance() -> None:
    middle = np.full((128, 128, 3), 100, np.uint8)
    params = {"mean": 0.1, "variance": 0.01, "seed": 4}
    noise = apply_plan(middle, (("noise", params),), donors=_donor, size=128) / 255 - 100 / 255
    assert noise.mean() == pytest.approx(0.1, abs=0.002)
    assert noise.var() == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("n_colours", [2, 5, 16])
def test_leaves_as_many_colours_as_drawn(n_colours: int) -> None:
    colours = np.unique(_apply("palette", n_colours=n_colours).reshape(-1, 3), axis=0)
    assert 1 < len(colours) <= n_colours


@pytest.mark.parametrize("font", ["aileron", "simplex", "complex", "triplex", "script"])
def test_writes_every_glyph_in_every_font(font: str) -> None:
    ink: dict[str, Any] = {
        "font": font,
        "opacity": 1.0,
        "colour": [255, 0, 255],
        "size": 0.5,
        "x": 0.1,
        "y": 0.1,
    }
    drawn = {_apply("text", text=glyph, **ink).tobytes() for glyph in string.printable[:94]}
    assert len(drawn) > 90  # but for look-alikes, no glyph is missing
    assert PLAIN.tobytes() not in drawn


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


def test_does_not_hide_a_copy_that_shows_nothing() -> None:
    config = EditConfig(names=("brightness",), count_shares=(1.0,), hide_share=1.0)
    gray = np.full((30, 30, 3), 127, np.uint8)
    rng = np.random.default_rng(0)
    copy = edited_copy(gray, edit_rng=rng, config=config, donors=_donor, size=32)
    assert (copy == 127).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("nonsense",)}, "no edit 'nonsense'"),
        ({"count_shares": (0.5, 0.2)}, "sum to 1"),
        ({"names": ("blur",), "count_shares": (0.5, 0.5)}, "at most 1"),
        ({"strength": 2.0}, "between 0 and 1"),
        ({"count_shares": (1.5, -0.5)}, "not be negative"),
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
