"""Sketches: small, the same everywhere, and good enough to find every true neighbour."""

import hashlib

import numpy as np
import pytest

from vit4icd.collection.sketches import SketchIndex, _rotation, sketch_bytes, sketches_of
from vit4icd.search import top_k


def _units(n_rows: int, dim: int, sketch_rng: np.random.Generator) -> np.ndarray:
    vectors = sketch_rng.standard_normal((n_rows, dim)).astype(np.float32)
    vectors *= 1.0 / np.arange(1, dim + 1) ** 0.5  # a few dimensions hold most, as in real ones
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("dim", [2, 8, 30, 512])
def test_rotates_without_a_change_of_angles(dim: int) -> None:
    padded = 4 * sketch_bytes(dim)
    np.testing.assert_allclose(_rotation(padded) @ _rotation(padded).T, np.eye(padded), atol=1e-5)


def test_never_changes_what_is_stored() -> None:
    """Sketches are kept on disk: another rotation or packing would silently miss neighbours."""
    vectors = (np.arange(64, dtype=np.float32).reshape(4, 16) % 7) - 3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    digest = hashlib.sha256(sketches_of(vectors).tobytes()).hexdigest()
    assert digest[:16] == "b1bcda908947f6ef"


def test_keeps_two_bits_a_number(rng: np.random.Generator) -> None:
    vectors = _units(1000, 512, rng)
    sketches = sketches_of(vectors)
    assert sketches.shape == (1000, 128)
    counts = np.bincount(np.unpackbits(sketches).reshape(-1, 2) @ [2, 1], minlength=4)
    assert counts.min() > 0.14 * counts.sum()  # 16 % in each outer level of a Gaussian
    assert sketches_of(vectors[:0]).shape == (0, 128)


def test_estimates_inner_products(rng: np.random.Generator) -> None:
    vectors, queries = _units(3000, 512, rng), _units(20, 512, rng)
    scores, rows = SketchIndex(sketches_of(vectors)).nearest(queries, 3000)
    exact = np.take_along_axis(queries @ vectors.T, rows, axis=1)
    assert np.abs(scores - exact).std() < 0.03


@pytest.mark.parametrize("dim", [30, 256, 512])
def test_finds_the_nearest_among_its_candidates(dim: int, rng: np.random.Generator) -> None:
    vectors, queries = _units(20_000, dim, rng), _units(100, dim, rng)
    _, expected = top_k(queries, vectors, 10)
    _, rows = SketchIndex(sketches_of(vectors)).nearest(queries, 400)
    found = [len(set(one) & set(of)) / 10 for one, of in zip(expected, rows, strict=True)]
    assert np.mean(found) > 0.98
