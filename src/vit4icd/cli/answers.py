"""Answers of a search, as a table for people or in a format for programs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from vit4icd.cli.terminal import print_table, say, shown

if TYPE_CHECKING:
    from vit4icd.collection import Answer
    from vit4icd.matches import Match

__all__ = ["Format", "Tally", "write_answers"]

Format = Literal["table", "json", "jsonl", "csv", "parquet"]


@dataclass(slots=True)
class Tally:
    """Counts answers on their way, and says which queries were not searched."""

    quiet: bool
    n_queries: int = 0
    n_copies: int = 0
    n_skipped: int = 0
    untried: set[str] = field(default_factory=set)

    def over(self, answers: Iterable["Answer"]) -> Iterator["Answer"]:
        """Yield the answers as they are; at the end, say what could not be proven."""
        for answer in answers:
            self.n_queries += 1
            self.n_copies += any(match.is_copy for match in answer.matches)
            if answer.skipped is not None:
                self.n_skipped += 1
                reason = f"{answer.skipped.message} ({answer.skipped.reason})"
                say(self.quiet, f"not searched: {shown(answer.query)}: {reason}")
            self.untried.update(answer.untried)
            yield answer
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
    from vit4icd.matches import probability_text

    table = Table("query", "reference", "verdict", "p", "score", box=None)
    is_proof_tried = any(match.verified for answer in answers for match in answer.matches)
    for name in ("of query", "of reference") if is_proof_tried else ():
        table.add_column(name)
    for answer in answers:
        for row, match in enumerate(answer.matches):
            name = shown(answer.query) if row == 0 else ""
            cells = [
                name,
                shown(match.reference),
                match.verdict,
                probability_text(match.probability),
            ]
            cells.append(f"{match.score:.3f}")
            table.add_row(*cells, *(_proof(match) if is_proof_tried else ()))
    lines = [_no_match(answer) for answer in answers if not (answer.matches or answer.skipped)]
    print_table(table, out, lines)


def _proof(match: "Match") -> tuple[str, str]:
    """Return which share of either picture the proven common part is."""
    if match.overlap is None:
        return ("not proven" if match.verified else "", "")
    return f"{match.overlap.query_share:.0%}", f"{match.overlap.reference_share:.0%}"


def _no_match(answer: "Answer") -> str:
    from vit4icd.matches import probability_text

    text = f"{shown(answer.query)}: no match above the threshold"
    if answer.nearest is None:
        return f"{shown(answer.query)}: no match, for the collection is empty"
    probability = probability_text(answer.nearest.probability)
    score = f"p = {probability}" if probability else f"score {answer.nearest.score:.3f}"
    score = score.replace("= <", "< ").replace("= >", "> ")
    return f"{text}; nearest was {shown(answer.nearest.reference)} at {score}"
