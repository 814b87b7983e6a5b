"""Which copy is kept: the first difference that counts decides, and says so."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit4icd.dedup.best import Candidate, best_copy

TAKEN = "2024-05-31T12:00:00"
PLAIN = Candidate(
    path="b.jpg", width=80, height=60, n_bytes=900, taken=None, modified_ns=2_000_000_000
)


@pytest.mark.parametrize(
    ("better", "reason"),
    [
        (replace(PLAIN, width=800), "most pixels: 800 × 60, the next has 80 × 60"),
        (replace(PLAIN, n_bytes=1200), "most bytes: 1,200, the next has 900"),
        (
            replace(PLAIN, taken=TAKEN),
            f"says when it was taken: {TAKEN}",
        ),
        (replace(PLAIN, modified_ns=0), "oldest file: 1970-01-01 00:00 UTC"),
        (replace(PLAIN, path="b.gi"), "shortest path"),
        (replace(PLAIN, path="a.jpg"), "first by name"),
    ],
)
def test_says_why_a_copy_is_better(better: Candidate, reason: str) -> None:
    assert best_copy([PLAIN, better]) == (1, reason)
    assert best_copy([better, PLAIN]) == (0, reason)


def test_asks_the_first_question_first() -> None:
    large = replace(PLAIN, width=81, n_bytes=1, path="a-long-path.jpg", modified_ns=9)
    original = replace(PLAIN, taken=TAKEN)
    assert best_copy([replace(PLAIN, n_bytes=10**6, modified_ns=0), original])[0] == 1
    rich = replace(PLAIN, n_bytes=10**6, taken=TAKEN, modified_ns=0, path="a")
    assert best_copy([rich, large])[0] == 1


copies = st.lists(
    st.builds(
        Candidate,
        path=st.text(min_size=1, max_size=3),
        width=st.integers(0, 3),
        height=st.integers(0, 3),
        n_bytes=st.integers(1, 3),
        taken=st.sampled_from([None, TAKEN]),
        modified_ns=st.integers(0, 2),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda copy: copy.path,
)


@given(copies, st.randoms(use_true_random=False))
def test_keeps_the_same_copy_in_any_order(found: list[Candidate], order_rng: object) -> None:
    kept = found[best_copy(found)[0]]
    shuffled = sorted(found, key=lambda copy: order_rng.random())  # type: ignore[attr-defined]
    assert shuffled[best_copy(shuffled)[0]] == kept
    assert kept.width * kept.height == max(copy.width * copy.height for copy in found)
