"""Short codes of descriptors, by which candidates are found fast; it scores nothing exactly.

A descriptor is rotated, after which its numbers are spread like a Gaussian whatever the model, and
each is kept as one of four levels: 2 bits, an eighth of half precision. Nothing is trained, so a
sketch made once stays right.

Source: the Lloyd-Max quantiser of a Gaussian (Max, Quantizing for minimum distortion, 1960) for the
levels; André et al., Quicker ADC, 2018, in faiss's implementation (PQ fast scan), for the search.
"""

import hashlib
from functools import lru_cache

import faiss
import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

__all__ = ["SketchIndex", "Sketches", "sketch_bytes", "sketches_of"]

_LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)  # in standard deviations
_BOUND = 0.9816  # between the inner and the outer levels
_ROWS = 16_384  # sketched at a time

Sketches = UInt8[np.ndarray, "row byte"]


def sketch_bytes(dim: int) -> int:
    """Return the bytes of a sketch: four rotated numbers in each."""
    return -(-dim // 4)


def sketches_of(vectors: Float[np.ndarray, "row dim"]) -> Sketches:
    """Return the sketches of unit vectors.

    Example:
        >>> sketches_of(np.eye(2, 8, dtype=np.float32)).shape
        (2, 2)
    """
    parts = [
        _sketched(np.asarray(vectors[start : start + _ROWS], np.float32))
        for start in range(0, len(vectors), _ROWS)
    ]
    empty = np.empty((0, sketch_bytes(vectors.shape[1])), np.uint8)
    sketches: Sketches = np.concatenate([empty, *parts])
    return sketches


class SketchIndex:
    """Sketches laid out for the search."""

    def __init__(self, sketches: Sketches) -> None:
        dim = 4 * sketches.shape[1]
        plain = faiss.IndexPQ(dim, dim // 2, 4, faiss.METRIC_INNER_PRODUCT)
        pairs = np.stack(np.meshgrid(_LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(16, 2)
        centroids = np.tile(pairs / np.sqrt(dim), (dim // 2, 1, 1))
        faiss.copy_array_to_vector(centroids.astype(np.float32).ravel(), plain.pq.centroids)
        faiss.copy_array_to_vector(np.ascontiguousarray(sketches).ravel(), plain.codes)
        plain.ntotal, plain.is_trained = len(sketches), True
        self._index = faiss.IndexPQFastScan(plain)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def nearest(
        self, queries: Float32[np.ndarray, "query dim"], k: int
    ) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
        """Return about the k largest inner products of each query, and their rows."""
        scores, rows = self._index.search(_rotated(queries), min(k, len(self)))
        return scores, rows


def _sketched(vectors: Float32[np.ndarray, "row dim"]) -> Sketches:
    rotated = _rotated(vectors)
    bound = _BOUND / np.sqrt(rotated.shape[1])
    levels = (rotated > -bound).astype(np.uint8) + (rotated > 0) + (rotated > bound)
    a, b, c, d = (levels[:, place::4] for place in range(4))
    sketches: Sketches = a << 2 | b | c << 6 | d << 4
    return sketches


def _rotated(vectors: Float32[np.ndarray, "row dim"]) -> Float32[np.ndarray, "row padded"]:
    dim = vectors.shape[1]
    rotated: Float32[np.ndarray, "row padded"] = vectors @ _rotation(4 * sketch_bytes(dim))[:dim]
    return rotated


@lru_cache(maxsize=4)
def _rotation(dim: int) -> Float32[np.ndarray, "dim dim"]:
    """Return an orthogonal matrix that mixes all dimensions, the same on every machine.

    Twice a random sign for each dimension and a discrete cosine transform.
    """
    row, column = np.arange(dim)[:, None], np.arange(dim)
    cosines = np.sqrt(2 / dim) * np.cos(np.pi * (2 * row + 1) * column / (2 * dim))
    cosines[:, 0] /= np.sqrt(2)
    first, second = (_signs(dim, turn)[:, None] * cosines for turn in range(2))
    return np.asarray(first @ second, np.float32)


def _signs(dim: int, turn: int) -> Float[np.ndarray, " dim"]:
    digests = (hashlib.sha256(b"sketch %d %d" % (turn, part)).digest() for part in range(dim))
    bits = np.unpackbits(np.frombuffer(b"".join(digests), np.uint8))[:dim]
    return np.where(bits, 1.0, -1.0)
