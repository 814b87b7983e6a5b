"""Groups of copies among files, with the copy of each that is worth keeping; it touches no file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vit4icd.dedup.best import Candidate, best_copy
from vit4icd.dedup.cache import Cache, Files, Look
from vit4icd.dedup.files import PictureFile, no_picture
from vit4icd.dedup.links import Finder, Links
from vit4icd.dedup.result import Duplicates, Group, Member, same_bytes
from vit4icd.describer import OnnxDescriber
from vit4icd.groups import Strictness, group_pairs
from vit4icd.headers import Header
from vit4icd.images import MAX_PIXELS
from vit4icd.matches import Match, probability_text, what_differs
from vit4icd.thresholds import Threshold
from vit4icd.types import DescriptorSet, Pairs

__all__ = ["Progress", "find_duplicates"]

_LEAST_SHARED = 0.5  # share of a spare file, and of its pixels, that the kept one must show

Progress = Callable[[str, int, int, int], None]
"""Told what is being done, how much of it, of how much, and how many files were skipped."""


def find_duplicates(
    inputs: Sequence[Path],
    cache_folder: Path,
    describer: OnnxDescriber,
    *,
    references: Sequence[Path] = (),
    strictness: Strictness = "clique",
    threshold: Threshold = "auto",
    verify: bool = False,
    max_pixels: int = MAX_PIXELS,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """Find the groups of copies in folders, and the best copy of each.

    Files of the same bytes are copies whatever they hold. Others are when their score reaches the
    threshold, and with ``verify`` when a proof is found or their probability does without. What is
    in ``references`` is only compared with: it is kept, and groups of nothing else are left out.
    What was learnt of the pictures stays in ``cache_folder``; another threshold or strictness
    describes nothing again.

    Raises:
        DataError: an input does not exist, or there is no picture that can be read.
        ConfigError: a threshold that means nothing, or not with this model.
    """
    progress = progress or (lambda *_: None)
    cache = Cache(cache_folder)
    inventory = cache.inventory(
        inputs,
        references=references,
        n_workers=n_threads,
        progress=lambda done, n, skipped: progress("reading", done, n, skipped),
    )
    for folders in filter(None, (inputs, references)):
        inventory.require_pictures(folders)
    contents = inventory.by_content()
    n_unread = len(inventory.skipped)
    descriptors, unreadable = cache.descriptors(
        contents,
        describer,
        max_pixels=max_pixels,
        n_workers=n_threads,
        progress=lambda report: progress(
            "describing", report.n_done, report.n_images, n_unread + report.n_skipped
        ),
    )
    n_skipped = n_unread + len(unreadable)
    finder = Finder(
        describer=describer,
        cache=cache,
        contents=contents,
        threshold=threshold,
        verify=verify,
        max_pixels=max_pixels,
        n_threads=n_threads,
        progress=lambda what, done, n: progress(what, done, n, n_skipped),
    )
    links = finder.within(*_apart(descriptors, contents))
    grouped = _grouped(contents, links, strictness)
    if not grouped and not len(descriptors):
        raise no_picture(inputs, unreadable)
    shown = {name for names in grouped for name in names} - links.looks.keys()
    looks = {
        **links.looks,
        **cache.looks(
            {name: contents[name] for name in shown}, max_pixels=max_pixels, n_workers=n_threads
        ),
    }
    matches = {frozenset((match.query, match.reference)): match for match in links.matches}
    grouping = _Grouping(contents, looks, matches)
    return Duplicates(
        inputs=(*map(str, inputs), *map(str, references)),
        groups=tuple(grouping.group(names) for names in grouped),
        n_files=len(inventory.files),
        n_contents=len(contents),
        n_symlinks=inventory.n_symlinks,
        skipped=(*inventory.skipped, *unreadable, *links.skipped),
        fingerprint=describer.fingerprint,
        strictness=strictness,
        threshold=links.threshold,
        verified=verify,
        is_cut=links.is_cut,
    )


def _apart(
    descriptors: DescriptorSet, contents: Mapping[str, Files]
) -> tuple[DescriptorSet, DescriptorSet]:
    """Return candidates and references; a content that is among the references is one."""
    rows: tuple[list[int], list[int]] = [], []
    for row, name in enumerate(descriptors.ids):
        rows[any(file.is_reference for file in contents[name])].append(row)
    if not rows[True]:
        return descriptors, descriptors.only([])
    return descriptors.only(rows[False]), descriptors.only(rows[True])


def _grouped(
    contents: Mapping[str, Files], links: Links, strictness: Strictness
) -> list[list[str]]:
    """Return groups of contents that have a file to spare; proven pairs are taken before others."""
    names = list(contents)
    matches = links.matches
    pairs = Pairs(
        queries=[match.query for match in matches],
        references=[match.reference for match in matches],
        scores=np.array(
            [match.score + (match.overlap is not None) for match in matches], np.float64
        ),
    )
    groups = group_pairs(names, pairs, strictness=strictness)
    linked = {name for group in groups for name in group}
    groups += [[name] for name in names if len(contents[name]) > 1 and name not in linked]
    place = {name: row for row, name in enumerate(names)}
    groups = [
        group
        for group in groups
        if not all(file.is_reference for name in group for file in contents[name])
    ]
    return sorted(groups, key=lambda group: place[group[0]])


@dataclass(frozen=True, slots=True)
class _Grouping:
    """What the members of groups are looked up in."""

    contents: Mapping[str, Files]
    looks: Mapping[str, Look]
    matches: Mapping[frozenset[str], Match]

    def group(self, names: Sequence[str]) -> Group:
        """Return the group of these contents, with what is kept of it and why."""
        files = [file for name in names for file in self.contents[name]]
        kept = [file for file in files if file.is_reference]
        reason = "reference"
        if not kept:
            best, reason = best_copy([self._candidate(file) for file in files])
            kept = [files[best]]
        paths = {file.path for file in kept}
        spare = [file for file in files if file.path not in paths]
        return Group(
            members=(
                *(self._member(file, True, reason, None) for file in kept),
                *(self._spare(file, kept) for file in spare),
            )
        )

    def _spare(self, file: PictureFile, kept: Sequence[PictureFile]) -> Member:
        matches = [
            (match, other) for other in kept if (match := self._match(file, other)) is not None
        ]
        if not matches:
            member = self._member(file, False, "linked through others of its group", None)
            return replace(member, caution="it is no pair of the kept one")
        match, other = max(matches, key=lambda pair: (pair[0].overlap is not None, pair[0].score))
        member = self._member(file, False, _relation(match, file.path), match)
        caution = _caution(match, file.path, self._header(file), self._header(other))
        return replace(member, caution=caution)

    def _match(self, file: PictureFile, kept: PictureFile) -> Match | None:
        """Return what is known of two files, in the direction in which it was found."""
        if file.sha256 == kept.sha256:
            return same_bytes(file.path, kept.path)
        match = self.matches.get(frozenset((file.sha256, kept.sha256)))
        if match is None:
            return None
        query, reference = (file, kept) if match.query == file.sha256 else (kept, file)
        return replace(match, query=query.path, reference=reference.path)

    def _member(self, file: PictureFile, is_kept: bool, reason: str, match: Match | None) -> Member:
        return Member(
            file=file, header=self._header(file), is_kept=is_kept, reason=reason, match=match
        )

    def _header(self, file: PictureFile) -> Header | None:
        look = self.looks.get(file.sha256)
        return None if look is None else look.header

    def _candidate(self, file: PictureFile) -> Candidate:
        header = self._header(file)
        return Candidate(
            path=file.path,
            width=0 if header is None else header.width,
            height=0 if header is None else header.height,
            n_bytes=file.stamp.size,
            taken=None if header is None else header.taken,
            modified_ns=file.stamp.modified_ns,
        )


def _relation(match: Match, path: str) -> str:
    """Say in a few words what a spare file is to the kept one."""
    shares = _shares(match, path)
    if shares is not None:
        return f"proven: {shares[0]:.0%} of it lies in {shares[1]:.0%} of the kept one"
    if match.verdict == "exact":
        return "same bytes"
    if match.probability is None:
        return f"{match.verdict}, score {match.score:.2f}"
    return f"{match.verdict}, p {probability_text(match.probability)}"


def _shares(match: Match, path: str) -> tuple[float, float] | None:
    """Return how much of a file, and of the other, is common to both, where that is proven."""
    if match.overlap is None:
        return None
    shares = match.overlap.query_share, match.overlap.reference_share
    return shares if match.query == path else shares[::-1]


def _caution(match: Match, path: str, spare: Header | None, kept: Header | None) -> str | None:
    shares = _shares(match, path)
    if match.overlap is None or shares is None or spare is None or kept is None:
        return None
    if shares[0] < _LEAST_SHARED:
        return "most of it is not in the kept one"
    if kept.n_pixels * shares[1] < _LEAST_SHARED * spare.n_pixels * shares[0]:
        return "the kept one shows it much smaller"
    return what_differs(match.overlap)
