"""Which copy of a group is worth keeping, and why; it touches no file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["Candidate", "best_copy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What is weighed of a copy."""

    path: str
    width: int
    height: int
    n_bytes: int
    taken: str | None
    """When it was taken, by its own notes."""
    modified_ns: int


Worth = tuple[Callable[[Candidate], int], Callable[[Candidate, Candidate], str]]

# Higher is better; the first that tells two copies apart decides, and says so: of best and next.
_WORTH: tuple[Worth, ...] = (
    (
        lambda copy: copy.width * copy.height,
        lambda best, next_: f"most pixels: {_size(best)}, the next has {_size(next_)}",
    ),
    (lambda copy: copy.taken is not None, lambda best, _: f"says when it was taken: {best.taken}"),
    (lambda copy: -copy.modified_ns, lambda best, _: f"oldest file: {_day(best)}"),
    (
        lambda copy: copy.n_bytes,
        lambda best, next_: f"most bytes: {best.n_bytes:,}, the next has {next_.n_bytes:,}",
    ),
    (lambda copy: -len(copy.path), lambda *_: "shortest path"),
)


def best_copy(copies: Sequence[Candidate]) -> tuple[int, str]:
    """Return which copy to keep, and the reason.

    Most pixels; then one that still says when it was taken, as the camera's own file does; then the
    oldest file; then most bytes; then the shortest path; then the first by name.

    Example:
        >>> small = Candidate(
        ...     path="a.jpg", width=80, height=60, n_bytes=9, taken=None, modified_ns=0)
        >>> large = Candidate(
        ...     path="b.jpg", width=800, height=600, n_bytes=9, taken=None, modified_ns=0)
        >>> best_copy([small, large])
        (1, 'most pixels: 800 × 600, the next has 80 × 60')
    """
    ranked = sorted(range(len(copies)), key=lambda row: _rank(copies[row]))
    best = copies[ranked[0]]
    if len(ranked) == 1:
        return ranked[0], "the only one"
    next_ = copies[ranked[1]]
    reasons = (why(best, next_) for worth, why in _WORTH if worth(best) != worth(next_))
    return ranked[0], next(reasons, "first by name")


def _rank(copy: Candidate) -> tuple[int | str, ...]:
    return (*(-worth(copy) for worth, _ in _WORTH), copy.path)


def _size(copy: Candidate) -> str:
    return f"{copy.width} × {copy.height}"


def _day(copy: Candidate) -> str:
    moment = datetime.fromtimestamp(copy.modified_ns / 1e9, UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"
