"""Groups of files, and how they were found, as values and as JSON; it finds and touches none."""

from dataclasses import dataclass

from vit4icd.dedup.files import PictureFile
from vit4icd.groups import Strictness
from vit4icd.headers import Header
from vit4icd.matches import Match
from vit4icd.storage import name_fields
from vit4icd.stream import Skipped

__all__ = ["Duplicates", "Group", "Member", "same_bytes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file of a group."""

    file: PictureFile
    header: Header | None
    """None for a file that is no readable picture, but of the same bytes as another."""
    is_kept: bool
    reason: str
    """Why it is kept; for the others, what they are to the kept one."""
    match: Match | None = None
    """The pair of this file and the kept one; None for the kept one itself, and where only others
    of the group link the two."""
    caution: str | None = None
    """Why the kept one may not make up for the file, as far as is known; it is then left where it
    is."""

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        size = None if self.header is None else [self.header.width, self.header.height]
        match = None if self.match is None else self.match.to_json()
        return self.file.to_json() | {
            "size": size,
            "taken": None if self.header is None else self.header.taken,
            "keep": self.is_kept,
            "reason": self.reason,
            "caution": self.caution,
            "match": match,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Files that are copies of each other, those to keep first."""

    members: tuple[Member, ...]

    @property
    def kept(self) -> tuple[Member, ...]:
        """The best copy, or all references."""
        return tuple(member for member in self.members if member.is_kept)

    @property
    def spare(self) -> tuple[Member, ...]:
        """The other copies."""
        return tuple(member for member in self.members if not member.is_kept)

    @property
    def n_spare_bytes(self) -> int:
        """Bytes that the other copies take."""
        return sum(member.file.stamp.size for member in self.spare)


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """All groups in the order of the files, and how they were found."""

    inputs: tuple[str, ...]
    """Where was looked, references included."""
    groups: tuple[Group, ...]
    n_files: int
    n_contents: int
    n_symlinks: int
    skipped: tuple[Skipped, ...]
    fingerprint: str
    strictness: Strictness
    threshold: float
    """The score from which on a pair was looked at."""
    verified: bool
    is_cut: bool
    """Whether there were more pairs than could be judged."""

    @property
    def n_spare(self) -> int:
        """Files that could go."""
        return sum(len(group.spare) for group in self.groups)

    @property
    def n_spare_bytes(self) -> int:
        """Bytes that those take."""
        return sum(group.n_spare_bytes for group in self.groups)

    def to_json(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return {
            "format_version": 1,
            "inputs": [name_fields("path", name) for name in self.inputs],
            "fingerprint": self.fingerprint,
            "strictness": self.strictness,
            "threshold": self.threshold,
            "verified": self.verified,
            "files": self.n_files,
            "contents": self.n_contents,
            "symbolic_links_passed_over": self.n_symlinks,
            "more_pairs_than_judged": self.is_cut,
            "spare_files": self.n_spare,
            "spare_bytes": self.n_spare_bytes,
            "groups": [
                {"group": number, "members": [member.to_json() for member in group.members]}
                for number, group in enumerate(self.groups, 1)
            ],
            "skipped": [item.to_json() for item in self.skipped],
        }


def same_bytes(query: str, reference: str) -> Match:
    """Return the match of two files of the same bytes, which no other can be surer than."""
    return Match(
        query=query,
        reference=reference,
        similarity=1.0,
        score=1.0,
        probability=1.0,
        verdict="exact",
        overlap=None,
        verified=False,
        same_bytes=True,
    )
