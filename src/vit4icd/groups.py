"""Pairs to groups of copies; it scores no pair and looks at no picture.

All three strictnesses are one rule with one number. Pairs are taken from the best score down; two
groups (at first every picture is one) become one as soon as, of all pairs between them, at least
this share has been taken:

=========  ==========  =========================================================================
clique     every pair  every two members are a pair; nothing is chained (complete linkage)
community  half        a member may lack a link to some others, as crops of one picture do
component  one pair    whatever is connected, however long the chain (single linkage)
=========  ==========  =========================================================================

Equal scores are taken in the order of the ids. A higher threshold leaves the first pairs in the
same order, so it only ever splits groups.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64

from vit4icd.errors import DataError
from vit4icd.types import Pairs

__all__ = ["Strictness", "group_pairs"]

Strictness = Literal["clique", "community", "component"]

_SHARES: dict[Strictness, float] = {"clique": 1.0, "community": 0.5, "component": 0.0}


def group_pairs(
    ids: Sequence[str], pairs: Pairs, *, strictness: Strictness = "clique"
) -> list[list[str]]:
    """Return the groups of two or more, members and groups in the order of ``ids``.

    A pair has no direction here; of (a, b) and (b, a) the better score counts. No id is in two
    groups, and no two of the groups could be joined by the rule.

    Raises:
        DataError: an id that repeats, a pair of an unknown id, or of an id with itself.

    Example:
        >>> import numpy as np
        >>> pairs = Pairs(queries=["a", "b"], references=["b", "c"], scores=np.array([0.9, 0.8]))
        >>> group_pairs(["a", "b", "c"], pairs)
        [['a', 'b']]
        >>> group_pairs(["a", "b", "c"], pairs, strictness="community")
        [['a', 'b', 'c']]
    """
    forest = _Forest(len(ids), _SHARES[strictness])
    for left, right in _ranked(ids, pairs).tolist():
        forest.link(left, right)
    groups = [sorted(members) for members in forest.members.values() if len(members) > 1]
    return [[ids[row] for row in group] for group in sorted(groups)]


class _Forest:
    """Groups under the number of one of their members, and how many pairs link each two."""

    def __init__(self, n_rows: int, share: float) -> None:
        self.share = share
        self.root = list(range(n_rows))
        self.members: dict[int, list[int]] = {row: [row] for row in range(n_rows)}
        self.n_links: dict[int, dict[int, int]] = {}

    def link(self, left: int, right: int) -> None:
        """Take a pair; join its two groups if enough of the pairs between them are taken."""
        left, right = self.root[left], self.root[right]
        if left == right:
            return
        n_links = self.n_links.setdefault(left, {}).get(right, 0) + 1
        if n_links >= self.share * len(self.members[left]) * len(self.members[right]):
            self._join(left, right)
            return
        self.n_links[left][right] = n_links
        self.n_links.setdefault(right, {})[left] = n_links

    def _join(self, kept: int, gone: int) -> None:
        """Join two groups under the larger one, so that few members and links are moved."""
        if self._size(gone) > self._size(kept):
            kept, gone = gone, kept
        for row in self.members[gone]:
            self.root[row] = kept
        self.members[kept] += self.members.pop(gone)
        links = self.n_links.setdefault(kept, {})
        links.pop(gone, None)
        for other, n_links in self.n_links.pop(gone, {}).items():
            if other == kept:
                continue
            self.n_links[other].pop(gone)
            links[other] = self.n_links[other][kept] = links.get(other, 0) + n_links

    def _size(self, group: int) -> int:
        return len(self.members[group]) + len(self.n_links.get(group, {}))


def _ranked(ids: Sequence[str], pairs: Pairs) -> Int64[np.ndarray, "pair 2"]:
    """Return each unordered pair once, as rows of ids, best first."""
    row = {name: number for number, name in enumerate(ids)}
    if len(row) != len(ids):
        raise DataError("ids must be unique, but one repeats")
    try:
        columns = [[row[name] for name in side] for side in (pairs.queries, pairs.references)]
    except KeyError as error:
        raise DataError(f"a pair names {error.args[0]!r}, which is not among the ids") from None
    rows = np.sort(np.array(columns, np.int64).T.reshape(-1, 2), axis=1)
    itself = np.flatnonzero(rows[:, 0] == rows[:, 1])
    if len(itself):
        raise DataError(f"{ids[int(rows[itself[0], 0])]!r} is paired with itself; leave that out")
    keys = rows[:, 0] * len(ids) + rows[:, 1]
    order = np.lexsort((keys, -pairs.scores))
    first = np.unique(keys[order], return_index=True)[1]
    ranked: Int64[np.ndarray, "pair 2"] = rows[order[np.sort(first)]]
    return ranked
