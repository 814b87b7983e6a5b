"""Answers of a search, as a table for people or in a format for programs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from vit4icd.cli.arguments import Format
from vit4icd.cli.terminal import n_columns, print_table, say, shown

if TYPE_CHECKING:
    from vit4icd.collection import Answer
    from vit4icd.matches import Match

__all__ = ["Tally", "write_answers"]

_NARROW = 100  # columns of a terminal below which proofs are told in short


@dataclass(slots=True)
class Tally:
    """Counts answers on their way, and says which queries were not searched."""

    quiet: bool
    n_queries: int = 0
    n_copies: int = 0
    n_skipped: int = 0
    untried: set[str] = field(default_factory=set)
    is_empty: bool = False
    """Whether there was nothing that could match."""

    def over(self, answers: Iterable["Answer"]) -> Iterator["Answer"]:
        """Yield the answers as they are; at the end, say what could not be done."""
        for answer in answers:
            self.n_queries += 1
            self.n_copies += any(match.is_copy for match in answer.matches)
            if answer.skipped is not None:
                self.n_skipped += 1
                reason = f"{answer.skipped.message} ({answer.skipped.reason})"
                say(self.quiet, f"not searched: {shown(answer.query)}: {reason}")
            self.untried.update(answer.untried)
            self.is_empty |= answer.nearest is None and answer.skipped is None
            yield answer
        if self.is_empty:
            say(self.quiet, "the collection is empty: nothing can match")
        if self.untried:
            say(
                self.quiet,
                f"no proof was tried for {len(self.untried)} of the references found, such as "
                f"{shown(min(self.untried))}: their local features are missing or cannot be read; "
                "add those pictures again",
            )


def write_answers(answers: Iterable["Answer"], format_: Format, out: Path | None) -> None:
    """Write answers to a file or stdout."""
    from vit4icd.collection import match_fields, write_fields

    if format_ == "table":
        _print_answers(list(answers), out)
    elif format_ in ("json", "jsonl"):
        write_fields((answer.to_json() for answer in answers), format_, out)
    else:
        matches = (match for answer in answers for match in answer.matches)
        write_fields(map(match_fields, matches), format_, out)


def _print_answers(answers: Sequence["Answer"], out: Path | None) -> None:
    is_proof_tried = any(match.verified for answer in answers for match in answer.matches)
    columns = _columns(is_proof_tried, is_narrow=n_columns(out) < _NARROW)
    table = Table("query", "reference", *columns, box=None)
    for answer in answers:
        for row, match in enumerate(answer.matches):
            names = shown(answer.query) if row == 0 else "", shown(match.reference)
            table.add_row(*names, *(cell(match) for cell in columns.values()))
    lines = [
        _no_match(answer.query, answer.nearest)
        for answer in answers
        if not answer.matches and answer.nearest is not None
    ]
    print_table(table, out, lines)


def _columns(is_proof_tried: bool, *, is_narrow: bool) -> dict[str, Callable[["Match"], str]]:
    """Return what is said of a match, by heading: less where that leaves no room for names."""
    from vit4icd.matches import probability_text

    columns: dict[str, Callable[[Match], str]] = {
        "verdict": lambda match: match.verdict,
        "probability": lambda match: probability_text(match.probability),
    }
    if is_proof_tried and is_narrow:
        return columns | {"proof": lambda match: " / ".join(filter(None, _proof(match)))}
    columns["score"] = lambda match: f"{match.score:.3f}"
    if is_proof_tried:
        columns["of query"] = lambda match: _proof(match)[0]
        columns["of reference"] = lambda match: _proof(match)[1]
    return columns


def _proof(match: "Match") -> tuple[str, str]:
    """Return which share of either picture the proven common part is."""
    if match.overlap is None:
        return ("not proven" if match.verified else "", "")
    return f"{match.overlap.query_share:.0%}", f"{match.overlap.reference_share:.0%}"


def _no_match(query: str, nearest: "Match") -> str:
    from vit4icd.matches import probability_text

    probability = probability_text(nearest.probability)
    score = f"p = {probability}" if probability else f"score {nearest.score:.3f}"
    score = score.replace("= <", "< ").replace("= >", "> ")
    name = shown(nearest.reference)
    return f"{shown(query)}: no match above the threshold; nearest was {name} at {score}"
