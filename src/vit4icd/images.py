"""Bytes to pixels, once for training, description and service alike; it knows no model."""

import io
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float32, UInt8
from PIL import (  # the plugins register themselves with Pillow
    AvifImagePlugin,  # noqa: F401
    Image,
    ImageOps,
    MpoImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from vit4icd.errors import ConfigError, FormatError, ImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "OFFICIAL",
    "Preprocessing",
    "prepare",
    "read_image",
    "resize",
    "to_gray",
    "write_image",
]

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpe .jpeg .jpg .mpo .pgm .png .ppm .tif .tiff .webp".split()
)
"""Suffixes by which a folder's pictures are told from its other files; content decides the rest."""

_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 178_956_970  # Pillow's own decompression-bomb limit: 512 MiB of RGB
_MAX_BYTES = 512 * 2**20
_ORIENTATION_TAG = 0x0112
_RAISE = "raise --max-pixels (max_pixels) if the file is trusted"
_PILLOW_LIMIT = threading.Lock()  # held while Pillow's own limit is lifted

Resizer = Literal["bicubic", "bilinear"]
Source = Path | str | bytes | Image.Image | np.ndarray
_PILLOW_RESIZER = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """How a model wants its pictures; part of the model's fingerprint.

    Gray is taken at the picture's own size, before resizing, as the official extraction does; the
    resizer ignores the aspect ratio and averages over the source (Pillow's semantics).

    Raises:
        ConfigError: a size that is not positive, or a standard deviation of zero.
    """

    image_size: int = 224
    colour: Literal["gray", "colour"] = "gray"
    resizer: Resizer = "bicubic"
    decode: Literal["full", "scaled"] = "full"
    """"scaled" lets libjpeg halve a large photo while its short side stays twice the image size."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.image_size < 1 or min(self.std) <= 0:
            raise ConfigError(
                f"image_size and std must be positive, not {self.image_size} and {self.std}"
            )

    @property
    def at_least(self) -> int | None:
        """The short side that a scaled JPEG decode must keep; None for a full decode."""
        return 2 * self.image_size if self.decode == "scaled" else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Read what :meth:`to_json` gave.

        Raises:
            FormatError: fields are missing, unknown or of the wrong kind.
        """
        try:
            return cls(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
        except (KeyError, TypeError) as error:
            raise FormatError(f"not a description of preprocessing: {error}") from error


OFFICIAL = Preprocessing()
"""What the official extraction does: gray at native size, Pillow bicubic to 224 x 224."""


def read_image(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the picture as RGB, upright, on white.

    The content decides the format, not the name. EXIF orientation is applied; CMYK, palettes,
    16-bit and gray become 8-bit RGB; transparency is laid on white; of an animation the first frame
    is taken. The header is checked before any pixel is decoded. With ``at_least``, a JPEG may be
    decoded at a half, a quarter or an eighth as long as its short side keeps that many pixels.

    Raises:
        ImageError: with the reason "missing", "unreadable_file", "empty", "too_many_bytes",
            "unsupported_format", "too_large", "truncated" or "corrupt".

    Example:
        >>> import numpy as np
        >>> read_image(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, max_pixels)
    data = source if isinstance(source, bytes) else _read_bytes(Path(source))
    if not data:
        raise ImageError("empty", "the file has no bytes")
    if data[:3] == b"\xff\xd8\xff":
        image = _read_plain_jpeg(data, max_pixels, at_least)
        if image is not None:
            return image
    return _read_with_pillow(data, max_pixels)


def prepare(
    image: UInt8[np.ndarray, "height width 3"], preprocessing: Preprocessing
) -> Float32[np.ndarray, "3 size size"]:
    """Return the picture as the model's input: gray or colour, resized, normalised."""
    size = preprocessing.image_size
    picture = Image.fromarray(image)
    if preprocessing.colour == "gray":
        picture = picture.convert("L")
    resized = picture.resize((size, size), _PILLOW_RESIZER[preprocessing.resizer])
    scale, shift = _affine(preprocessing)
    pixels = np.asarray(resized, np.float32)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(planes * scale - shift, np.float32)


def resize(
    image: UInt8[np.ndarray, "height width 3"],
    width: int,
    height: int,
    resizer: Resizer = "bicubic",
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Return the picture at another size, its aspect ratio ignored (Pillow's filters)."""
    return np.asarray(Image.fromarray(image).resize((width, height), _PILLOW_RESIZER[resizer]))


def to_gray(
    image: UInt8[np.ndarray, "height width 3"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the luma (.299, .587, .114) in three equal channels."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.repeat(gray[:, :, None], 3, axis=2)


def write_image(
    path: Path, image: UInt8[np.ndarray, "height width 3"], *, suffix: str, quality: int = 92
) -> None:
    """Write the picture as JPEG or PNG, by the suffix given (a temporary path has its own).

    Raises:
        ConfigError: another suffix than .jpg, .jpeg or .png.
    """
    if suffix.lower() in (".jpg", ".jpeg"):
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality)
        path.write_bytes(data)
    elif suffix.lower() == ".png":
        Image.fromarray(image).save(path, "PNG")
    else:
        raise ConfigError(f"pictures are written as .jpg or .png, not {suffix!r}")


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ImageError("too_many_bytes", f"{size} bytes; the limit is {_MAX_BYTES}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", f"there is no such file: {error.strerror}") from error
    except OSError as error:
        raise ImageError("unreadable_file", f"the file cannot be read: {error.strerror}") from error
    except ValueError as error:  # an embedded NUL
        raise ImageError("missing", f"not a file name: {error}") from error


def _read_plain_jpeg(
    data: bytes, max_pixels: int, at_least: int | None
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Decode an upright gray or YCbCr JPEG with libjpeg-turbo; None leaves it to Pillow."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _require_size(width, height, max_pixels)
    if space not in ("YCbCr", "Gray") or _orientation_of(data) != 1:
        return None
    shrink = {} if at_least is None else _scaled(width, height, at_least)
    try:
        decoded: UInt8[np.ndarray, "height width 3"] = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, **shrink
        )
        return decoded
    except ValueError:
        return None


def _scaled(width: int, height: int, at_least: int) -> dict[str, int]:
    """Return the smallest size that libjpeg may decode to."""
    share = at_least / min(width, height)
    if share >= 1:
        return {}
    return {"min_height": round(height * share), "min_width": round(width * share)}


def _orientation_of(data: bytes) -> int:
    if b"Exif\x00\x00" not in data[: 65_536 * 2]:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return int(picture.getexif().get(_ORIENTATION_TAG, 1) or 1)
    except Exception:
        return 0  # Pillow decides, and says what is wrong


def _read_with_pillow(data: bytes, max_pixels: int) -> UInt8[np.ndarray, "height width 3"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _opened(data, max_pixels) as picture:
                return _to_rgb(picture, max_pixels)
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError(
                "unsupported_format", f"not a picture in one of {', '.join(_FORMATS)}"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError("too_large", f"{error}; {_RAISE}") from error
        except Exception as error:
            raise _decoding_error(error) from error


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header; a limit above Pillow's own takes its place for that moment."""
    if max_pixels <= MAX_PIXELS:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    with _PILLOW_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decoding_error(error: Exception) -> ImageError:
    text = str(error)
    cut = "truncated" in text.lower() or "premature" in text.lower() or isinstance(error, EOFError)
    return ImageError("truncated" if cut else "corrupt", f"the picture cannot be decoded: {text}")


def _to_rgb(picture: Image.Image, max_pixels: int) -> UInt8[np.ndarray, "height width 3"]:
    _require_size(picture.width, picture.height, max_pixels)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_array(_to_8_bit(np.asarray(picture)))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def _to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Scale 16-bit pixels by 1/257, and 32-bit ones from their own range if it is wider."""
    pixels = np.nan_to_num(pixels.astype(np.float32))
    top = float(pixels.max(initial=0.0))
    limit = 255.0 if top <= 255.0 else 65_535.0 if top <= 65_535.0 else top
    return np.clip(pixels * (255.0 / limit) + 0.5, 0, 255).astype(np.uint8)


def _from_array(pixels: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
        raise ImageError(
            "corrupt", f"an array of {pixels.dtype} {pixels.shape} is no picture; give uint8 RGB"
        )
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] == 4:
        return _to_rgb(Image.fromarray(pixels), pixels.size)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] != 3:
        raise ImageError("corrupt", f"a picture has 1, 3 or 4 channels, not {pixels.shape[2]}")
    return pixels


def _require_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            "too_large",
            f"{width} x {height} pixels exceed the limit of {max_pixels}; {_RAISE}",
        )


def _affine(
    preprocessing: Preprocessing,
) -> tuple[Float32[np.ndarray, "3 1 1"], Float32[np.ndarray, "3 1 1"]]:
    """Return a and b of pixels * a - b, which is (pixels / 255 - mean) / std."""
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    scale, shift = 1.0 / (255.0 * std), mean / std
    return scale.astype(np.float32)[:, None, None], shift.astype(np.float32)[:, None, None]
