"""Columns are checked once, at birth."""

import numpy as np
import pytest

from vit4icd.errors import DataError, MismatchError
from vit4icd.types import DescriptorSet, Pairs, Truth


def test_refuses_descriptors_that_repeat_or_are_not_finite() -> None:
    vectors = np.zeros((2, 3), np.float32)
    assert DescriptorSet(ids=["a", "b"], vectors=vectors).dim == 3
    with pytest.raises(DataError, match="'a' stands there twice"):
        DescriptorSet(ids=["a", "a"], vectors=vectors)
    with pytest.raises(MismatchError, match="1 ids for 2 vectors"):
        DescriptorSet(ids=["a"], vectors=vectors)
    vectors[1, 2] = np.nan
    with pytest.raises(DataError, match=r"'b' \(row 1\)"):
        DescriptorSet(ids=["a", "b"], vectors=vectors)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.zeros((2, 3)), r"not float64 \[2, 3\]"),
        (np.zeros((2, 3), np.float16), r"not float16 \[2, 3\]"),
        (np.zeros(2, np.float32), r"not float32 \[2\]"),
    ],
)
def test_refuses_descriptors_of_another_type_or_shape(vectors: np.ndarray, said: str) -> None:
    made = object.__new__(DescriptorSet)  # the tests' type checker would refuse it sooner
    for name, value in {"ids": ["a", "b"], "vectors": vectors, "fingerprint": None}.items():
        object.__setattr__(made, name, value)
    with pytest.raises(DataError, match=said):
        made.__post_init__()


def test_refuses_pairs_that_repeat_or_are_not_finite() -> None:
    with pytest.raises(DataError, match="duplicates"):
        Pairs(queries=["a", "a"], references=["x", "x"], scores=np.array([1.0, 2.0]))
    with pytest.raises(DataError, match="pair 1 is inf"):
        Pairs(queries=["a", "b"], references=["x", "x"], scores=np.array([1.0, np.inf]))
    with pytest.raises(MismatchError, match="2 queries"):
        Pairs(queries=["a", "b"], references=["x"], scores=np.array([1.0]))


def test_lets_true_pairs_repeat() -> None:
    assert len(Truth(queries=["a", "a"], references=["x", "x"])) == 2
    with pytest.raises(MismatchError, match="1 queries for 2 references"):
        Truth(queries=["a"], references=["x", "y"])


def test_picks_rows_in_the_order_asked() -> None:
    images = DescriptorSet(ids=["a", "b", "c"], vectors=np.eye(3, dtype=np.float32))
    some = images.only([2, 0])
    assert (list(some.ids), some.vectors.tolist()) == (["c", "a"], [[0, 0, 1], [1, 0, 0]])
    assert (len(images.only([])), images.only([]).dim) == (0, 3)
