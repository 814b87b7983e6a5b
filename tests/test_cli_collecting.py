"""The verbs of collections: what they print, where, and how they end."""

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_model
from vit4icd import cli, datasets
from vit4icd.collection import Collection
from vit4icd.datasets import walk_pictures
from vit4icd.images import read_image, write_image
from vit4icd.storage import read_name

COLUMNS = {"COLUMNS": "80", "NO_COLOR": "1"}


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    code = ended.value.code
    return 0 if code is None else int(code)


@pytest.fixture
def stored(model: Path, pictures: Path, tmp_path: Path) -> Path:
    """Twenty pictures in a collection, under their names."""
    words = ("index", "add", tmp_path / "mine", pictures, "--model", model, "--id-from", "name")
    assert _run(*words, "--quiet") == 0
    return tmp_path / "mine"


def test_adds_to_a_collection_that_another_program_made_meanwhile(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Collection.create

    def late(uri: Any, **options: Any) -> Collection:
        create(uri, **options)
        return create(uri, **options)

    monkeypatch.setattr(Collection, "create", late)
    place = tmp_path / "mine"
    assert _run("index", "add", place, pictures, "--model", model) == 0
    assert len(Collection.open(place)) == 20


def _piped(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vit4icd", *map(os.fspath, map(str, words))]
    return subprocess.run(command, input=stdin, capture_output=True, env=os.environ | COLUMNS)


def test_adds_lists_and_removes(
    stored: Path, pictures: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("index", "add", stored, pictures, "--model", model, "--id-from", "name")
    assert _run(*again, "--metadata", "owner=me", "--metadata", "year=2024") == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "0 added, 20 updated, 0 unchanged" in printed.err
    assert _run("index", "list", stored, "--limit", 2, "--after", "004.jpg") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["id", "005.jpg", "006.jpg"]
    assert "owner=me year=2024" in lines[1]
    assert _run("index", "list", stored, "--after", "020.jpg") == 0
    assert capsys.readouterr() == ("", f"{stored} holds no picture after 020.jpg\n")
    assert _run("index", "remove", stored, "004.jpg", "nowhere.jpg") == 0
    assert "1 removed; 1 were not there" in capsys.readouterr().err
    assert _run("index", "list", stored, "--format", "jsonl") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 19
    assert records[0]["metadata"] == {"owner": "me", "year": "2024"}


def test_names_the_columns_of_an_empty_list(stored: Path, tmp_path: Path) -> None:
    for name in ("all.csv", "all.parquet", "none.csv", "none.parquet"):
        after = "999" if name.startswith("none") else ""
        assert _run("index", "list", stored, "--after", after, "-o", tmp_path / name) == 0
    lines = [(tmp_path / name).read_text().splitlines() for name in ("all.csv", "none.csv")]
    assert lines[1] == lines[0][:1]
    tables = [pq.read_table(tmp_path / name) for name in ("all.parquet", "none.parquet")]
    assert tables[0].column_names == tables[1].column_names
    assert [len(table) for table in tables] == [20, 0]


def test_lists_in_local_time(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = Collection.open(stored).list(limit=1)[0].added
    monkeypatch.setenv("TZ", "XXX-9")  # nine hours ahead of UTC
    listed = _piped("index", "list", stored, "--limit", 1).stdout.decode()
    assert f"{added + timedelta(hours=9):%Y-%m-%d %H:%M}" in listed


def test_finds_what_is_cut_out_of_a_picture(
    stored: Path, pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("index", "add", stored, pictures, "--model", model, "--id-from", "name")
    assert _run(*again, "--regions") == 0
    assert "0 added, 20 updated, 0 unchanged" in capsys.readouterr().err
    assert _run("index", "info", stored, "--json") == 0
    assert json.loads(capsys.readouterr().out)["parts"] == 180
    image = read_image(pictures / "007.jpg")
    part = np.ascontiguousarray(image[: image.shape[0] // 2, : image.shape[1] // 2])
    write_image(tmp_path / "part.png", part, suffix=".png")
    words = ("search", stored, tmp_path / "part.png", "--model", model, "--threshold", -2)
    for format_ in ("jsonl", "csv"):
        assert _run(*words, "--format", format_) == 0
        text = capsys.readouterr().out
        rows = [json.loads(text)["matches"][0]] if format_ == "jsonl" else _rows(text)
        assert (rows[0]["reference"], rows[0]["reference_part"]) == ("007.jpg", "top left")


def test_says_which_pictures_have_parts(
    stored: Path, pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("index", "list", stored) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["id", "size", "added"]
    words = ("--model", model, "--id-from", "name", "--regions")
    assert _run("index", "add", stored, pictures / "003.jpg", pictures / "011.jpg", *words) == 0
    assert "mine holds 20 pictures and 18 parts of them\n" in capsys.readouterr().err
    expected = [9 if row in (3, 11) else 0 for row in range(20)]
    assert _run("index", "list", stored) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["id", "size", "parts"]
    place = heading.index("parts")
    assert [int(line[place:].split(" ")[0] or 0) for line in lines] == expected
    for format_ in ("json", "jsonl", "csv", "parquet"):
        assert _run("index", "list", stored, "-o", tmp_path / f"list.{format_}") == 0
    rows = (tmp_path / "list.jsonl").read_text().splitlines()
    for counts in (
        [record["parts"] for record in json.loads((tmp_path / "list.json").read_text())],
        [json.loads(row)["parts"] for row in rows],
        [int(row["parts"]) for row in _rows((tmp_path / "list.csv").read_text())],
        pq.read_table(tmp_path / "list.parquet")["parts"].to_pylist(),
    ):
        assert counts == expected


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_says_what_a_collection_is(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("index", "info", stored) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pictures:     20" in lines
    assert max(map(len, lines)) <= max(80, len(str(stored)) + 14, len(str(stored.parent)) + 20)
    assert _run("index", "info", stored, "--json") == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 20


def test_acknowledges_each_picture_on_request(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("index", "add", tmp_path / "new", pictures, "--model", model, "--id-from", "name")
    assert _run(*words, "--jsonl", "--quiet") == 0
    printed = capsys.readouterr()
    ids = [json.loads(line)["id"] for line in printed.out.splitlines()]
    assert ids == [f"{row:03d}.jpg" for row in range(20)]
    assert printed.err == ""


def test_tells_of_pictures_that_are_held_twice(
    stored: Path, pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("006", "007"):
        shutil.copy(pictures / f"{name}.jpg", pictures / f"x{name}.jpg")
    words = ("index", "add", stored, pictures, "--model", model, "--id-from", "name", "--jsonl")
    assert _run(*words) == 0
    printed = capsys.readouterr()
    said = "held already, byte for byte, under other ids: 2 of them, such as x006.jpg = 006.jpg\n"
    assert printed.err.endswith(said)
    assert [*map(json.loads, printed.out.splitlines())] == [
        {"id": "x006.jpg", "same_bytes_as": "006.jpg"},
        {"id": "x007.jpg", "same_bytes_as": "007.jpg"},
    ]
    assert _run(*words) == 0
    assert "byte for byte" not in capsys.readouterr().err


def test_lists_what_it_left_out(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "004.jpg").write_bytes(b"")
    words = ("index", "add", tmp_path / "new", pictures, "--model", model)
    assert _run(*words) == 0
    said = f"new.skipped.jsonl; such as {pictures / '004.jpg'}: the file has no bytes\n"
    assert capsys.readouterr().err.endswith(f"1 left out; see {tmp_path}/{said}")
    (line,) = (tmp_path / "new.skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "empty"
    assert _run(*words, "--strict", "--skipped", tmp_path / "other.jsonl") == 3
    assert len((tmp_path / "other.jsonl").read_text().splitlines()) == 1
    (pictures / "004.jpg").unlink()
    assert _run(*words, "--skipped", tmp_path / "other.jsonl") == 0
    assert (tmp_path / "other.jsonl").read_bytes() == b""
    assert _run(*words) == 0
    assert not (tmp_path / "new.skipped.jsonl").exists()


def test_lists_what_it_left_out_beside_the_collection_from_within(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "004.jpg").write_bytes(b"")
    words = (pictures / "003.jpg", pictures / "004.jpg", "--model", model)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert _run("index", "add", ".", *words) == 0
    assert (tmp_path / "mine.skipped.jsonl").exists()
    assert not list((tmp_path / "mine").glob("*.jsonl"))


def test_fails_where_every_picture_was_left_out(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "004.jpg").write_bytes(b"no picture")
    words = ("index", "add", tmp_path / "new", pictures / "004.jpg", "--model", model)
    assert _run(*words) == 1
    assert _run(*words, "--strict") == 3
    assert "unchanged;" in capsys.readouterr().err  # and no rate


def test_takes_two_spellings_of_a_path_for_one(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "new"
    for path in (pictures / "003.jpg", pictures / ".." / pictures.name / "003.jpg"):
        assert _run("index", "add", stored, path, "--model", model) == 0
    assert "0 added, 0 updated, 1 unchanged; " in capsys.readouterr().err
    assert [record.id for record in Collection.open(stored).list()] == [str(pictures / "003.jpg")]


@pytest.mark.parametrize("file_format", ["table", "json", "jsonl", "csv", "parquet"])
def test_writes_answers_in_every_format(
    file_format: str,
    stored: Path,
    pictures: Path,
    model: Path,
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    queries = pictures / "003.jpg", pictures / "007.jpg"
    options = ("--model", model, "-k", 2, "--threshold", "-1", "--format", file_format)
    words = ("search", stored, *queries, *options)
    assert _run(*words) == 0
    printed = capsysbinary.readouterr().out
    assert _run(*words, "-o", tmp_path / "answers") == 0
    assert capsysbinary.readouterr().out == b""
    assert (tmp_path / "answers").read_bytes() == printed
    assert _best(printed, file_format) == ["003.jpg", "007.jpg"]


@pytest.mark.parametrize("file_format", ["json", "jsonl", "csv", "parquet"])
def test_takes_the_format_that_a_file_ends_in(
    file_format: str, stored: Path, pictures: Path, model: Path, tmp_path: Path
) -> None:
    search = ("search", stored, pictures / "003.jpg", "--model", model, "--threshold", "-1")
    for words in (search, ("index", "list", stored)):
        written = []
        for name, *options in (
            (f"as-said.{file_format}",),
            (f"LOUD.{file_format.upper()}",),
            ("asked.txt", "--format", file_format),
            ("plain.txt",),
            (f"asked.{file_format}", "--format", "table"),
        ):
            assert _run(*words, *options, "-o", tmp_path / name) == 0
            written.append((tmp_path / name).read_bytes())
        assert written[0] == written[1] == written[2]
        assert written[3] == written[4] != written[0]


def test_writes_to_stdout_where_that_is_named(
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("index", "list", stored, "--limit", "1", "--format", "json", "-o", "-") == 0
    assert json.loads(capsysbinary.readouterr().out)[0]["id"] == "000.jpg"
    assert not Path("-").exists()


def test_keeps_parquet_off_a_terminal(
    stored: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for words in (("search", stored, pictures), ("index", "list", stored)):
        assert _run(*words, "--format", "parquet") == 2
        told = capsys.readouterr()
        assert "name a file with --out" in told.err
        assert told.out == ""


def _best(printed: bytes, file_format: str) -> list[str]:
    """Return the first match of each of two queries."""
    text = printed.decode() if file_format != "parquet" else ""
    if file_format == "table":
        return [line.split()[1] for line in text.splitlines()[1::2]]
    if file_format in ("json", "jsonl"):
        answers = json.loads(text) if file_format == "json" else map(json.loads, text.splitlines())
        return [answer["matches"][0]["reference"] for answer in answers]
    if file_format == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
    else:
        rows = pq.read_table(io.BytesIO(printed)).to_pylist()
    return [row["reference"] for row in rows][::2]


def test_says_when_nothing_matches(
    stored: Path, pictures: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("search", stored, pictures / "003.jpg", "--model", model)
    assert _run(*words, "--threshold", "0.5", "--fail-on-match") == 11
    assert _run("index", "remove", stored, "003.jpg") == 0
    capsys.readouterr()
    assert _run(*words, "--threshold", "1", "--fail-on-match") == 0
    printed = capsys.readouterr().out
    assert re.search(r"no match above the threshold; nearest was \d+.jpg at score 0\.\d", printed)
    assert _run(*words) == 2
    assert "calibrate" in capsys.readouterr().err


@pytest.mark.parametrize("file_format", ["table", "jsonl", "csv"])
def test_answers_from_an_empty_collection(
    file_format: str, model: Path, pictures: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Collection.create(tmp_path / "empty", model=model)
    words = ("search", tmp_path / "empty", pictures, "--model", model, "--threshold", "0.5")
    assert _run(*words, "--format", file_format, "--verify", "--fail-on-match") == 0
    printed = capsys.readouterr()
    assert printed.err == "the collection is empty: nothing can match\n"
    lines = printed.out.splitlines()
    assert len(lines) == {"table": 0, "jsonl": 20, "csv": 1}[file_format]
    assert all(json.loads(line)["matches"] == [] for line in lines if line.startswith("{"))


def test_takes_what_is_named_twice_once(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = pictures / "003.jpg", pictures, pictures / "003.jpg", pictures / "." / "004.jpg"
    assert _run("index", "add", tmp_path / "mine", *again, "--model", model) == 0
    assert "20 added, 0 updated, 0 unchanged" in capsys.readouterr().err
    words = ("--model", model, "--threshold", "0.5", "--format", "jsonl")
    assert _run("search", tmp_path / "mine", *again, *words) == 0
    queries = [json.loads(line)["query"] for line in capsys.readouterr().out.splitlines()]
    assert len(queries) == len(set(queries)) == 20
    assert queries[0] == str(pictures / "003.jpg")


def test_walks_a_folder_once(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = []

    def walk(folder: Path, *options: Any) -> Iterator[Path]:
        walked.append(folder)
        return walk_pictures(folder, *options)

    monkeypatch.setattr(datasets, "walk_pictures", walk)
    assert _run("index", "add", tmp_path / "mine", pictures, "--model", model) == 0
    assert _run("search", tmp_path / "mine", pictures, "--model", model, "--threshold", 0.5) == 0
    assert walked == [pictures, pictures]


def test_refuses_counts_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("search", "gone", "gone", "-k", 0), "--k must be at least 1, not 0"),
        (("search", "gone", "gone", "-k", -3), "--k must be at least 1, not -3"),
        (("index", "list", "gone", "--limit", 0), "--limit must be at least 1, not 0"),
        (("index", "list", "gone", "--limit", -1), "--limit must be at least 1, not -1"),
        (("index", "compact", "gone", "--keep-minutes", -1), "0 to 10,000,000, not -1.0"),
        (("index", "compact", "gone", "--keep-minutes", "nan"), "0 to 10,000,000, not nan"),
        (("index", "compact", "gone", "--keep-minutes", "1e30"), "0 to 10,000,000, not 1e+30"),
    ):
        assert _run(*words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(said)


def test_refuses_plain_queries_and_answers_the_others(
    stored: Path, pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = tmp_path / "blank.ppm"
    blank.write_bytes(b"P6 40 40 255\n" + b"\xff" * 4800)
    words = ("search", stored, blank, "--model", model, "--threshold", "0.5")
    assert _run(*words) == 1
    assert "image_too_plain" in capsys.readouterr().err
    assert _run(*words[:3], pictures / "001.jpg", *words[3:]) == 0
    assert _run(*words[:3], pictures / "001.jpg", *words[3:], "--strict") == 3


def test_reads_names_and_pictures_from_stdin(stored: Path, pictures: Path, model: Path) -> None:
    options = ("--model", model, "--threshold", "0.9", "-k", 1, "--format", "jsonl")
    data = (pictures / "005.jpg").read_bytes()
    answer = json.loads(_piped("search", stored, "-", *options, stdin=data).stdout)
    assert (answer["query"], answer["matches"][0]["reference"]) == ("-", "005.jpg")
    odd = pictures / os.fsdecode(b"l\xe4\nx.jpg")
    odd.write_bytes(data)
    done = _piped("search", stored, "--from-file0", "-", *options, stdin=os.fsencode(odd) + b"\0")
    answer = json.loads(done.stdout)
    assert answer["matches"][0]["reference"] == "005.jpg"
    assert "query_base64" in answer
    done = _piped("index", "remove", stored, "--from-file0", "-", stdin=b"010.jpg\x00011.jpg\x00")
    assert b"2 removed" in done.stderr


def test_lists_and_removes_names_of_stray_bytes(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    names = [b"caf\xe9.jpg", b"new\nline.jpg", b"\xff\xfe", "\N{GRINNING FACE}".encode()]
    for number, name in enumerate(names):
        (pictures / f"{number:03d}.jpg").rename(pictures / os.fsdecode(name))
    files0 = b"".join(os.fsencode(pictures / os.fsdecode(name)) + b"\0" for name in names)
    options = ("--id-from", "name", "--model", model)
    stored = tmp_path / "mine"
    done = _piped("index", "add", stored, "--from-file0", "-", *options, stdin=files0)
    assert b"4 added" in done.stderr
    listed = json.loads(_piped("index", "list", stored, "--format", "json").stdout)
    assert [os.fsencode(read_name("id", record)) for record in listed] == sorted(names)
    assert os.fsencode(read_name("source", listed[0])).endswith(sorted(names)[0])
    table = _piped("index", "list", stored).stdout.decode()
    assert all(text in table for text in (r"caf\xe9.jpg", r"new\nline.jpg", r"\xff\xfe"))
    ids0 = _piped("index", "list", stored, "--format", "ids0").stdout
    assert ids0 == b"".join(name + b"\0" for name in sorted(names))
    assert b"1 removed" in _piped("index", "remove", stored, os.fsdecode(names[0])).stderr
    done = _piped("index", "remove", stored, "--from-file0", "-", stdin=ids0)
    assert b"3 removed; 1 were not there" in done.stderr
    assert _piped("index", "list", stored, "--format", "ids0").stdout == b""


def test_keeps_tables_whole_and_plain_in_a_pipe(
    stored: Path, pictures: Path, model: Path, tmp_path: Path
) -> None:
    odd = tmp_path / ("long " * 30 + "[red]\x1b[31m.jpg")
    odd.write_bytes((pictures / "002.jpg").read_bytes())
    done = _piped("search", stored, odd, "--model", model, "--threshold", "0.5", "-k", 1)
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2
    assert "long " * 30 + r"[red]\x1b[31m.jpg" in lines[1]
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stderr == b""


def _on_a_terminal(*words: object, talk: bool = False, out: Path | None = None) -> str:
    """Return what a verb prints to a terminal of 80 columns; ``talk``: what it says there, too.

    With ``out``, only that: what it prints goes to this file.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vit4icd", *map(str, words)]
    environment = os.environ | COLUMNS | {"TERM": "xterm" if talk else "dumb"}
    with (
        nullcontext(theirs) if out is None else out.open("wb") as stdout,
        subprocess.Popen(
            command, stdout=stdout, stderr=theirs if talk else None, env=environment
        ) as child,
    ):
        os.close(theirs)
        printed = b""
        with suppress(OSError):  # raised by Linux at the end
            while part := os.read(ours, 65_536):
                printed += part
    os.close(ours)
    assert child.returncode == 0
    return printed.decode()


def test_shows_whole_names_on_a_narrow_terminal(
    pictures: Path, model: Path, tmp_path: Path
) -> None:
    names = [f"a long name that ends otherwise {'x' * 30} {number}.jpg" for number in (1, 2)]
    for name in names:
        shutil.copy(pictures / "000.jpg", tmp_path / name)
    stored = tmp_path / "mine"
    queries = [tmp_path / name for name in names]
    assert _run("index", "add", stored, *queries, "--model", model, "--id-from", "name") == 0
    words = ("search", stored, *queries, "--model", model, "--threshold", "-1", "-k", 2)
    printed = _on_a_terminal(*words, "--verify")
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["query", "reference", "verdict", "probability", "proof"]
    places = slice(lines[0].index("reference"), lines[0].index("verdict"))
    told = "".join(line[places] for line in lines).replace(" ", "")
    for name in names:
        assert told.count(name.replace(" ", "")) == 2
    assert "score" in _on_a_terminal(*words).splitlines()[0]
    assert b"of query  of reference" in _piped(*words, "--verify").stdout


def test_mixes_no_progress_with_what_it_prints(
    stored: Path, pictures: Path, model: Path, tmp_path: Path
) -> None:
    search = ("search", stored, pictures, "--model", model, "--threshold", 0.5, "-k", 1)
    printed = re.sub(r"\x1b\[[\d;]*m", "", _on_a_terminal(*search, talk=True))
    before, _, after = printed.rpartition("\x1b[2K")  # where a line was wiped for the last time
    assert "searching" in before
    assert after.startswith(" query ")
    printed = _on_a_terminal(*search, "--format", "jsonl", talk=True)
    assert [json.loads(line)["matches"][0]["verdict"] for line in printed.splitlines()] == [
        "exact"
    ] * 20
    add = ("index", "add", tmp_path / "new", pictures, "--model", model, "--jsonl")
    said = _on_a_terminal(*add, talk=True, out=tmp_path / "lines")
    assert "adding" in said
    assert "20 added" in said
    lines = (tmp_path / "lines").read_text().splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == 20


def test_looks_after_a_collection(
    stored: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("index", "snapshot", stored, "full") == 0
    assert _run("index", "remove", stored, "000.jpg") == 0
    assert _run("index", "compact", stored, "--keep-minutes", 0) == 0
    assert _run("index", "verify", stored) == 0
    printed = capsys.readouterr()
    assert "19 pictures in 1 file, 0 problems" in printed.err
    assert printed.out == ""
    assert _run("index", "restore", stored, "full") == 0
    assert "holds the 20 pictures of full again" in capsys.readouterr().err
    assert _run("index", "snapshot", stored, "full", "--forget") == 0
    assert _run("index", "restore", stored, "full") == 1
    assert "no snapshot 'full'" in capsys.readouterr().err
    for path in (stored / "data").iterdir():
        data = path.read_bytes()
        path.write_bytes(bytes(len(data) // 2) + data[len(data) // 2 :])
    assert _run("index", "verify", stored) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("file ")
    assert ", 0 problems" not in printed.err


def test_explains_a_wrong_place_or_model(
    stored: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("search", tmp_path / "nowhere", pictures) == 1
    assert "vit4icd index add" in capsys.readouterr().err
    other = make_model(tmp_path / "other", seed=3)
    assert _run("search", stored, pictures, "--model", other) == 1
    assert "was made with the model" in capsys.readouterr().err
    assert _run("index", "add", stored, pictures, "--metadata", "owner") == 2
    assert "KEY=VALUE" in capsys.readouterr().err
    assert _run("index", "add", tmp_path / "new", tmp_path / "nowhere.jpg") == 1
    assert "no file or folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert _run("index", "add", tmp_path / "new", tmp_path / "empty", "--model", other) == 1
    assert "no picture in" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert _run("index", "add", pictures, tmp_path / "empty") == 2
    assert "the collection comes first" in capsys.readouterr().err
    words = ("search", stored, tmp_path / "empty", "--threshold", 0.5)
    assert _run(*words, "--model", tmp_path / "model") == 1
    assert "no picture in" in capsys.readouterr().err
    assert _run("index", "add", "", pictures) == _run("index", "list", "") == 2
    assert "the name of a collection is empty" in capsys.readouterr().err
    (tmp_path / "list").write_text(f"{pictures / '000.jpg'}\n{pictures / '001.jpg'}\n")
    assert _run("search", stored, "--from-file0", tmp_path / "list") == 1
    assert "NUL byte, as find -print0 does" in capsys.readouterr().err
    assert _run("index", "remove", stored) == 2
    assert _run("index") == 2
    assert _run("index", "nonsense") == 2


def test_shows_the_verbs_of_collections(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("index") == 2
    missing = capsys.readouterr()
    assert missing.out == ""
    assert "index snapshot" in missing.err
    assert "evaluate" not in missing.err
    assert _run() == 2
    assert "evaluate" in capsys.readouterr().err
    assert _run("index", "--help") == 0
    printed = capsys.readouterr().out
    assert "index add" in printed
    assert "evaluate" not in printed
    assert _run("--help") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "index add" in printed
    assert "evaluate" in printed
