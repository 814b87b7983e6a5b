"""Pairs and truth as CSV, in the original's columns and by its reading rules."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vit4icd.errors import FormatError
from vit4icd.storage.files import atomic_path
from vit4icd.types import Pairs, Truth

__all__ = ["read_pairs", "read_truth", "write_pairs"]

_TRUTH_HEADERS = (["query_id", "ref_id"], ["query_id", "reference_id"], ["query", "reference"])
_PAIR_HEADERS = tuple([*names, "score"] for names in _TRUTH_HEADERS)


def write_pairs(path: Path, pairs: Pairs, *, decimals: int | None = 6) -> None:
    """Write ``query_id,ref_id,score`` lines in the pairs' own order.

    The original writes 6 decimals, which makes ties; ``decimals=None`` keeps every digit.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_PAIR_HEADERS[0])
    scores = pairs.scores.tolist()
    texts = map(repr, scores) if decimals is None else (f"{score:.{decimals}f}" for score in scores)
    writer.writerows(zip(pairs.queries, pairs.references, texts, strict=True))
    with atomic_path(path) as temporary:
        temporary.write_text(buffer.getvalue(), "utf-8", errors="surrogateescape", newline="")


def read_pairs(path: Path) -> Pairs:
    """Read ``query,reference,score`` lines; header lines are passed over wherever they stand.

    Raises:
        FormatError: a line without three columns or without a number, with its line number.
        DataError: a pair repeats, or a score is not finite.
    """
    queries, references, scores = [], [], []
    for number, row in _rows(path):
        if row in _PAIR_HEADERS:
            continue
        try:
            query, reference, score = row
            scores.append(float(score))
        except ValueError as error:
            raise FormatError(
                f"{path}, line {number}: expected query,reference,score but found {row}"
            ) from error
        queries.append(query)
        references.append(reference)
    return Pairs(queries=queries, references=references, scores=np.array(scores, np.float64))


def read_truth(path: Path) -> Truth:
    """Read ``query,reference`` lines; a query without a reference is no true pair.

    Headers and blank lines are passed over; repeated rows are kept, and count twice, as in the
    original.

    Raises:
        FormatError: a line with other than one or two columns, with its line number.
    """
    queries, references = [], []
    for number, row in _rows(path):
        if row in _TRUTH_HEADERS:
            continue
        if len(row) > 2:
            raise FormatError(f"{path}, line {number}: expected query,reference but found {row}")
        if len(row) == 2 and row[1]:
            queries.append(row[0])
            references.append(row[1])
    return Truth(queries=queries, references=references)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise FormatError(f"{path} is not a CSV file: {error}") from error
