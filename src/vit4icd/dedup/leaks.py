"""Test pictures that are copies of training pictures; it touches no file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vit4icd.dedup.cache import Cache, Files
from vit4icd.dedup.files import Inventory, no_picture
from vit4icd.dedup.find import Progress
from vit4icd.dedup.links import Finder
from vit4icd.dedup.result import same_bytes
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import DataError
from vit4icd.images import MAX_PIXELS
from vit4icd.matches import Match, rank_key
from vit4icd.stream import Skipped
from vit4icd.thresholds import Threshold

__all__ = ["Leaks", "find_leaks"]

_NEAREST = 5  # training pictures that are named for one test picture, at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaks:
    """Pairs of a test picture (query) and a training picture (reference) that are copies."""

    matches: tuple[Match, ...]
    """In the order of the test pictures, the surest first."""
    n_train: int
    n_test: int
    """Files that were read; the names of a hard-linked file count once."""
    n_in_both: int
    """Files that are reached from both sides, as where the test folder lies in the training folder:
    they are test pictures alone."""
    n_symlinks: int
    skipped: tuple[Skipped, ...]
    fingerprint: str
    threshold: float
    """The score from which on a pair was looked at."""
    verified: bool
    is_cut: bool
    """Whether there were more pairs than could be judged."""

    @property
    def n_leaked(self) -> int:
        """Test pictures that are copies of training pictures."""
        return len({match.query for match in self.matches})

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return {
            "format_version": 1,
            "fingerprint": self.fingerprint,
            "threshold": self.threshold,
            "verified": self.verified,
            "train_files": self.n_train,
            "test_files": self.n_test,
            "files_in_both": self.n_in_both,
            "symbolic_links_passed_over": self.n_symlinks,
            "more_pairs_than_judged": self.is_cut,
            "leaked": self.n_leaked,
            "matches": [match.to_json() for match in self.matches],
            "skipped": [item.to_json() for item in self.skipped],
        }


def find_leaks(
    train: Sequence[Path],
    test: Sequence[Path],
    cache_folder: Path,
    describer: OnnxDescriber,
    *,
    threshold: Threshold = "auto",
    verify: bool = False,
    max_pixels: int = MAX_PIXELS,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Leaks:
    """Find the test pictures that are copies of training pictures, with up to five of these each.

    Files of the same bytes are; others when their score, normalised from the test picture's side,
    reaches the threshold, and with ``verify`` when a proof is found or their probability does
    without. What was learnt of the pictures stays in ``cache_folder``.

    Raises:
        DataError: an input does not exist, or there is no picture in one that can be read.
        ConfigError: a threshold that means nothing, or not with this model.
    """
    told = progress or (lambda *_: None)
    cache = Cache(cache_folder)
    training, testing = (
        cache.inventory(
            folders, n_workers=n_threads, progress=lambda *counts: told("reading", *counts)
        )
        for folders in (train, test)
    )
    training.require_pictures(train)
    testing.require_pictures(test)
    n_found = len(training.files)
    if _is_nested(train, test):
        training = _without(training, testing)
        if not training.files:
            raise DataError("every training picture is a test picture, by its name: none is left")
    known, asked = training.by_content(), testing.by_content()
    contents = {name: [*asked.get(name, []), *known.get(name, [])] for name in (*known, *asked)}
    descriptors, unreadable = cache.descriptors(
        contents,
        describer,
        max_pixels=max_pixels,
        n_workers=n_threads,
        progress=lambda state: told("describing", state.n_done, state.n_images, state.n_skipped),
    )
    finder = Finder(
        describer=describer,
        cache=cache,
        contents=contents,
        threshold=threshold,
        verify=verify,
        max_pixels=max_pixels,
        n_threads=n_threads,
        progress=lambda what, done, n: told(what, done, n, len(unreadable)),
    )
    new = [row for row, name in enumerate(descriptors.ids) if name not in known]
    old = [row for row, name in enumerate(descriptors.ids) if name in known]
    for side, folders in ((known, train), (asked, test)):
        if side and side.keys().isdisjoint((*descriptors.ids, *(known.keys() & asked.keys()))):
            raise no_picture(folders, unreadable)
    links = finder.between(descriptors.only(new), descriptors.only(old), k=_NEAREST)
    return Leaks(
        matches=tuple(_named(asked, known, links.matches)),
        n_train=len(training.files),
        n_test=len(testing.files),
        n_in_both=n_found - len(training.files),
        n_symlinks=training.n_symlinks + testing.n_symlinks,
        skipped=(*training.skipped, *testing.skipped, *unreadable, *links.skipped),
        fingerprint=describer.fingerprint,
        threshold=links.threshold,
        verified=verify,
        is_cut=links.is_cut,
    )


def _is_nested(train: Sequence[Path], test: Sequence[Path]) -> bool:
    """Return whether one side may be reached from the other."""
    sides = [{path.resolve() for path in side} for side in (train, test)]
    return any(
        one == other or one in other.parents or other in one.parents
        for one in sides[0]
        for other in sides[1]
    )


def _without(training: Inventory, testing: Inventory) -> Inventory:
    """Return the training files without what is reached, by the same name, as a test file."""
    taken = {os.path.realpath(name) for file in testing.files for name in file.names}
    taken |= {os.path.realpath(item.name) for item in testing.skipped}
    files = []
    for file in training.files:
        names = [name for name in file.names if os.path.realpath(name) not in taken]
        if names:
            files.append(replace(file, path=names[0], other_names=tuple(names[1:])))
    skipped = (item for item in training.skipped if os.path.realpath(item.name) not in taken)
    return replace(training, files=tuple(files), skipped=tuple(skipped))


def _named(
    asked: Mapping[str, Files], known: Mapping[str, Files], matches: Sequence[Match]
) -> list[Match]:
    """Return the matches of every test file, under the files' own names."""
    by_query: dict[str, list[Match]] = {}
    for match in matches:
        by_query.setdefault(match.query, []).append(match)
    named = []
    for content, files in asked.items():
        for file in files:
            if content in known:
                named.append(same_bytes(file.path, known[content][0].path))
            for match in sorted(by_query.get(content, []), key=rank_key):
                reference = known[match.reference][0].path
                named.append(replace(match, query=file.path, reference=reference))
    return named
