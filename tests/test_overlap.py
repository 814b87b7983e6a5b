"""Proof: what two pictures have in common, where it lies, and what is no proof."""

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from vit4icd.errors import ConfigError, FormatError
from vit4icd.images import read_image, resize, write_image
from vit4icd.overlap import (
    LocalFeatures,
    Overlap,
    OverlapConfig,
    features_of,
    find_overlap,
    local_features,
)
from vit4icd.overlap.codes import decode, encode, mirrored
from vit4icd.overlap.geometry import area, clipped, decomposed, project, slope
from vit4icd.overlap.pixels import measure_agreement

PHOTOGRAPHS = Path("src/vit4icd/demo/photographs")
_MIRRORED_DIRECTIONS = [0, 7, 6, 5, 4, 3, 2, 1]


def _photograph(name: str) -> np.ndarray:
    return read_image(PHOTOGRAPHS / f"{name}.jpg")


def _found(
    query: np.ndarray, reference: np.ndarray, config: OverlapConfig | None = None
) -> Overlap | None:
    """Compare as a collection does: the reference comes from its bytes."""
    stored = LocalFeatures.from_bytes(local_features(reference).to_bytes())
    return find_overlap(local_features(np.ascontiguousarray(query)), stored, config)


def _proven(query: np.ndarray, reference: np.ndarray) -> Overlap:
    overlap = _found(query, reference)
    assert overlap is not None
    return overlap


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return _photograph("cat")


def test_finds_a_picture_in_itself(cat: np.ndarray) -> None:
    overlap = _proven(cat, cat)
    assert overlap.query_share == pytest.approx(1, abs=0.005)
    assert overlap.reference_share == pytest.approx(1, abs=0.005)
    assert overlap.certainty > 0.98
    assert overlap.difference < 1
    assert overlap.scale == pytest.approx(1, abs=0.001)
    assert not overlap.flipped
    np.testing.assert_allclose(overlap.matrix, np.eye(3), atol=0.005)


