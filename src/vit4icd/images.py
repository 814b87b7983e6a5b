"""Bytes to pixels, once for training, description and service alike; it knows no model."""

import io
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vit4icd.errors import ConfigError, ImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "ON_THEIR_SIDE",
    "ORIENTATION_TAG",
    "PILLOW_RESIZER",
    "Resizer",
    "Source",
    "explained",
    "read_bytes",
    "read_image",
    "reader_of",
    "resize",
    "to_gray",
    "write_image",
]

IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl",
    ".mpo", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
))  # fmt: skip
"""Suffixes by which a folder's pictures are told from its other files; content decides the rest.

Those of pictures that cannot be read are among them, so that they are told of, not passed over.
"""
MAX_PIXELS = 178_956_970
"""Pixels that a picture may have unless told otherwise: 512 MiB of RGB."""
MAX_BYTES = 512 * 2**20
"""Bytes that a picture's file may have unless told otherwise."""

# The formats that are opened, by how their files start. Each is read by its own class and not by
# Image.open, which knows many more and has a pixel limit that only the whole process can change.
_READERS: tuple[tuple[re.Pattern[bytes], Callable[[io.BytesIO], ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), TiffImageFile),
    (re.compile(rb".{4}ftyp.{0,64}?avi[fs]", re.DOTALL), AvifImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"P[456]\s"), PpmImageFile),
)
_FORMATS = "JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, binary PPM"
_UNREAD = (
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  "), "JPEG 2000"),
    (re.compile(rb"P[123]\s"), "PPM as text"),  # Pillow takes minutes for a few MB of comments
)
_OVERSHOOT = 1.25  # times the white of a float picture that filters leave beside sharp edges
ORIENTATION_TAG = 0x0112
_TIFF_WHITE, _TIFF_SAMPLE = 262, 339  # 0 where white is 0; 1 where samples have no sign
ON_THEIR_SIDE = (5, 6, 7, 8)
"""EXIF orientations of pictures that are stored turned by a quarter."""

