"""Headers: what a picture says of itself, whatever its format, and what damaged ones cost."""

import io
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vit4icd.errors import ImageError
from vit4icd.headers import read_header
from vit4icd.images import read_image


def _encoded(
    kind: str, exif: Image.Exif | bytes | None = None, size: tuple[int, int] = (60, 40)
) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8))
    notes = {} if exif is None else {"exif": exif if isinstance(exif, bytes) else exif.tobytes()}
    picture.save(buffer, kind, **notes)
    return buffer.getvalue()


def _notes(**fields: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = fields.get("orientation", 1)
    if "date" in fields:
        exif[0x0132] = fields["date"]
    if "taken" in fields:
        exif.get_ifd(0x8769)[0x9003] = fields["taken"]
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "PPM"])
def test_reads_the_size_of_every_format(kind: str) -> None:
    header = read_header(_encoded(kind))
    assert (header.width, header.height, header.taken) == (60, 40, None)
    assert header.format == kind
    assert header.n_pixels == 2400


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_reads_the_size_whatever_the_notes_are(kind: str) -> None:
    data = _encoded(kind, b"Exif\x00\x00no notes")
    header, image = read_header(data), read_image(data)
    assert (header.height, header.width) == image.shape[:2] == (40, 60)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_gives_the_size_as_the_picture_is_read(orientation: int, kind: str) -> None:
    data = _encoded(kind, _notes(orientation=orientation))
    header, image = read_header(data), read_image(data)
    assert (header.height, header.width) == image.shape[:2]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_reads_when_a_picture_was_taken(kind: str) -> None:
    both = _notes(taken="2024:05:31 12:00:01", date="2025:01:01 00:00:00")
    assert read_header(_encoded(kind, both)).taken == "2024-05-31T12:00:01"
    assert read_header(_encoded(kind, _notes(date="2025:01:01 00:00:00"))).taken == (
        "2025-01-01T00:00:00"
    )
    assert read_header(_encoded(kind, _notes(taken="0000:00:00 00:00:00"))).taken is None
    assert read_header(_encoded(kind, _notes(taken="sometime"))).taken is None


@given(moment=st.datetimes(min_value=datetime(1900, 1, 1)))
def test_keeps_every_date(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    notes = _notes(taken=moment.strftime("%Y:%m:%d %H:%M:%S"))
    assert read_header(_encoded("JPEG", notes, (8, 8))).taken == moment.isoformat()


def test_decodes_no_pixel() -> None:
    data = _encoded("PNG", size=(3000, 2000))
    cut = data[: len(data) // 2]
    with pytest.raises(ImageError):
        read_image(cut)
    assert read_header(cut).n_pixels == 6_000_000


@given(st.binary(max_size=200), st.integers(0, 400))
def test_refuses_what_is_no_picture_with_a_reason(noise: bytes, place: int) -> None:
    data = bytearray(_encoded("JPEG", _notes(taken="2024:05:31 12:00:01"), (16, 16)))
    data[place : place + len(noise)] = noise
    for hostile in (noise, bytes(data)):
        try:
            assert read_header(hostile).n_pixels >= 0
        except ImageError as error:
            assert error.reason