def test_tells_the_region_of_a_crop(cat: np.ndarray) -> None:
    height, width = cat.shape[:2]
    overlap = _proven(cat[height // 4 : height * 3 // 4, width // 5 : width * 4 // 5], cat)
    assert overlap.query_share == pytest.approx(1, abs=0.01)
    assert overlap.reference_share == pytest.approx(0.3, abs=0.01)
    assert overlap.scale == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(overlap.reference_polygon.min(axis=0), (0.2, 0.25), atol=0.01)
    np.testing.assert_allclose(overlap.reference_polygon.max(axis=0), (0.8, 0.75), atol=0.01)


def test_tells_a_mirror(cat: np.ndarray) -> None:
    overlap = _proven(cat[:, ::-1], cat)
    assert overlap.flipped
    assert overlap.motion == "mirrored, scale 1.00"
    assert overlap.rotation == pytest.approx(0, abs=0.5)
    np.testing.assert_allclose(overlap.matrix, [[-1, 0, 1], [0, 1, 0], [0, 0, 1]], atol=0.005)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_tells_a_rotation(cat: np.ndarray, turns: int) -> None:
    overlap = _proven(np.rot90(cat, -turns), cat)
    assert "turned by" in overlap.motion
    assert overlap.rotation % 360 == pytest.approx(90 * turns, abs=0.5)
    assert overlap.reference_share == pytest.approx(1, abs=0.01)


def test_tells_perspective_and_scale(cat: np.ndarray) -> None:
    height, width = cat.shape[:2]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * (width, height)
    moved = np.array([[0.1, 0.2], [0.9, 0], [0.9, 1], [0.1, 0.8]], np.float32) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    overlap = _proven(cv2.warpPerspective(cat, matrix, (width, height)), cat)
    np.testing.assert_allclose(project(corners / (width, height), overlap.matrix),
                               moved / (width, height), atol=0.01)  # fmt: skip
    assert overlap.perspective == pytest.approx(2 / 3, abs=0.05)
    half = resize(cat, width // 2, height // 2)
    assert _proven(half, cat).scale == pytest.approx(0.5, abs=0.01)


def test_finds_a_picture_pasted_small() -> None:
    canvas = _photograph("wine").copy()
    height, width = canvas.shape[:2]
    small = resize(_photograph("cat"), width // 3, height // 3)
    canvas[20 : 20 + height // 3, 30 : 30 + width // 3] = small
    overlap = _proven(canvas, _photograph("cat"))
    assert overlap.query_share == pytest.approx(1 / 9, abs=0.01)
    place = np.array([30 / width, 20 / height])
    np.testing.assert_allclose(overlap.query_polygon.min(axis=0), place, atol=0.01)


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: (image * 0.4).astype(np.uint8),
        lambda image: 255 - np.rint((255 - image) * 0.5).astype(np.uint8),
        lambda image: cv2.GaussianBlur(image, (0, 0), 3),
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [1, 5])[1], 1),
        lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
    ],
    ids=["darker", "paler", "blurred", "jpeg 5", "gray"],
)
def test_proves_what_was_edited(cat: np.ndarray, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    overlap = _proven(edit(cat), cat)
    assert min(overlap.query_share, overlap.reference_share) > 0.95


def test_claims_nothing_on_different_photographs() -> None:
    features = [local_features(read_image(path)) for path in sorted(PHOTOGRAPHS.iterdir())]
    for row, query in enumerate(features):
        for reference in features[:row]:
            assert find_overlap(query, reference) is None


def _bricks(seed: int, jitter: int = 18) -> np.ndarray:
    wall_rng = np.random.default_rng(seed)
    wall = np.full((480, 640, 3), (200, 195, 185), np.uint8)
    for row in range(18):
        for column in range(11):
            x, y = 64 * column - 32 * (row % 2), 28 * row
            shade = np.array([170, 80, 60]) + wall_rng.integers(-jitter, jitter + 1)
            wall[y + 2 : y + 26, max(x + 2, 0) : max(x + 62, 0)] = shade
    return (wall + wall_rng.normal(0, 6, wall.shape)).clip(0, 255).astype(np.uint8)


def _dots(base: np.ndarray, pitch: int = 16) -> np.ndarray:
    screen = resize(base, 640, 480)
    for y in range(pitch // 2, 480, pitch):
        for x in range(pitch // 2, 640, pitch):
            cv2.circle(screen, (x, y), pitch // 4, (30, 30, 30), -1)
    return screen


def _captioned(base: np.ndarray) -> np.ndarray:
    image = Image.fromarray(resize(base, 640, 480))
    ImageDraw.Draw(image).multiline_text(
        (30, 340), "THE SAME CAPTION\nON EVERY PICTURE", fill="white", stroke_width=3,
        stroke_fill="black", font=ImageFont.load_default(44),
    )  # fmt: skip
    return np.array(image)


def _with_logo(base: np.ndarray, size: int, place: tuple[int, int]) -> np.ndarray:
    logo = Image.new("RGB", (110, 110), "white")
    draw = ImageDraw.Draw(logo)
    draw.ellipse((0, 0, 109, 109), fill="red")
    draw.polygon([(20, 80), (55, 15), (90, 80)], fill="white")
    draw.text((30, 85), "BRAND", fill="white", font=ImageFont.load_default(16))
    image = Image.fromarray(resize(base, 640, 480))
    image.paste(logo.resize((size, size)), place)
    return np.array(image)


def _letter(seed: int, n_lines: int) -> np.ndarray:
    letter_rng = np.random.default_rng(seed)
    words = "the of and copy picture letter contract invoice total street amount name paper".split()
    image = Image.new("RGB", (640, 820), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 30), "ACME Holding plc", fill="navy", font=ImageFont.load_default(44))
    for line in range(n_lines):
        text = " ".join(letter_rng.choice(words, 9))
        draw.text((40, 120 + 36 * line), text, fill="black", font=ImageFont.load_default(22))
    return np.array(image)


_WHITE = np.full((48, 64, 3), 250, np.uint8)
_ALIKE: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "brick walls": lambda: (_bricks(1), _bricks(2)),
    "bricks of one colour": lambda: (_bricks(1, jitter=0), _bricks(2, jitter=0)),
    "parts of brick walls": lambda: (_bricks(1)[:300, :400], _bricks(2)[56:, 64:]),
    "screens of dots": lambda: (_dots(_WHITE), _dots(_WHITE - 20)[:, 8:]),
    "one screen over two photographs": lambda: (
        _dots(_photograph("cat")),
        _dots(_photograph("coffee")),
    ),
    "one caption": lambda: (_captioned(_photograph("cat")), _captioned(_photograph("coffee"))),
    "one caption on smooth pictures": lambda: (
        _captioned(_photograph("milky-way")),
        _captioned(_photograph("sunset")),
    ),
    "one logo": lambda: (
        _with_logo(_photograph("cat"), 110, (500, 20)),
        _with_logo(_photograph("coffee"), 110, (500, 20)),
    ),
    "one logo, larger": lambda: (
        _with_logo(_photograph("peaks"), 150, (20, 300)),
        _with_logo(_photograph("fig"), 110, (500, 20)),
    ),
    "one logo on white": lambda: (
        _with_logo(_WHITE, 110, (500, 20)),
        _with_logo(_WHITE, 140, (100, 300)),
    ),
    "letters of one sender": lambda: (_letter(1, 18), _letter(2, 18)),
    "a long and a short letter": lambda: (_letter(3, 18), _letter(4, 9)),
}


@pytest.mark.parametrize("name", _ALIKE)
def test_claims_nothing_on(name: str) -> None:
    query, reference = _ALIKE[name]()
    assert _found(query, reference) is None
    assert _found(reference, query) is None


def test_is_as_strict_as_it_is_told(cat: np.ndarray) -> None:
    width = cat.shape[1]
    left, right = cat[:, : width * 6 // 10], cat[:, width * 4 // 10 :]
    overlap = _proven(left, right)
    assert overlap.query_share == pytest.approx(1 / 3, abs=0.01)
    assert overlap.reference_share == pytest.approx(1 / 3, abs=0.01)
    for strict in (
        OverlapConfig(min_share=0.4),
        OverlapConfig(min_support=0.4),
        OverlapConfig(min_matches=500),
    ):
        assert _found(left, right, strict) is None
    assert _proven(_captioned(cat), cat).certainty == pytest.approx(0.9, abs=0.05)
    for strict in (
        OverlapConfig(min_certainty=0.97),
        OverlapConfig(min_agreement=0.95),
        OverlapConfig(min_consensus=1.0),
    ):
        assert _found(_captioned(cat), cat, strict) is None


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 4000), (4000, 1), (30, 3000), (16, 16)])
def test_survives_hostile_shapes(
    shape: tuple[int, int], rng: np.random.Generator, cat: np.ndarray
) -> None:
    reference = local_features(cat)
    for image in (
        np.full((*shape, 3), 128, np.uint8),
        rng.integers(0, 255, (*shape, 3)).astype(np.uint8),
    ):
        features = LocalFeatures.from_bytes(local_features(image).to_bytes())
        assert (features.width, features.height) == (shape[1], shape[0])
        assert find_overlap(features, reference) is None
        assert find_overlap(reference, features) is None
        find_overlap(features, features)


def test_stores_a_reference_in_few_bytes(cat: np.ndarray) -> None:
    features = local_features(cat)
    data = features.to_bytes()
    stored = LocalFeatures.from_bytes(data)
    assert len(data) < 20_000
    assert len(features) == 800
    assert len(stored) == 400
    assert stored.to_bytes() == data
    np.testing.assert_array_equal(stored.places, features.places[:400])


def test_refuses_damaged_bytes(cat: np.ndarray) -> None:
    data = local_features(cat).to_bytes()
    thumbnail = data.index(b"\xff\xd8\xff")
    garbled = data[:thumbnail] + bytes(len(data) - thumbnail)
    for broken in (b"", data[:-1], data + b"x", bytes(len(data)), data[:30], garbled):
        with pytest.raises(FormatError, match="add the picture again"):
            LocalFeatures.from_bytes(broken)


def test_gives_the_same_bytes_in_every_thread(cat: np.ndarray) -> None:
    expected, found = local_features(cat).to_bytes(), []
    threads = [
        threading.Thread(target=lambda: found.append(local_features(cat).to_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_leaves_opencvs_threads_alone(cat: np.ndarray) -> None:
    before = cv2.getNumThreads()
    _found(cat, cat)
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize(
    "fields", [{"min_matches": 2}, {"min_certainty": 1.5}, {"min_share": -1}, {"min_support": 2}]
)
def test_refuses_settings_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        OverlapConfig(**fields)  # type: ignore[arg-type]


def test_mirrors_codes_as_a_mirror_does(rng: np.random.Generator) -> None:
    descriptors = rng.integers(0, 255, (50, 4, 4, 8)).astype(np.float32)
    turned = descriptors[:, ::-1][..., _MIRRORED_DIRECTIONS]
    flat, of_mirror = descriptors.reshape(50, 128), turned.reshape(50, 128)
    np.testing.assert_allclose(mirrored(decode(encode(flat))), decode(encode(of_mirror)), atol=1e-6)


def test_keeps_what_descriptors_say(rng: np.random.Generator) -> None:
    """Inner products of codes follow those of RootSIFT without its constant part."""
    descriptors = rng.gamma(0.5, 40, (200, 128)).astype(np.float32)
    noisy = (descriptors + rng.normal(0, 4, descriptors.shape)).clip(0).astype(np.float32)
    own = (decode(encode(descriptors)) * decode(encode(noisy))).sum(axis=1)
    other = (decode(encode(descriptors)) * decode(encode(noisy[::-1]))).sum(axis=1)
    assert own.min() > 0.75
    assert other.max() < 0.6
    assert encode(np.empty((0, 128), np.float32)).shape == (0, 31)


def test_takes_a_motion_apart() -> None:
    for flipped in (False, True):
        for degrees in (-150.0, -30.0, 0.0, 89.0, 170.0):
            angle = np.deg2rad(degrees)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            motion = 1.7 * turn @ (np.diag([-1.0, 1.0]) if flipped else np.eye(2))
            found = decomposed(motion)
            assert found[0] == flipped
            assert found[1:] == pytest.approx((degrees, 1.7, 1.0))


def test_clips_polygons_at_the_frame() -> None:
    square = np.array([[-5.0, -5.0], [5.0, -5.0], [5.0, 5.0], [-5.0, 5.0]])
    quarter = clipped(square, np.array([10.0, 10.0]))
    assert area(quarter) == pytest.approx(25)
    assert len(clipped(square - 100, np.array([10.0, 10.0]))) == 0
    inside = np.array([[1.0, 1.0], [3.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose(np.sort(clipped(inside, np.ones(2) * 9), axis=0),
                               np.sort(inside, axis=0))  # fmt: skip


def test_differentiates_homographies(rng: np.random.Generator) -> None:
    matrix = np.eye(3) + rng.normal(0, 0.1, (3, 3))
    at, step = np.array([0.3, 0.6]), 1e-6
    for axis in range(2):
        ahead = project((at + step * np.eye(2)[axis])[None], matrix)
        behind = project((at - step * np.eye(2)[axis])[None], matrix)
        np.testing.assert_allclose(
            (ahead - behind)[0] / (2 * step), slope(matrix, at)[:, axis], rtol=1e-5
        )


def test_agrees_whatever_the_brightness(cat: np.ndarray) -> None:
    small = resize(cat, 128, 96)
    darker = (small * 0.5).astype(np.uint8)
    same, other = measure_agreement(darker, small, np.eye(3)), resize(_photograph("fig"), 128, 96)
    assert same.share > 0.99
    assert same.difference > 20
    assert measure_agreement(small, small, np.eye(3)).difference == 0
    assert measure_agreement(small, other, np.eye(3)).share < 0.1


def test_does_not_take_slow_gradients_for_agreement() -> None:
    ramp = np.linspace(0, 255, 128)
    across = np.repeat(np.tile(ramp, (96, 1))[..., None], 3, axis=2).astype(np.uint8)
    assert measure_agreement(across, across, np.eye(3)).share == 0


def test_decodes_again_what_was_decoded_too_small_for_features(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    write_image(path, resize(read_image(PHOTOGRAPHS / "cat.jpg"), 1024, 1024), suffix=".jpg")
    data = path.read_bytes()
    small, wanted = read_image(data, at_least=256), read_image(data, at_least=400)
    assert len(small) == 256
    assert features_of(data, small).to_bytes() == local_features(wanted).to_bytes()
    assert features_of(b"not read", wanted).to_bytes() == local_features(wanted).to_bytes()
