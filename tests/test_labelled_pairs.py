"""Labelled pairs: lists and the original's dictionaries, of which nothing is executed."""

import pickle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import write_names
from vit4icd import labelled_pairs
from vit4icd.errors import DataError, FormatError
from vit4icd.labelled_pairs import read_labelled_pairs


def test_reads_pairs_from_csv_relative_to_it(tmp_path: Path) -> None:
    write_names(tmp_path, "q/1.jpg", "r/1.jpg")
    (tmp_path / "pairs.csv").write_text("query,reference\nq/1.jpg,r/1.jpg\n")
    pairs = read_labelled_pairs(tmp_path / "pairs.csv")
    assert list(pairs.queries) == [tmp_path / "q/1.jpg"]
    (tmp_path / "pairs.csv").write_text("q/1.jpg,r/2.jpg\n")
    with pytest.raises(DataError, match=r"r/2\.jpg"):
        read_labelled_pairs(tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("query,reference\nq/1.jpg\n")
    with pytest.raises(FormatError, match=r"line 2: .*q/1\.jpg"):
        read_labelled_pairs(tmp_path / "pairs.csv")
    (tmp_path / "pairs.csv").write_text("query,reference\n")
    with pytest.raises(DataError, match="no pair"):
        read_labelled_pairs(tmp_path / "pairs.csv")


def test_reads_pairs_as_spreadsheets_write_them(tmp_path: Path) -> None:
    write_names(tmp_path, "a, b.jpg", "r.jpg")
    (tmp_path / "p.csv").write_bytes(b'\xef\xbb\xbfquery,reference\r\n"a, b.jpg",r.jpg\r\n\r\n')
    assert list(read_labelled_pairs(tmp_path / "p.csv").queries) == [tmp_path / "a, b.jpg"]


def _official_pairs(folder: Path, protocol: int) -> None:
    queries, references = {}, {}
    for label in range(12):
        queries[str(label)], references[str(label)] = f"Q{label:05d}.jpg", f"R{label:06d}.jpg"
        write_names(
            folder, f"query/{label}/Q{label:05d}.jpg", f"reference/{label}/R{label:06d}.jpg"
        )
    for name, table in (("q", queries), ("r", references)):
        path = folder / f"pull_gt_{name}_forimage.pickle"
        path.write_bytes(pickle.dumps(table, protocol=protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_the_original_dictionaries_of_any_protocol(protocol: int, tmp_path: Path) -> None:
    _official_pairs(tmp_path, protocol)
    pairs = read_labelled_pairs(tmp_path)
    assert [path.name for path in pairs.queries[:2]] == ["Q00000.jpg", "Q00001.jpg"]
    assert pairs.references[11] == tmp_path / "reference" / "11" / "R000011.jpg"


def test_executes_nothing_in_a_pickle(tmp_path: Path) -> None:
    _official_pairs(tmp_path, 4)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    path = tmp_path / "pull_gt_q_forimage.pickle"
    path.write_bytes(pickle.dumps({"0": Trap()}))
    with pytest.raises(FormatError, match="more than a dictionary of strings"):
        read_labelled_pairs(tmp_path)
    assert not trap.exists()
    path.write_bytes(b"\x80\x04}garbage")
    with pytest.raises(FormatError):
        read_labelled_pairs(tmp_path)


class _Anything:
    pass


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({"0": _Anything}, "GLOBAL"),
        ({"0": ["a.jpg"]}, "EMPTY_LIST"),
        ({"0": 1}, "BININT1"),
        ({"0": None}, "NONE"),
        ({"0": b"a"}, "BYTES|GLOBAL"),
        ({"0": {"1": "a.jpg"}, "2": {"3": "b.jpg"}}, "dictionary of strings"),
        ({0: "a.jpg"}, "BININT1"),
        ("text", "dictionary"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_names_what_a_pickle_holds_besides_strings(
    held: object, named: str, protocol: int, tmp_path: Path
) -> None:
    _official_pairs(tmp_path, 4)
    path = tmp_path / "pull_gt_q_forimage.pickle"
    path.write_bytes(pickle.dumps(held, protocol=protocol))
    with pytest.raises(FormatError, match=named):
        read_labelled_pairs(tmp_path)


_NAMES = st.text(st.characters(codec="utf-8"), max_size=6)


@given(st.dictionaries(_NAMES, _NAMES), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_reads_a_dictionary_of_strings_as_pickle_does(
    tmp_path_factory: pytest.TempPathFactory, held: dict[str, str], protocol: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "dictionary.pickle"
    path.write_bytes(pickle.dumps(held, protocol=protocol))
    found = labelled_pairs._read_dictionary(path)
    assert list(found.items()) == list(held.items())


@given(st.binary(max_size=40))
@example(b"c\\ \n\n")  # an escape that is none
def test_reads_no_opcode_it_does_not_know(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.pickle"
    path.write_bytes(b"\x80\x04}(" + junk + b".")
    try:
        assert isinstance(labelled_pairs._read_dictionary(path), dict)
    except FormatError as error:
        assert "junk.pickle" in str(error)
