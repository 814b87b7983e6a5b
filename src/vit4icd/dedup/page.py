"""The page that shows groups of copies, and the one that shows leaks; it finds nothing."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from vit4icd import report
from vit4icd.dedup.leaks import Leaks
from vit4icd.dedup.result import Duplicates, Group, Member
from vit4icd.errors import ImageError
from vit4icd.images import read_image
from vit4icd.matches import Match, probability_text
from vit4icd.storage import name_fields
from vit4icd.stream import Skipped

__all__ = ["groups_page", "leaks_page", "shown_bytes"]

_GROUPS, _MEMBERS, _PAIRS, _SKIPPED = 200, 8, 400, 200  # shown on a page, at most
_DETAIL = 360  # pixels of the short side that a thumbnail needs


def groups_page(duplicates: Duplicates) -> str:
    """Return a page with the groups, the kept copy of each marked."""
    groups, spare = duplicates.groups[:_GROUPS], shown_bytes(duplicates.n_spare_bytes)
    parts = [
        report.figures(
            [
                ("groups of copies", f"{len(duplicates.groups):,}", duplicates.strictness),
                ("files to spare", f"{duplicates.n_spare:,}", spare),
                ("pictures", f"{duplicates.n_files:,}", _passed_over(duplicates)),
                ("pairs from score", f"{duplicates.threshold:.3f}", _how(duplicates)),
            ]
        ),
        report.paragraph(
            "Of each group the copy with a green frame is worth keeping; the others say what they "
            "are to it. Nothing was moved or deleted for this page."
        ),
        report.columns(_section(number, group) for number, group in enumerate(groups, 1)),
    ]
    if len(groups) < len(duplicates.groups):
        n_more = len(duplicates.groups) - len(groups)
        parts.append(report.paragraph(f"{n_more:,} more groups are listed in groups.json."))
    parts.extend(_skipped(duplicates.skipped))
    return report.page("Copies among your pictures", parts)


def leaks_page(leaks: Leaks) -> str:
    """Return a page with each leaked test picture beside its training picture."""
    cards = [_pair(match) for match in leaks.matches[:_PAIRS]]
    parts = [
        report.figures(
            [
                ("leaked", f"{leaks.n_leaked:,}", f"of {leaks.n_test:,} test pictures"),
                ("training pictures", f"{leaks.n_train:,}", f"{len(leaks.skipped):,} skipped"),
                ("pairs from score", f"{leaks.threshold:.3f}", _how(leaks)),
            ]
        ),
        report.paragraph("Each test picture stands on the left of the training picture it copies."),
        report.grid(cards),
    ]
    if len(cards) < len(leaks.matches):
        n_more = len(leaks.matches) - len(cards)
        parts.append(report.paragraph(f"{n_more:,} more pairs are listed in leaks.json."))
    parts.extend(_skipped(leaks.skipped))
    return report.page("Test pictures that are copies of training pictures", parts)


def shown_bytes(n_bytes: int) -> str:
    """Return a number of bytes as people say it.

    Example:
        >>> shown_bytes(999), shown_bytes(1_500), shown_bytes(2_340_000_000)
        ('999 B', '1.5 kB', '2.3 GB')
    """
    size, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _section(number: int, group: Group) -> str:
    spare = shown_bytes(group.n_spare_bytes)
    heading = f"Group {number}: {len(group.members)} files, {spare} to spare"
    cards = [_card(member) for member in group.members[:_MEMBERS]]
    body = report.grid(cards, small=True)
    if len(cards) < len(group.members):
        body += report.paragraph(f"{len(group.members) - len(cards):,} more files of this group.")
    return report.section(heading, body, is_wide=len(cards) > 2)


def _card(member: Member) -> str:
    header, file = member.header, member.file
    facts = [f"{header.width} × {header.height}"] if header else ["no readable picture"]
    facts.append(shown_bytes(file.stamp.size))
    if header and header.taken:
        facts.append(f"taken {header.taken[:10]}")
    if file.other_names:
        facts.append(f"{len(file.names)} hard links")
    lines = [member.reason, " · ".join(facts)]
    if member.caution:
        lines.insert(1, f"careful: {member.caution}")
    verdict = "keep" if member.is_kept else _verdict(member)
    return report.picture_card(
        _read(file.path),
        _shown(file.path),
        lines,
        verdict=report.badge(verdict, good=member.is_kept),
        is_marked=member.is_kept,
    )


def _verdict(member: Member) -> str:
    return "linked" if member.match is None else member.match.verdict


def _pair(match: Match) -> str:
    facts = [("test", _shown(match.query)), ("training", _shown(match.reference))]
    if match.probability is not None:
        facts.append(("probability", probability_text(match.probability)))
    facts.append(("score", f"{match.score:.3f}"))
    if match.overlap is not None:
        shares = match.overlap.query_share, match.overlap.reference_share
        facts.append(("proven", f"{shares[0]:.0%} of it lies in {shares[1]:.0%} of the other"))
    return report.pair_card(
        _read(match.query),
        _read(match.reference),
        facts,
        verdict=report.badge(match.verdict, good=False),
    )


def _how(result: Duplicates | Leaks) -> str:
    return "proven pair by pair" if result.verified else "not proven; --verify does"


def _passed_over(duplicates: Duplicates) -> str:
    said = f"{len(duplicates.skipped):,} skipped"
    if duplicates.n_symlinks:
        said += f", symbolic links passed over: {duplicates.n_symlinks:,}"
    return said


def _skipped(skipped: Sequence[Skipped]) -> Iterator[str]:
    if skipped:
        rows = [(_shown(item.name), item.reason, item.message) for item in skipped[:_SKIPPED]]
        caption = f"{len(skipped):,} files" + (", the first are shown" * (len(skipped) > _SKIPPED))
        yield report.section("Skipped", report.table(caption, ["file", "reason", "message"], rows))


def _read(path: str) -> UInt8[np.ndarray, "_ _ 3"] | None:
    try:
        return read_image(path, at_least=_DETAIL)
    except ImageError:
        return None


def _shown(name: str) -> str:
    return name_fields("name", name)["name"]
