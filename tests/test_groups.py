"""Groups of pairs against the obvious way, and what each strictness promises."""

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit4icd.errors import DataError
from vit4icd.groups import Strictness, _Forest, group_pairs
from vit4icd.types import Pairs

IDS = [f"i{row}" for row in range(9)]
STRICTNESSES: list[Strictness] = ["clique", "community", "component"]
SHARES = {"clique": 1.0, "community": 0.5, "component": 0.0}

edges = st.dictionaries(
    st.sampled_from(list(itertools.combinations(range(len(IDS)), 2))),
    st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]),  # few scores: many ties
)
strictnesses = st.sampled_from(STRICTNESSES)
Edges = dict[tuple[int, int], float]


def _pairs(scored: Edges) -> Pairs:
    return Pairs(
        queries=[IDS[left] for left, _ in scored],
        references=[IDS[right] for _, right in scored],
        scores=np.array(list(scored.values()), np.float64),
    )


def _obvious(scored: Edges, share: float) -> list[list[str]]:
    """Take the pairs one by one; after each, count the links of every two groups anew."""
    groups: list[set[int]] = [{row} for row in range(len(IDS))]
    taken: set[tuple[int, int]] = set()
    for pair in sorted(scored, key=lambda pair: (-scored[pair], pair)):
        taken.add(pair)
        for one, two in itertools.combinations(groups, 2):
            n_links = sum((min(a, b), max(a, b)) in taken for a in one for b in two)
            if n_links and n_links >= share * len(one) * len(two):
                groups = [group for group in groups if group not in (one, two)] + [one | two]
                break
    return sorted([IDS[row] for row in sorted(group)] for group in groups if len(group) > 1)


@settings(max_examples=300)
@given(scored=edges, strictness=strictnesses)
def test_equals_counting_every_link(scored: Edges, strictness: Strictness) -> None:
    found = group_pairs(IDS, _pairs(scored), strictness=strictness)
    assert found == _obvious(scored, SHARES[strictness])


@given(scored=edges)
def test_never_chains_in_a_clique(scored: Edges) -> None:
    paired = {frozenset((IDS[left], IDS[right])) for left, right in scored}
    for group in group_pairs(IDS, _pairs(scored)):
        assert all(frozenset(two) in paired for two in itertools.combinations(group, 2))


@given(scored=edges)
def test_finds_what_is_connected_as_components(scored: Edges) -> None:
    label = list(range(len(IDS)))
    for _ in IDS:
        for left, right in scored:
            label[left] = label[right] = min(label[left], label[right])
    members = [[IDS[row] for row in range(len(IDS)) if label[row] == top] for top in set(label)]
    expected = sorted(group for group in members if len(group) > 1)
    assert group_pairs(IDS, _pairs(scored), strictness="component") == expected


@given(scored=edges, strictness=strictnesses, threshold=st.sampled_from([0.2, 0.3, 0.4]))
def test_only_splits_groups_when_the_threshold_rises(
    scored: Edges, strictness: Strictness, threshold: float
) -> None:
    wide = group_pairs(IDS, _pairs(scored), strictness=strictness)
    best = {pair: score for pair, score in scored.items() if score >= threshold}
    for group in group_pairs(IDS, _pairs(best), strictness=strictness):
        assert any(set(group) <= set(larger) for larger in wide)


@given(scored=edges, strictness=strictnesses, seed=st.integers(0, 1000))
def test_does_not_depend_on_the_order_or_direction_of_pairs(
    scored: Edges, strictness: Strictness, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shuffled = {
        (pair if rng.random() < 0.5 else pair[::-1]): scored[pair]
        for pair in [list(scored)[row] for row in rng.permutation(len(scored))]
    }
    found = group_pairs(IDS, _pairs(shuffled), strictness=strictness)
    assert found == group_pairs(IDS, _pairs(scored), strictness=strictness)


@given(scored=edges)
def test_is_strictest_as_clique_and_loosest_as_component(scored: Edges) -> None:
    whole = group_pairs(IDS, _pairs(scored), strictness="component")
    for strictness in STRICTNESSES[:2]:
        for group in group_pairs(IDS, _pairs(scored), strictness=strictness):
            assert any(set(group) <= set(larger) for larger in whole)


def test_splits_a_chain_where_it_is_weakest() -> None:
    chain = {(0, 1): 0.5, (1, 2): 0.4, (2, 3): 0.5}
    assert group_pairs(IDS, _pairs(chain)) == [["i0", "i1"], ["i2", "i3"]]
    assert len(group_pairs(IDS, _pairs(chain), strictness="component")) == 1


def test_takes_the_better_score_of_both_directions() -> None:
    scored = {(0, 1): 0.2, (1, 0): 0.9, (1, 2): 0.5}
    assert group_pairs(IDS, _pairs(scored)) == [["i0", "i1"]]


def test_gives_nothing_for_no_pairs() -> None:
    assert group_pairs([], _pairs({})) == []
    assert group_pairs(IDS, _pairs({})) == []


def test_refuses_pairs_that_make_no_sense() -> None:
    with pytest.raises(DataError, match="'i3'"):
        group_pairs(["i0"], _pairs({(0, 3): 0.5}))
    with pytest.raises(DataError, match="itself"):
        group_pairs(IDS, _pairs({(2, 2): 0.5}))
    with pytest.raises(DataError, match="repeats"):
        group_pairs(["i0", "i0"], _pairs({}))


def test_moves_the_smaller_of_two_groups() -> None:
    class Counted(list[int]):
        n_moves = 0

        def __setitem__(self, *item: Any) -> None:
            self.n_moves += 1
            super().__setitem__(*item)

    forest = _Forest(100, SHARES["component"])
    forest.root = roots = Counted(forest.root)
    for row in reversed(range(99)):  # each joins the group of all after it
        forest.link(row, row + 1)
    assert len(set(roots)) == 1
    assert roots.n_moves == 99


def test_groups_a_hundred_thousand_pairs_in_seconds() -> None:
    n_images, size = 20_000, 11
    rows = np.arange(n_images // size * size).reshape(-1, size)
    left, right = np.triu_indices(size, 1)
    ids = [str(row) for row in range(n_images)]
    pairs = Pairs(
        queries=[ids[row] for row in rows[:, left].ravel().tolist()],
        references=[ids[row] for row in rows[:, right].ravel().tolist()],
        scores=np.random.default_rng(0).random(len(rows) * len(left)),
    )
    started = time.process_time()
    groups = group_pairs(ids, pairs)
    assert {len(group) for group in groups} == {size}
    assert time.process_time() - started < 20
