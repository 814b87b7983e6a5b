"""Labelled pairs for stage 3: lists and the original's dictionaries; it opens no picture."""

import csv
import pickletools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vit4icd.errors import DataError, FormatError

__all__ = ["LabelledPairs", "read_labelled_pairs"]

_MARK = object()  # where a run of items starts on the stack of a pickle


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledPairs:
    """Files of edited copies and of the references they were made from, row by row.

    Raises:
        DataError: columns of different lengths, or no pair.
    """

    queries: Sequence[Path]
    references: Sequence[Path]

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.references):
            raise DataError(f"{len(self.queries)} queries for {len(self.references)} references")
        if not self.queries:
            raise DataError("the data holds no pair")

    def __len__(self) -> int:
        return len(self.queries)


def read_labelled_pairs(path: Path) -> LabelledPairs:
    """Read the labelled pairs of stage 3.

    ``path`` is a CSV file with the columns ``query,reference`` (paths, relative to the file), or a
    folder with the original's four parts: the picture trees ``query`` and ``reference`` (a folder
    per class) and the dictionaries ``pull_gt_q_forimage.pickle`` and ``pull_gt_r_forimage.pickle``
    (class -> file name), which are read without executing them.

    Raises:
        FormatError: a malformed line, or a pickle that holds more than a dictionary of strings.
        DataError: nothing there, or a file that is named but missing.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    pairs = _pairs_of_folders(path) if path.is_dir() else _pairs_of_csv(path)
    for file in (*pairs.queries, *pairs.references):
        if not file.is_file():
            raise DataError(f"{path} names {file}, which is missing")
    return pairs


def _pairs_of_csv(path: Path) -> LabelledPairs:
    queries, references = [], []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if not row or row == ["query", "reference"]:
                    continue
                if len(row) != 2 or not all(row):
                    raise FormatError(
                        f"{path}, line {reader.line_num}: expected query,reference but found {row}"
                    )
                queries.append(path.parent / row[0])
                references.append(path.parent / row[1])
        except csv.Error as error:
            raise FormatError(f"{path}, line {reader.line_num}: {error}") from error
    return LabelledPairs(queries=queries, references=references)


def _pairs_of_folders(folder: Path) -> LabelledPairs:
    queries = _read_dictionary(folder / "pull_gt_q_forimage.pickle")
    references = _read_dictionary(folder / "pull_gt_r_forimage.pickle")
    if queries.keys() != references.keys():
        odd = min(queries.keys() ^ references.keys())
        raise DataError(f"class {odd!r} stands in only one of the two dictionaries")
    return LabelledPairs(
        queries=[folder / "query" / label / name for label, name in queries.items()],
        references=[folder / "reference" / label / references[label] for label in queries],
    )


def _read_dictionary(path: Path) -> dict[str, str]:
    """Read a pickled dict[str, str] on a stack of our own; nothing in the file is executed."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        with warnings.catch_warnings(action="error"):  # of texts that are no text
            for opcode, argument, _ in pickletools.genops(path.read_bytes()):
                _carry_out(opcode.name, argument, stack, memo)
        (found,) = stack
        if not all(isinstance(text, str) for pair in found.items() for text in pair):
            raise FormatError("it holds more than a dictionary of strings")
    except (
        FormatError, OSError, ValueError, LookupError, TypeError, AttributeError, Warning
    ) as error:  # fmt: skip
        raise FormatError(f"{path} is not a pickled dictionary: {error}") from error
    return cast("dict[str, str]", found)


def _carry_out(opcode: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    match opcode:
        case "PROTO" | "FRAME" | "STOP":
            pass
        case "EMPTY_DICT":
            stack.append({})
        case "MARK":
            stack.append(_MARK)
        case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8" | "UNICODE":
            stack.append(argument)
        case "MEMOIZE" | "BINPUT" | "LONG_BINPUT" | "PUT":
            memo[len(memo) if argument is None else argument] = stack[-1]
        case "BINGET" | "LONG_BINGET" | "GET":
            stack.append(memo[argument])
        case "SETITEM":
            stack[-3].update([stack[-2:]])
            del stack[-2:]
        case "SETITEMS" | "DICT":
            start = len(stack) - stack[::-1].index(_MARK)
            items = zip(stack[start::2], stack[start + 1 :: 2], strict=True)
            found = {} if opcode == "DICT" else stack[start - 2]
            found.update(items)
            stack[start - (1 if opcode == "DICT" else 2) :] = [found]
        case _:
            raise FormatError(f"it holds more than a dictionary of strings: {opcode}")
