"""Pictures of every kind become the same upright RGB; hostile files are refused with a reason."""

import io
import os
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vit4icd.errors import ConfigError, ImageError
from vit4icd.images import read_bytes, read_image, resize, to_gray, write_image

_SMALL = Image.new("RGB", (8, 8), "red")
_REASONS = {"empty", "unsupported_format", "too_large", "truncated", "corrupt"}


def _refusal(source: Path | str | bytes | Image.Image, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source, **options)
    return caught.value.reason


def _bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PPM", {})],
)
def test_reads_lossless_formats_exactly(
    kind: str, options: dict[str, object], picture: np.ndarray
) -> None:
    data = _bytes(Image.fromarray(picture), kind, **options)
    np.testing.assert_array_equal(read_image(data), picture)


@pytest.mark.parametrize(("kind", "off"), [("JPEG", 6.0), ("WEBP", 8.0), ("AVIF", 8.0)])
def test_reads_lossy_formats_closely(kind: str, off: float, picture: np.ndarray) -> None:
    data = _bytes(Image.fromarray(picture), kind, quality=95)
    assert np.abs(read_image(data).astype(float) - picture).mean() < off


def test_reads_paths_bytes_arrays_and_pillow_alike(picture: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(picture)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/not utf-8 \xff, wrong suffix.txt"))
    path.write_bytes(_bytes(image, "PNG"))
    for source in (path, str(path), path.read_bytes(), image, picture):
        np.testing.assert_array_equal(read_image(source), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_turns_pictures_upright(orientation: int, kind: str, picture: np.ndarray) -> None:
    stored_as = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, 3),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(stored_as[orientation](picture)))
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = read_image(_bytes(stored, kind, exif=exif.tobytes(), **options))
    assert found.shape == picture.shape
    assert np.abs(found.astype(int) - picture).mean() < 3


def test_lays_transparency_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (read_image(_bytes(clear, "PNG")) == 255).all()
    half = Image.new("LA", (4, 4), (0, 128))
    assert abs(int(read_image(_bytes(half, "PNG"))[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 20, 30] * 256)
    data = _bytes(palette, "PNG", transparency=0)
    assert (read_image(data) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_scales_sixteen_bits_to_eight(kind: str) -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    found = read_image(_bytes(Image.fromarray(ramp), kind))
    np.testing.assert_array_equal(found[:, :, 0], np.floor(ramp / 257 + 0.5))


def test_keeps_dark_sixteen_bit_pictures_dark() -> None:
    dark = np.full((4, 4), 200, np.uint16)
    assert (read_image(_bytes(Image.fromarray(dark), "PNG")) == 1).all()


@pytest.mark.parametrize(("top", "expected"), [(1.0, 255), (255.0, 255), (0.5, 128), (100.0, 100)])
def test_takes_float_pictures_by_the_range_they_use(top: float, expected: int) -> None:
    image = Image.fromarray(np.full((4, 4), top, np.float32))
    assert (read_image(_bytes(image, "TIFF")) == expected).all()


def test_lets_float_pictures_pass_their_white_a_little() -> None:
    """As they do once they were resized; and no sample that is none decides."""
    pixels = np.full((8, 8), 0.5, np.float32)
    pixels[0, :3] = -0.1, 1.08, np.inf
    found = read_image(_bytes(Image.fromarray(pixels), "TIFF"))
    assert (found[1:] == 128).all()
    assert found[0, :3, 0].tolist() == [0, 255, 0]


def test_reads_what_tiff_says_of_its_numbers() -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    dark_is_high = _bytes(Image.fromarray(65_535 - ramp), "TIFF", tiffinfo={262: 0})
    right = read_image(_bytes(Image.fromarray(ramp), "TIFF")).astype(int)
    assert np.abs(read_image(dark_is_high) - right).max() <= 1
    wide = (ramp.astype(np.uint32) << 16).view(np.int32)
    signed = _bytes(Image.fromarray(wide), "TIFF")
    tag = struct.pack("<HHI", 339, 3, 1)
    assert tag + b"\x02" in signed
    unsigned = signed.replace(tag + b"\x02", tag + b"\x01")
    assert np.abs(read_image(unsigned) - right).max() <= 1


def test_lays_gray_that_is_seen_through_on_white(picture: np.ndarray) -> None:
    deep = np.array([[1_000, 40_000], [40_000, 1_000]], np.uint16)
    seen = read_image(_bytes(Image.fromarray(deep), "PNG", transparency=1_000))
    assert seen[:, :, 0].tolist() == [[255, 156], [156, 255]]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\xff\x0a\x00\x00", "JPEG XL"),
        (b"\x00\x00\x00\x0cjP  \r\n", "JPEG 2000"),
        (b"P3\n1 1\n255\n9 9 9\n", "PPM as text"),
    ],
)
def test_says_which_kinds_of_pictures_it_does_not_read(data: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=f"^{kind}, which is not read; convert it") as refused:
        read_image(data)
    assert refused.value.reason == "unsupported_format"