Resizer = Literal["bicubic", "bilinear"]
Source = Path | str | bytes | Image.Image | np.ndarray
PILLOW_RESIZER = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def read_image(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    at_least: int | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the picture as RGB, upright, on white; the array is the caller's to write in.

    The content decides the format, not the name. EXIF orientation is applied; CMYK, palettes,
    16-bit and gray become 8-bit RGB; transparency is laid on white; of an animation the first frame
    is taken. The header is checked before any pixel is decoded. With ``at_least``, libjpeg may
    decode a JPEG to 1/2, 1/4 or 1/8, as long as its short side keeps that many pixels.

    Raises:
        ImageError: with the reason "missing", "unreadable_file", "empty", "too_many_bytes",
            "unsupported_format", "too_large" (pixels or memory), "truncated" or "corrupt".

    Example:
        >>> import numpy as np
        >>> read_image(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    with explained():
        if isinstance(source, Image.Image):
            return _to_rgb(source, max_pixels)
        data = source if isinstance(source, bytes) else read_bytes(Path(source), max_bytes)
        _require_bytes(len(data), max_bytes)
        if not data:
            raise ImageError("empty", "the file has no bytes")
        reader = reader_of(data)
        if reader is JpegImageFile:
            image = _read_plain_jpeg(data, max_pixels, at_least)
            if image is not None:
                return image
        with reader(io.BytesIO(data)) as picture:
            return _to_rgb(picture, max_pixels)


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file; a pipe or device is refused, for it may never end.

    Raises:
        ImageError: with the reason "missing", "unreadable_file" or "too_many_bytes".
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            _require_bytes(status.st_size, max_bytes)
            return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", f"there is no such file: {error.strerror}") from error
    except OSError as error:
        raise ImageError("unreadable_file", f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:  # an embedded NUL
        raise ImageError("missing", f"not a file name: {error}") from error
    raise ImageError("unreadable_file", "a folder, pipe or device, not a file")


def resize(
    image: UInt8[np.ndarray, "height width 3"],
    width: int,
    height: int,
    resizer: Resizer = "bicubic",
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Return the picture at another size, its aspect ratio ignored (Pillow's filters)."""
    return np.array(Image.fromarray(image).resize((width, height), PILLOW_RESIZER[resizer]))


def to_gray(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Return the luma (.299, .587, .114) in three equal channels."""
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def write_image(
    path: Path, image: UInt8[np.ndarray, "height width 3"], *, suffix: str, quality: int = 92
) -> None:
    """Write the picture as JPEG or PNG, by the suffix given (a temporary path has its own).

    Raises:
        ConfigError: another suffix than .jpg, .jpeg or .png.
    """
    if suffix.lower() in (".jpg", ".jpeg"):
        path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality))
    elif suffix.lower() == ".png":
        Image.fromarray(image).save(path, "PNG")
    else:
        raise ConfigError(f"pictures are written as .jpg or .png, not {suffix!r}")


class _Silence:
    """Pillow's warnings off while any thread decodes; the last one out restores the filters.

    The filters belong to the process: were each thread to save and restore them, overlapping
    threads would restore each other's.
    """

    def __init__(self) -> None:
        self._lock, self._n_inside = threading.Lock(), 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._n_inside:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                self._saved.__exit__(None, None, None)


_SILENCE = _Silence()


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError with a reason."""
    with _SILENCE:
        try:
            yield
        except ImageError:
            raise
        except (MemoryError, Image.DecompressionBombError) as error:
            raise ImageError("too_large", f"not enough memory for the picture: {error}") from error
        except Exception as error:  # decoders raise nearly anything on hostile bytes
            cut = isinstance(error, EOFError) or re.search("truncated|premature", str(error), re.I)
            reason = "truncated" if cut else "corrupt"
            raise ImageError(reason, f"the picture cannot be decoded: {error}") from error


def _require_bytes(n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise ImageError(
            "too_many_bytes",
            f"{n_bytes} bytes exceed the limit of {max_bytes}; make the file smaller",
        )


def _require_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            "too_large",
            f"{width} x {height} pixels exceed the limit of {max_pixels}; raise --max-pixels "
            "(max_pixels) if the file is trusted",
        )


def reader_of(data: bytes) -> Callable[[io.BytesIO], ImageFile]:
    """Return what opens such bytes, by how they start; ImageError where nothing does."""
    reader = next((reader for start, reader in _READERS if start.match(data)), None)
    if reader is None:
        kind = next((kind for start, kind in _UNREAD if start.match(data)), None)
        what = "not a picture" if kind is None else f"{kind}, which is not read; convert it"
        raise ImageError("unsupported_format", f"{what}: none of {_FORMATS}")
    # WebP's decoder does not tell a cut file from a damaged one; the length in its header does.
    if reader is WebPImageFile and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ImageError("truncated", f"the file ends after {len(data)} bytes, inside the picture")
    return reader


def _read_plain_jpeg(
    data: bytes, max_pixels: int, at_least: int | None
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Decode a gray or YCbCr JPEG with libjpeg-turbo; None leaves it to Pillow."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        _require_size(width, height, max_pixels)
        if space not in ("YCbCr", "Gray"):
            return None
        decoded: UInt8[np.ndarray, "height width 3"] = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, **_scaled(width, height, at_least)
        )
    except ValueError:
        return None
    return _upright(decoded, _orientation_of_jpeg(data))


def _scaled(width: int, height: int, at_least: int | None) -> dict[str, int]:
    """Return the size to decode to; libjpeg knows all eighths, but 7/8 takes longer than 1."""
    short = min(width, height)
    factor = next((f for f in (8, 4, 2) if at_least and short >= f * at_least), 1)
    return {"min_height": -(-height // factor), "min_width": -(-width // factor)}


def _orientation_of_jpeg(data: bytes) -> int:
    if b"Exif\x00\x00" not in data and b"tiff:Orientation" not in data:
        return 1
    with JpegImageFile(io.BytesIO(data)) as picture:
        return _orientation(picture)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged notes do not make the pixels unreadable
        return 1


def _upright(
    stored: UInt8[np.ndarray, "height width 3"], orientation: int
) -> UInt8[np.ndarray, "upright_height upright_width 3"]:
    """Undo the EXIF orientation: 1 as is, 2-4 mirrored or turned by 180°, 5-8 on their side."""
    if orientation in ON_THEIR_SIDE:
        stored = stored.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return np.ascontiguousarray(stored)


def _to_rgb(picture: Image.Image, max_pixels: int) -> UInt8[np.ndarray, "height width 3"]:
    _require_size(picture.width, picture.height, max_pixels)
    picture.load()  # TIFF turns itself here, and PNG may hold its EXIF after the pixels
    orientation = _orientation(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _upright(_from_array(_to_8_bit(picture)), orientation)
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return _upright(np.array(picture.convert("RGB")), orientation)


def _to_8_bit(picture: Image.Image) -> UInt8[np.ndarray, "height width"]:
    """Scale 16-bit gray by 1/257, and wider gray by the first usual limit that holds its pixels.

    Float pictures may pass their white a little, as they do beside edges once they were resized.
    """
    tags, stored = getattr(picture, "tag_v2", {}), np.asarray(picture)
    if picture.mode == "I" and _TIFF_SAMPLE in tags and set(_all(tags[_TIFF_SAMPLE])) == {1}:
        stored = stored.view(np.uint32)
    pixels = stored.astype(np.float32)
    pixels[~np.isfinite(pixels)] = 0
    is_short, is_float = picture.mode.startswith("I;16"), picture.mode == "F"
    top = 65_535.0 if is_short else float(pixels.max(initial=0.0))
    limits = ([1.0] if is_float else []) + [255.0, 65_535.0, top]
    limit = next(limit for limit in limits if top <= limit * (_OVERSHOOT if is_float else 1))
    gray = (pixels.clip(0, limit) * (255.0 / limit) + 0.5).astype(np.uint8)
    if is_short and tags.get(_TIFF_WHITE) == 0:
        return 255 - gray
    if is_short and isinstance(clear := picture.info.get("transparency"), int):
        gray[stored == clear] = 255
    return gray


def _all(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple) else (value,)


def _from_array(pixels: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
        raise ImageError(
            "corrupt", f"an array of {pixels.dtype} {pixels.shape} is no picture; give uint8 RGB"
        )
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 4:
        return _to_rgb(Image.fromarray(pixels), pixels.size)
    if channels == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if channels != 3:
        raise ImageError("corrupt", f"a picture has 1, 3 or 4 channels, not {channels}")
    return pixels
