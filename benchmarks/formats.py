"""The same picture in other file formats: ``python -m benchmarks.formats``.

Each packaged photograph is written anew and described again; a cosine of 1 means that the format
makes no difference. Formats that lose something are compared with the pixels as they were before.
"""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.common import report
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.images import read_image
from vit4icd.preprocessing import prepare

PHOTOGRAPHS = Path("src/vit4icd/demo/photographs")
Writer = Callable[[Image.Image], bytes]

_ORIENTATION = 0x0112  # EXIF
_UNDO = {  # what makes a picture lie as a camera stored it that notes this orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(picture: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the bytes of a picture in a format."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def turned(picture: Image.Image, orientation: int, file_format: str, **options: object) -> bytes:
    """Return a picture as a turned camera stores it: its pixels turned, and EXIF that says so."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    undo = _UNDO.get(orientation)
    lying = picture if undo is None else picture.transpose(undo)
    return saved(lying, file_format, exif=exif, **options)


def in_16_bits(picture: Image.Image, suffix: str) -> bytes:
    """Return a picture with 16 bits a channel: 257 times as much of each."""
    pixels = np.asarray(picture).astype(np.uint16) * 257
    _, data = cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return bytes(data)


LOSSLESS: dict[str, Writer] = {
    "WebP, lossless": lambda picture: saved(picture, "WEBP", lossless=True),
    "TIFF": lambda picture: saved(picture, "TIFF"),
    "TIFF, LZW": lambda picture: saved(picture, "TIFF", compression="tiff_lzw"),
    "BMP": lambda picture: saved(picture, "BMP"),
    "PPM": lambda picture: saved(picture, "PPM"),
    "PNG with an opaque alpha channel": lambda picture: saved(picture.convert("RGBA"), "PNG"),
    "PNG, 16 bits": lambda picture: in_16_bits(picture, ".png"),
    "TIFF, 16 bits": lambda picture: in_16_bits(picture, ".tiff"),
    "TIFF, CMYK": lambda picture: saved(picture.convert("CMYK"), "TIFF"),
    **{
        f"{file_format}, EXIF orientation {number}": partial(
            turned, orientation=number, file_format=file_format
        )
        for file_format in ("PNG", "TIFF")
        for number in range(1, 9)
    },
    **{
        f"WebP, lossless, EXIF orientation {number}": partial(
            turned, orientation=number, file_format="WEBP", lossless=True
        )
        for number in range(1, 9)
    },
}
"""Formats that keep every pixel."""

LOSSY: dict[str, Writer] = {
    "JPEG, quality 95": lambda picture: saved(picture, "JPEG", quality=95),
    "JPEG, quality 95, progressive": lambda picture: saved(
        picture, "JPEG", quality=95, progressive=True
    ),
    "JPEG, quality 95, whole colour": lambda picture: saved(
        picture, "JPEG", quality=95, subsampling=0
    ),
    "JPEG, quality 95, CMYK": lambda picture: saved(picture.convert("CMYK"), "JPEG", quality=95),
    **{
        f"JPEG, quality 95, EXIF orientation {number}": partial(
            turned, orientation=number, file_format="JPEG", quality=95
        )
        for number in range(1, 9)
    },
    "JPEG, quality 80": lambda picture: saved(picture, "JPEG", quality=80),
    "WebP, quality 80": lambda picture: saved(picture, "WEBP", quality=80),
    "AVIF, quality 90": lambda picture: saved(picture, "AVIF", quality=90),
    "AVIF, quality 80": lambda picture: saved(picture, "AVIF", quality=80),
    "AVIF, quality 50": lambda picture: saved(picture, "AVIF", quality=50),
    "GIF, 256 colours": lambda picture: saved(picture.quantize(256), "GIF"),
}
"""Formats that do not."""


def same_pixels(picture: Image.Image) -> Iterator[tuple[str, bytes, Image.Image]]:
    """Yield pictures that a format holds in another way, and the pixels that they have."""
    palette, gray = picture.quantize(256), picture.convert("L")
    yield "PNG, palette", saved(palette, "PNG"), palette.convert("RGB")
    yield "PNG, gray", saved(gray, "PNG"), gray.convert("RGB")
    yield "PNG, gray, 16 bits", in_16_bits(gray, ".png"), gray.convert("RGB")


def cosine(describer: OnnxDescriber, data: bytes, picture: Image.Image) -> float:
    """Return how alike a file and a picture are described."""
    preprocessing = describer.preprocessing
    images = (
        read_image(source, at_least=preprocessing.at_least)
        for source in (data, saved(picture, "PNG"))
    )
    one, other = describer.describe(np.stack([prepare(image, preprocessing) for image in images]))
    return float(one @ other)


def main() -> None:
    """Print the least and the mean cosine of each format over the packaged photographs."""
    describer, found = load_describer(n_threads=1), dict[str, list[float]]()
    for path in sorted(PHOTOGRAPHS.iterdir()):
        picture = Image.open(path).convert("RGB")
        for name, write in (LOSSLESS | LOSSY).items():
            found.setdefault(name, []).append(cosine(describer, write(picture), picture))
        for name, data, pixels in same_pixels(picture):
            found.setdefault(name, []).append(cosine(describer, data, pixels))
    report(
        "formats",
        {
            f"{name}: {what}": round(float(number), 4)
            for name, cosines in found.items()
            for what, number in (("least", min(cosines)), ("mean", np.mean(cosines)))
        },
    )


if __name__ == "__main__":
    main()
