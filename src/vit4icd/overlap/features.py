"""A picture's local features in few bytes: where they are, what they look like, a thumbnail."""

import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

from vit4icd.errors import FormatError
from vit4icd.images import MAX_PIXELS, Source, read_image
from vit4icd.overlap.codes import N_BYTES, decode, encode

__all__ = ["LocalFeatures", "features_of", "local_features"]

_FORMAT = 2  # 1 held whole SIFT descriptors and a thumbnail of plain pixels
_SIZE = 400  # pixels of the long side at which features are taken
_N_FOUND = 1_500  # features looked for, of which ...
_N_KEPT = 800  # ... so many are kept of a query, and ...
_N_STORED = 400  # ... so many of them as bytes, of a reference
_GRID = 65_535.0  # a place is stored in these parts of the picture's width and height
_THUMBNAIL = 128  # pixels of the long side
_JPEG_QUALITY = 60  # of the thumbnail
_HEAD = 20  # bytes: five little-endian uint32
_SMALLEST = 8  # pixels of the short side at which features are taken

Picture = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalFeatures:
    """What of a picture proves that another one is a copy of it; the most telling features first.

    A feature takes 35 bytes, the thumbnail some 2,500: stored, a picture takes about 16 kB.
    """

    width: int
    height: int
    """Of the picture itself, in pixels."""
    places: UInt16[np.ndarray, "feature 2"]
    """x and y in 65,535ths of width and height."""
    codes: UInt8[np.ndarray, "feature byte"]
    """What each feature looks like, as codes.encode gives it."""
    thumbnail: bytes
    """The picture, small, as JPEG: pixels are compared in it."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def size(self) -> Float64[np.ndarray, "2"]:
        """Width and height in working pixels."""
        size = np.array([self.width, self.height], np.float64)
        return np.asarray(size * (_SIZE / size.max()))

    @property
    def points(self) -> Float32[np.ndarray, "feature 2"]:
        """The places in working pixels."""
        return np.asarray(self.places / _GRID * self.size, np.float32)

    @property
    def vectors(self) -> Float32[np.ndarray, "feature dim"]:
        """What the features look like, as vectors of length 1."""
        return decode(self.codes)

    @property
    def pixels(self) -> Picture:
        """The thumbnail in RGB."""
        pixels = _decoded(self.thumbnail)
        assert pixels is not None, "checked at birth"
        return pixels

    def to_bytes(self) -> bytes:
        """Return the most telling 400 features and the thumbnail as bytes, for a reference.

        A query has more features than that, and finds more for it; of the two only one needs them.
        """
        places, codes = self.places[:_N_STORED].astype("<u2"), self.codes[:_N_STORED]
        head = (_FORMAT, self.width, self.height, len(places), len(self.thumbnail))
        parts = np.array(head, "<u4"), places, codes
        return b"".join(part.tobytes() for part in parts) + self.thumbnail

    @staticmethod
    def suits(data: bytes) -> bool:
        """Return whether bytes that are whole are of the format that :meth:`from_bytes` reads."""
        return _head(data)[0] == _FORMAT

    @classmethod
    def from_bytes(cls, data: bytes) -> "LocalFeatures":
        """Read what :meth:`to_bytes` gave.

        Raises:
            FormatError: cut, damaged, or written by another version.
        """
        version, width, height, n_features, n_thumbnail = _head(data)
        codes, thumbnail = _HEAD + 4 * n_features, _HEAD + (4 + N_BYTES) * n_features
        fits = version == _FORMAT and len(data) == thumbnail + n_thumbnail and width and height
        if not fits or _decoded(data[thumbnail:]) is None:
            raise FormatError(
                f"{len(data)} bytes (format {version}) are not local features as this version "
                f"writes them (format {_FORMAT}); add the picture again"
            )
        return cls(
            width=width,
            height=height,
            places=np.frombuffer(data[_HEAD:codes], "<u2").reshape(-1, 2).astype(np.uint16),
            codes=np.frombuffer(data[codes:thumbnail], np.uint8).reshape(-1, N_BYTES),
            thumbnail=data[thumbnail:],
        )


def _head(data: bytes) -> list[int]:
    numbers: list[int] = np.frombuffer(data[:_HEAD].ljust(_HEAD, b"\0"), "<u4").tolist()
    return numbers


def local_features(image: Picture) -> LocalFeatures:
    """Return the most telling local features of an RGB picture: strong ones, and large ones.

    Large features outlive what copies go through (small pasting, blur, pixels moved about), so they
    are ranked by response times diameter, which proves more copies than the response alone.

    Source: Lowe, Distinctive image features from scale-invariant keypoints, 2004.
    """
    height, width = image.shape[:2]
    gray = _resized(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), _SIZE, at_least=_SMALLEST)
    points, descriptors = _sift().detectAndCompute(gray, None)
    if not points:
        points, descriptors = (), np.empty((0, 128), np.float32)
    order = np.argsort([-point.response * point.size for point in points], kind="stable")
    order = order[:_N_KEPT].astype(np.intp)
    places = np.array([point.pt for point in points], np.float64).reshape(-1, 2)[order]
    places = (places + 0.5) / (gray.shape[1], gray.shape[0])
    return LocalFeatures(
        width=width,
        height=height,
        places=(places.clip(0, 1) * _GRID).round().astype(np.uint16),
        codes=encode(descriptors[order]),
        thumbnail=_encoded(_resized(image, _THUMBNAIL, at_least=1)),
    )


def features_of(source: Source, image: Picture, *, max_pixels: int = MAX_PIXELS) -> LocalFeatures:
    """Return the local features of a picture that may be decoded smaller than they want.

    Raises:
        ImageError: the source cannot be read.
    """
    if max(image.shape[:2]) < _SIZE:
        image = read_image(source, max_pixels=max_pixels, at_least=_SIZE)
    return local_features(image)


_of_this_thread = threading.local()


def _sift() -> Any:
    """Return this thread's detector: it keeps its pyramid, so threads must not share one."""
    if not hasattr(_of_this_thread, "sift"):
        _of_this_thread.sift = cv2.SIFT.create(
            nfeatures=_N_FOUND,
            contrastThreshold=0.01,
            edgeThreshold=15,
            enable_precise_upscale=True,
        )
    return _of_this_thread.sift


def _resized(image: np.ndarray, long_side: int, *, at_least: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    size = max(at_least, round(width * scale)), max(at_least, round(height * scale))
    filtering = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=filtering))


def _encoded(pixels: Picture) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return bytes(data.tobytes())


def _decoded(data: bytes) -> Picture | None:
    if not data:
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return None if pixels is None else np.asarray(pixels)