def test_reads_cmyk_as_stored_inverted_with_and_without_the_adobe_marker(
    picture: np.ndarray,
) -> None:
    marked = _bytes(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95)
    start = marked.index(b"\xff\xee")  # APP14, by which Adobe signs its inverted ink
    (length,) = struct.unpack(">H", marked[start + 2 : start + 4])
    unmarked = marked[:start] + marked[start + 2 + length :]
    for data in (marked, unmarked):
        assert np.abs(read_image(data).astype(int) - picture).mean() < 8


def test_converts_cmyk_one_bit_and_gray(picture: np.ndarray) -> None:
    image = Image.fromarray(picture)
    for mode, kind in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG"), ("1", "PNG")):
        found = read_image(_bytes(image.convert(mode), kind))
        assert found.shape == picture.shape
    cmyk = read_image(_bytes(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk.astype(int) - picture).mean() < 8


def test_takes_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = _bytes(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert read_image(data)[0, 0].tolist() == [255, 0, 0]


def test_takes_the_first_picture_of_an_mpo(picture: np.ndarray) -> None:
    black = Image.new("RGB", (80, 60))
    data = _bytes(Image.fromarray(picture), "MPO", save_all=True, append_images=[black])
    np.testing.assert_array_equal(
        read_image(data), read_image(_bytes(Image.fromarray(picture), "JPEG"))
    )


def test_reads_pixels_whose_exif_is_damaged(picture: np.ndarray) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = _bytes(Image.fromarray(picture), kind, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
        assert read_image(data).shape == picture.shape


def test_gives_arrays_that_may_be_written_in(picture: np.ndarray) -> None:
    read = [read_image(_bytes(Image.fromarray(picture), kind)) for kind in ("PNG", "JPEG", "GIF")]
    for array in (*read, resize(picture, 5, 4), to_gray(picture)):
        assert array.flags.writeable


def test_decodes_large_jpegs_smaller_where_allowed(rng: np.random.Generator) -> None:
    big = resize(rng.integers(0, 255, (8, 10, 3)).astype(np.uint8), 1000, 800)
    data = _bytes(Image.fromarray(big), "JPEG", quality=95)
    small = read_image(data, at_least=150)
    assert small.shape == (200, 250, 3)
    assert read_image(data).shape == (800, 1000, 3)
    assert read_image(data, at_least=500).shape == (800, 1000, 3)
    difference = resize(small, 50, 40).astype(int) - resize(big, 50, 40)
    assert np.abs(difference).mean() < 2
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = _bytes(Image.fromarray(big), "JPEG", quality=95, exif=exif.tobytes())
    np.testing.assert_array_equal(read_image(turned, at_least=150), np.rot90(small, -1))


def _patched(data: bytes, at: int, patch: bytes) -> bytes:
    return data[:at] + patch + data[at + len(patch) :]


def _bombs() -> dict[str, bytes]:
    gif, bmp, jpeg = (_bytes(_SMALL, kind) for kind in ("GIF", "BMP", "JPEG"))
    return {
        "high and wide png": _png_header(65_500, 65_500),
        "thin png": _png_header(1, 400_000_000),
        "png within twice the limit": _png_header(20_000, 10_000),
        "gif": _patched(gif, 6, struct.pack("<HH", 60_000, 60_000)),
        "bmp": _patched(bmp, 18, struct.pack("<ii", 60_000, 60_000)),
        "jpeg": _patched(jpeg, jpeg.index(b"\xff\xc0") + 5, struct.pack(">HH", 60_000, 60_000)),
        "ppm": b"P5 60000 60000 255\n" + bytes(64),
    }


@pytest.mark.parametrize("name", _bombs())
def test_refuses_bombs_before_decoding_them(name: str) -> None:
    with pytest.raises(ImageError, match=r"\d+ x \d+ pixels.*--max-pixels") as caught:
        read_image(_bombs()[name])
    assert caught.value.reason == "too_large"


def test_limits_pixels_and_bytes_as_told(picture: np.ndarray, tmp_path: Path) -> None:
    data = _bytes(Image.fromarray(picture), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data)
    assert _refusal(data, max_pixels=80 * 60 - 1) == "too_large"
    assert read_image(data, max_pixels=80 * 60, max_bytes=len(data)).shape == picture.shape
    assert _refusal(Image.fromarray(picture), max_pixels=100) == "too_large"
    for source in (data, tmp_path / "a.jpg"):
        assert _refusal(source, max_bytes=len(data) - 1) == "too_many_bytes"


def test_lifts_the_limit_without_touching_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert _refusal(_png_header(15_000, 12_000), max_pixels=500_000_000) == "truncated"
    assert read_image(_bytes(Image.new("RGB", (50, 50)), "GIF")).shape == (50, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_names_the_reason_wherever_a_file_is_cut(kind: str, picture: np.ndarray) -> None:
    data = _bytes(Image.fromarray(picture), kind)
    trailer = 24  # the last bytes may hold no pixels: what comes before them may be read
    for size in range(1, len(data) - trailer, max(1, len(data) // 150)):
        expected = {"unsupported_format"} if size < 16 else set()
        assert _refusal(data[:size]) in expected | {"truncated", "corrupt"}, size
    if kind != "AVIF":
        assert _refusal(data[: len(data) - trailer - 1]) == "truncated"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "unsupported_format"),
        (b"%PDF-1.4 not a picture", "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "unsupported_format"),
        (_bytes(_SMALL, "ICO"), "unsupported_format"),
        (_bytes(_SMALL, "TGA"), "unsupported_format"),
        (_bytes(_SMALL, "PCX"), "unsupported_format"),
        (_bytes(_SMALL, "PDF"), "unsupported_format"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 50, "corrupt"),
        (b"\xff\xd8\xff\xd9", "corrupt"),
        (b"RIFF\x04\x00\x00\x00WEBPVP8 ", "corrupt"),
        (b"RIFF\xff\x00\x00\x00WEBPVP8 ", "truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 30, "corrupt"),
        (b"GIF89a\x00\x00\x00\x00\x00\x00\x00", "corrupt"),
        (b"II*\x00\xff\xff\xff\xff", "corrupt"),
        (b"BM" + b"\x00" * 60, "corrupt"),
        (b"P6 -3 0 255\n", "corrupt"),
        (_png_header(0, 5), "corrupt"),
    ],
)
def test_names_the_reason_of_a_refusal(data: bytes, reason: str) -> None:
    assert _refusal(data) == reason


_STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00", b"MM\x00*", b"BM"]
_STARTS += [b"P6 ", b"RIFF\x10\x00\x00\x00WEBP", b"\x00\x00\x00\x18ftypavif"]


@given(st.sampled_from(_STARTS), st.binary(max_size=200))
def test_raises_nothing_but_its_own_error_on_any_bytes(start: bytes, rest: bytes) -> None:
    try:
        assert read_image(start + rest, max_pixels=10_000).ndim == 3
    except ImageError as error:
        assert error.reason in _REASONS


def test_says_when_an_opened_picture_is_cut(picture: np.ndarray) -> None:
    opened = Image.open(io.BytesIO(_bytes(Image.fromarray(picture), "PNG")[:500]))
    assert _refusal(opened) == "truncated"


def test_keeps_warnings_in_and_the_filters_as_they_were_under_threads() -> None:
    palette = Image.new("P", (60, 60))
    data = _bytes(palette, "PNG", transparency=bytes([0, 255] * 128))
    cut_exif = _bytes(_SMALL, "TIFF", tiffinfo={270: "x" * 50})[:-30]
    before, pause = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            shapes = set(pool.map(lambda _: read_image(data).shape, range(400)))
            reasons = set(pool.map(lambda _: _refusal(cut_exif), range(100)))
    finally:
        sys.setswitchinterval(pause)
    assert shapes == {(60, 60, 3)}
    assert reasons <= {"truncated", "corrupt"}
    assert warnings.filters == before


def test_survives_random_damage(picture: np.ndarray, rng: np.random.Generator) -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF") * 40:
        data = _bytes(Image.fromarray(picture), kind)
        for place, value in rng.integers(0, (len(data), 256), (5, 2)).tolist():
            data = _patched(data, place, bytes([value]))
        try:
            assert read_image(data, max_pixels=10**6).dtype == np.uint8
        except ImageError as error:
            assert error.reason in _REASONS


def test_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert _refusal(tmp_path / "gone.jpg") == "missing"
    assert _refusal(tmp_path / "empty.jpg" / "inside.jpg") == "missing"
    assert _refusal("nul\x00name") == "missing"
    assert _refusal(tmp_path / "empty.jpg") == "empty"
    for path in (tmp_path, tmp_path / "loop.jpg", tmp_path / "pipe.jpg"):
        assert _refusal(path) == "unreadable_file"


def test_says_when_a_file_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", refuse)  # the super-user may read anything
    with pytest.raises(ImageError, match="Permission denied") as caught:
        read_bytes(tmp_path / "secret.jpg")
    assert caught.value.reason == "unreadable_file"


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 5), np.uint8)])
def test_refuses_arrays_that_are_no_pictures(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="picture"):
        read_image(bad)


def test_repeats_gray_and_flattens_alpha_arrays() -> None:
    assert read_image(np.full((2, 3), 7, np.uint8)).tolist() == [[[7] * 3] * 3] * 2
    assert read_image(np.full((2, 3, 1), 7, np.uint8)).shape == (2, 3, 3)
    assert read_image(np.zeros((2, 3, 4), np.uint8)).tolist() == [[[255] * 3] * 3] * 2


def test_writes_jpeg_and_png_and_nothing_else(picture: np.ndarray, tmp_path: Path) -> None:
    write_image(tmp_path / "a", picture, suffix=".png")
    np.testing.assert_array_equal(read_image(tmp_path / "a"), picture)
    write_image(tmp_path / "b", picture, suffix=".JPG", quality=95)
    assert read_image(tmp_path / "b").shape == picture.shape
    with pytest.raises(ConfigError, match=r"\.gif"):
        write_image(tmp_path / "c", picture, suffix=".gif")
