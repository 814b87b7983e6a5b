"""Pictures of every kind become the same upright RGB; hostile files are refused with a reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit4icd.errors import ConfigError, FormatError, ImageError
from vit4icd.images import OFFICIAL, Preprocessing, prepare, read_image, resize, write_image


@pytest.fixture
def picture(rng: np.random.Generator) -> np.ndarray:
    small = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return resize(small, 80, 60)


def _bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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
    path = tmp_path / "wrong suffix.txt"
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


def test_scales_sixteen_bits_to_eight() -> None:
    ramp = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    found = read_image(_bytes(Image.fromarray(ramp), "PNG"))
    np.testing.assert_allclose(found[:, :, 0], ramp / 257, atol=1)


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


def test_decodes_large_jpegs_smaller_where_allowed(rng: np.random.Generator) -> None:
    big = resize(rng.integers(0, 255, (8, 10, 3)).astype(np.uint8), 1000, 800)
    data = _bytes(Image.fromarray(big), "JPEG", quality=95)
    small = read_image(data, at_least=150)
    assert small.shape == (200, 250, 3)
    assert read_image(data).shape == (800, 1000, 3)
    assert read_image(data, at_least=900).shape == (800, 1000, 3)
    difference = resize(small, 50, 40).astype(int) - resize(big, 50, 40)
    assert np.abs(difference).mean() < 2


def _png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def test_refuses_bombs_before_decoding_them(picture: np.ndarray) -> None:
    for width, height in ((65_500, 65_500), (1, 400_000_000), (30_000, 30_000)):
        with pytest.raises(ImageError, match="--max-pixels") as caught:
            read_image(_png_header(width, height))
        assert caught.value.reason == "too_large"
    with pytest.raises(ImageError, match="limit of 100") as caught:
        read_image(_bytes(Image.fromarray(picture), "JPEG"), max_pixels=100)
    assert caught.value.reason == "too_large"


def test_lifts_the_limit_when_asked_to() -> None:
    with pytest.raises(ImageError) as caught:
        read_image(_png_header(20_000, 20_000), max_pixels=500_000_000)
    assert caught.value.reason in {"truncated", "corrupt"}
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_refuses_files_cut_anywhere(kind: str, picture: np.ndarray) -> None:
    data = _bytes(Image.fromarray(picture), kind)
    for size in range(1, len(data) - 24, max(1, len(data) // 25)):
        try:
            found = read_image(data[:size])
        except ImageError as error:
            assert error.reason in {"truncated", "corrupt", "unsupported_format", "too_large"}
        else:  # a decoder may give what it has; then it has the right size
            assert found.shape == picture.shape
            assert kind == "JPEG"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "unsupported_format"),
        (b"%PDF-1.4 not a picture", "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 50, "unsupported_format"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "unsupported_format"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 30, "unsupported_format"),
    ],
)
def test_names_the_reason_of_a_refusal(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(data)
    assert caught.value.reason in {reason, "corrupt"}


def test_survives_random_damage(picture: np.ndarray, rng: np.random.Generator) -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        data = _bytes(Image.fromarray(picture), kind)
        for _ in range(40):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 5):
                damaged[place] = rng.integers(256)
            try:
                assert read_image(bytes(damaged), max_pixels=10**6).dtype == np.uint8
            except ImageError as error:
                assert error.reason


def test_says_when_a_file_is_missing_or_a_folder(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone.jpg", "missing"), (tmp_path, "unreadable_file")):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert caught.value.reason == reason
    with pytest.raises(ImageError) as caught:
        read_image("nul\x00name")
    assert caught.value.reason == "missing"


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 5), np.uint8)])
def test_refuses_arrays_that_are_no_pictures(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="picture"):
        read_image(bad)


def test_repeats_gray_and_flattens_alpha_arrays() -> None:
    assert read_image(np.full((2, 3), 7, np.uint8)).tolist() == [[[7] * 3] * 3] * 2
    assert read_image(np.full((2, 3, 1), 7, np.uint8)).shape == (2, 3, 3)
    assert read_image(np.zeros((2, 3, 4), np.uint8)).tolist() == [[[255] * 3] * 3] * 2


def test_prepares_what_the_preprocessing_says(picture: np.ndarray) -> None:
    wanted = Preprocessing(image_size=32, colour="gray", mean=(0, 0, 0), std=(1, 1, 1))
    pixels = prepare(picture, wanted)
    assert pixels.shape == (3, 32, 32)
    assert pixels.flags.c_contiguous
    assert (pixels[0] == pixels[1]).all()
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_writes_preprocessing_as_json_and_reads_it_back() -> None:
    wanted = Preprocessing(image_size=64, colour="colour", decode="scaled")
    assert Preprocessing.from_json(wanted.to_json()) == wanted
    assert wanted.at_least == 128
    assert OFFICIAL.at_least is None
    with pytest.raises(FormatError):
        Preprocessing.from_json({"image_size": 3})
    with pytest.raises(ConfigError):
        Preprocessing(image_size=0)


def test_writes_jpeg_and_png_and_nothing_else(picture: np.ndarray, tmp_path: Path) -> None:
    write_image(tmp_path / "a", picture, suffix=".png")
    np.testing.assert_array_equal(read_image(tmp_path / "a"), picture)
    write_image(tmp_path / "b", picture, suffix=".JPG", quality=95)
    assert read_image(tmp_path / "b").shape == picture.shape
    with pytest.raises(ConfigError, match=r"\.gif"):
        write_image(tmp_path / "c", picture, suffix=".gif")
