"""What a picture's header says: format, size, when it was taken; it decodes no pixel."""

import io
from dataclasses import dataclass
from datetime import datetime

from PIL import Image

from vit4icd.images import ON_THEIR_SIDE, ORIENTATION_TAG, explained, reader_of

__all__ = ["Header", "read_header"]

_DATE, _EXIF, _DATE_TAKEN = 0x0132, 0x8769, 0x9003


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a picture says of itself, upright."""

    format: str
    """As Pillow calls it, such as JPEG."""
    width: int
    height: int
    taken: str | None
    """When it was taken, 2024-05-31T12:00:00, by its EXIF notes; None where they do not say."""

    @property
    def n_pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def read_header(data: bytes) -> Header:
    """Return what the header of a picture's file says.

    Raises:
        ImageError: with the reasons of :func:`vit4icd.images.read_image`.
    """
    with explained(), reader_of(data)(io.BytesIO(data)) as picture:
        width, height = picture.size
        orientation, taken = _noted(picture)
        if orientation in ON_THEIR_SIDE and picture.format != "TIFF":  # whose size is upright
            width, height = height, width
        return Header(format=picture.format or "", width=width, height=height, taken=taken)


def _noted(picture: Image.Image) -> tuple[int, str | None]:
    """Return orientation and date; damaged notes do not make a picture unreadable."""
    try:
        notes = Image.Image.getexif(picture)  # PNG's own would decode, to find late ones
        return int(notes.get(ORIENTATION_TAG, 1)), _taken(notes)
    except Exception:
        return 1, None


def _taken(notes: Image.Exif) -> str | None:
    """Return the date in EXIF's form, 2024:05:31 12:00:00, in ISO's."""
    for value in (notes.get_ifd(_EXIF).get(_DATE_TAKEN), notes.get(_DATE)):
        try:
            return datetime.strptime(str(value)[:19], "%Y:%m:%d %H:%M:%S").isoformat()
        except ValueError:  # missing, 0000:00:00 00:00:00, or no date at all
            continue
    return None
