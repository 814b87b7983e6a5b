"""SIFT descriptors in 31 bytes each, in a form that a mirror only changes the signs of."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

__all__ = ["N_BYTES", "decode", "encode", "mirrored"]

_STEP = 0.05  # of a number that is kept, in 4 bits: -0.4 to 0.35
_LOW, _HIGH = -8, 7

Vectors = Float32[np.ndarray, "feature dim"]


def encode(descriptors: Float32[np.ndarray, "feature 128"]) -> UInt8[np.ndarray, "feature byte"]:
    """Return SIFT descriptors as codes: RootSIFT, transformed, its low frequencies in 4 bits each.

    A descriptor is 4 rows x 4 columns x 8 directions of gradients. Cosines along rows and columns
    and the Fourier series over directions gather what it says in few numbers, as the principal
    components of descriptors do, without being learned.

    Source: Arandjelović and Zisserman, Three things everyone should know to improve object
    retrieval, 2012 (RootSIFT).
    """
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    numbers = np.sqrt(descriptors / sums) @ _BASIS.T
    levels = (numbers / _STEP).round().clip(_LOW, _HIGH).astype(np.int8) - _LOW
    pairs = levels.astype(np.uint8).reshape(-1, N_BYTES, 2)
    return np.asarray(pairs[..., 0] << 4 | pairs[..., 1])


def decode(codes: UInt8[np.ndarray, "feature byte"]) -> Vectors:
    """Return codes as vectors of length 1, whose inner products say how alike features look."""
    levels = np.stack([codes >> 4, codes & 15], axis=-1).reshape(-1, 2 * N_BYTES)
    numbers = levels.astype(np.float32) + _LOW
    lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
    return np.asarray(numbers / np.maximum(lengths, 1e-6), np.float32)


def mirrored(vectors: Vectors) -> Vectors:
    """Return the vectors that the same features have in the mirrored picture.

    Along the feature's own direction, a mirror exchanges rows and turns angles the other way: odd
    cosines along rows and sines over directions change their sign.
    """
    return np.where(_IS_ODD, -vectors, vectors)


def _cosines(n: int) -> Float64[np.ndarray, "frequency place"]:
    """Return the orthonormal cosine transform (DCT-II)."""
    frequencies, places = np.indices((n, n))
    waves = np.cos(np.pi * frequencies * (places + 0.5) / n) * np.sqrt(2 / n)
    waves[0] /= np.sqrt(2)
    return np.asarray(waves)


def _circle(n: int) -> Float64[np.ndarray, "wave direction"]:
    """Return the orthonormal Fourier series: 1, cos, sin, cos of twice the angle, ..."""
    angles = 2 * np.pi * np.arange(n) / n
    waves = [np.full(n, np.sqrt(1 / n))]
    for frequency in range(1, n // 2):
        waves += [np.cos(frequency * angles), np.sin(frequency * angles)]
        waves[-2:] = [wave * np.sqrt(2 / n) for wave in waves[-2:]]
    return np.stack([*waves, np.cos(n // 2 * angles) * np.sqrt(1 / n)])


def _basis() -> tuple[Float32[np.ndarray, "dim 128"], Bool[np.ndarray, " dim"]]:
    """Return the low frequencies but the constant one, and which of them a mirror negates."""
    waves = np.einsum("ai,bj,ck->abcijk", _cosines(4), _cosines(4), _circle(8))
    row, column, wave = np.indices((4, 4, 8))
    direction = (wave + 1) // 2
    is_low = (row <= 2) & (row + column <= 3) & (direction <= 3) & (row + column + wave > 0)
    is_sine = (wave % 2 == 0) & (wave > 0)
    return waves.reshape(128, 128)[is_low.ravel()].astype(np.float32), ((row % 2 == 1) ^ is_sine)[
        is_low
    ]


_BASIS, _IS_ODD = _basis()
N_BYTES = len(_BASIS) // 2
"""Bytes of a feature's code."""
