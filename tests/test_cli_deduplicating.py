"""The verbs that find copies among files: what they print, where, and how they end."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.dedup.conftest import put
from vit4icd import cli
from vit4icd.storage import read_name


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    code = ended.value.code
    return 0 if code is None else int(code)


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "vit4icd", *map(str, words)]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT4ICD_THREADS", "1")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of a cat, one of them under a name that is not UTF-8, a fig, and a bad file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    put("cat", folder / "cat.jpg")
    put("cat", folder / os.fsdecode(b"small-\xe9.jpg"), width=200)
    put("fig", folder / "fig.jpg")
    (folder / "bad.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def test_prints_groups_and_writes_a_report(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("dedup", photos) == 0
    printed = capsys.readouterr()
    header, kept, spare = printed.out.splitlines()
    assert header.split() == ["group", "file", "size", "bytes", "why"]
    assert kept.split()[:3] == ["1", "keep", "photos/cat.jpg"]
    assert spare.split()[0] == r"photos/small-\xe9.jpg"
    assert spare.rstrip().endswith("copy, p >.99")
    assert "copies: 1, among 4 files; files to spare: 1" in printed.err
    assert "skipped: 1, see dedup-report/skipped.jsonl" in printed.err
    report = Path("dedup-report")
    assert (report / "report.html").read_text("utf-8").count("<article") == 2
    assert json.loads((report / "groups.json").read_text("utf-8"))["spare_files"] == 1
    (line,) = (report / "skipped.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["reason"] == "unsupported_format"


def test_prints_for_programs(photos: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    spare = os.fsencode("photos/") + b"small-\xe9.jpg"

    def printed(format_: str, *options: object) -> bytes:
        assert _run("dedup", photos, "--format", format_, "--quiet", *options) == 0
        out, err = capfdbinary.readouterr()
        assert err == b""
        return out

    assert printed("files0") == spare + b"\0"
    (photos / "link.jpg").symlink_to(Path(os.fsdecode(spare)).name)
    assert printed("files0") == b""  # no action would take what a link leads to
    (photos / "link.jpg").unlink()
    whole = json.loads(printed("json"))
    members = whole["groups"][0]["members"]
    assert os.fsencode(read_name("path", members[1])) == spare
    assert [member["keep"] for member in members] == [True, False]
    (line,) = printed("jsonl").splitlines()
    assert json.loads(line)["members"] == members
    rows = list(csv.DictReader(io.StringIO(printed("csv").decode("utf-8"))))
    assert os.fsencode(read_name("path", {k: v for k, v in rows[1].items() if v})) == spare
    assert [row["verdict"] for row in rows] == ["", "copy"]
    table = pq.read_table(io.BytesIO(printed("parquet")))
    assert table.column("keep").to_pylist() == [True, False]
    none = printed("csv", "--threshold", 1.5).decode().splitlines()
    assert none == [",".join(name for name in table.column_names if name != "path_base64")]


def test_ends_as_asked(photos: Path) -> None:
    assert _run("dedup", photos, "--fail-on-match") == 11
    assert _run("dedup", photos, "--strict") == 3
    assert _run("dedup", photos, "--threshold", "1.5", "--fail-on-match") == 0
    assert _run("dedup", photos, "--strictness", "loose") == 2


def test_says_what_is_wrong(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message, code in (
        (("dedup",), "name at least one folder", 2),
        (("dedup", "gone"), "no file or folder gone", 1),
        (("dedup", photos, "--threshold", "high"), "not 'high'", 2),
        (("dedup", photos, "--action", "move"), "--to FOLDER", 2),
        (("dedup", photos, "--action", "move", "--to", photos / "x"), "choose a folder outside", 2),
        (
            ("dedup", photos, "--action", "move", "--to", photos, "--yes"),
            "choose a folder outside",
            2,
        ),
        (("dedup", photos, "--action", "move", "--to", photos / "cat.jpg"), "name a folder", 1),
        (("dedup", photos, "--to", "spare", "--yes"), "add --action move", 2),
        (("dedup", "--from-file0", "gone"), "gone cannot be read", 2),
        (("dedup", photos, "--out", "x.csv"), "not x.csv; for a list: --format csv > x.csv", 2),
        (("leaks", photos, photos, "--out", "a.JSON"), "--format json > a.JSON", 2),
        (("leaks", photos, "gone"), "no file or folder gone", 1),
    ):
        assert _run(*words) == code
        printed = capsys.readouterr()
        assert message in printed.err.splitlines()[-1]
        assert printed.out == ""
        assert not Path("dedup-report/groups.json").exists()


def test_lists_what_cannot_be_looked_at_any_more(photos: Path) -> None:
    assert _run("dedup", photos, "--threshold", "1.9", "--quiet") == 0
    assert _run("dedup", photos, "--max-pixels", 10_000, "--quiet") == 0
    lines = Path("dedup-report/skipped.jsonl").read_text("utf-8").splitlines()
    reasons = {row["name"]: row["reason"] for row in map(json.loads, lines)}
    assert reasons["photos/cat.jpg"] == "unreadable_file"


def test_does_nothing_without_yes(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(photos.iterdir())
    assert _run("dedup", photos, "--action", "move", "--to", "spare") == 0
    assert "would be moved: 1, left: 0; to do it, add --yes" in capsys.readouterr().err
    assert sorted(photos.iterdir()) == before
    assert not Path("spare").exists()
    assert _run("dedup", photos, "--action", "hardlink") == 0
    assert "other bytes than the kept one" in capsys.readouterr().err


def test_moves_what_is_spare_with_yes(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("dedup", photos, "--action", "move", "--to", "spare", "--yes")
    assert _run(*words) == 0
    assert "moved: 1, left: 0; see dedup-report/journal.jsonl" in capsys.readouterr().err
    assert sorted(path.name for path in photos.iterdir()) == ["bad.jpg", "cat.jpg", "fig.jpg"]
    done = json.loads(Path("dedup-report/journal.jsonl").read_text().splitlines()[-1])
    assert done["state"] == "done"
    assert read_name("path", done) == str(Path.cwd() / photos / os.fsdecode(b"small-\xe9.jpg"))
    assert _run(*words, "--fail-on-match") == 0


def test_keeps_files_of_a_reference_folder(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("library").mkdir()
    put("fig", Path("library") / "old.jpg", width=300)
    assert _run("dedup", photos, "--reference", "library", "--format", "jsonl") == 0
    groups = [json.loads(line)["members"] for line in capsys.readouterr().out.splitlines()]
    assert [member["path"] for member in groups[1]] == ["library/old.jpg", "photos/fig.jpg"]
    assert groups[1][0]["reason"] == "reference"


@pytest.mark.parametrize("source", ["-", "list0"])
def test_reads_lists_of_files(photos: Path, source: str) -> None:
    names = b"".join(os.fsencode(path) + b"\0" for path in sorted(photos.iterdir()))
    Path("list0").write_bytes(names)
    words = _command("dedup", "--from-file0", source, "--format", "files0", "--quiet")
    done = subprocess.run(words, input=names, capture_output=True, check=True)
    assert done.stdout == b"photos/small-\xe9.jpg\0"
    assert done.stderr == b""


@pytest.mark.parametrize("format_", ["table", "json", "files0"])
def test_ends_quietly_when_nobody_reads_on(photos: Path, format_: str) -> None:
    words = " ".join(_command("dedup", photos, "--format", format_, "--quiet"))
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {words} | true"], capture_output=True)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 1)


def test_keeps_colours_and_talk_out_of_a_pipe(photos: Path) -> None:
    done = subprocess.run(_command("dedup", photos), capture_output=True, check=True)
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"spare" not in done.stdout
    done = subprocess.run(_command("dedup", photos, "--quiet"), capture_output=True, check=True)
    assert done.stderr == b""


_INTERRUPTIBLE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
runpy.run_module("vit4icd", run_name="__main__")
"""


@pytest.mark.slow
def test_stops_at_an_interrupt_and_goes_on(photos: Path, tmp_path: Path) -> None:
    for number in range(300):  # more than two seconds of work, after which names are written
        name = ("brook", "cat", "fig", "wine")[number % 4]
        put(name, photos / f"{number}.jpg", width=200 + number)
    journal = Path("dedup-report/cache")
    words = [sys.executable, "-c", _INTERRUPTIBLE, "dedup", str(photos)]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as child:
        while child.poll() is None and not any(journal.glob("*.partial/names")):
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    if child.returncode == 0:
        pytest.skip("the search was over before it could be stopped")
    assert b"stopped; run the same command to go on" in said
    assert child.returncode == 130
    assert _run("dedup", photos, "--quiet") == 0


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    put("cat", tmp_path / "train" / "cat.jpg")
    put("fig", tmp_path / "train" / "fig.jpg")
    put("cat", tmp_path / "test" / "1.jpg", width=200)
    put("wine", tmp_path / "test" / "2.jpg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("verb", ["dedup", "leaks"])
def test_begins_nothing_for_folders_that_are_not_there(
    verb: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    assert _run(verb, photos, *(["--reference"] if verb == "dedup" else []), "nowhere") == 1
    assert capsys.readouterr().err.endswith("no file or folder nowhere; look at its spelling\n")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.usefixtures("folders")
def test_never_takes_an_empty_folder_for_one_without_leaks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    for words in (("leaks", "empty", "test"), ("leaks", "train", "empty"), ("dedup", "empty")):
        assert _run(*words, "--fail-on-match") == 1
        assert "there is no picture in empty" in capsys.readouterr().err


@pytest.mark.usefixtures("folders")
def test_lists_leaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("leaks", "train", "test", "--fail-on-match") == 11
    printed = capsys.readouterr()
    header, row = printed.out.splitlines()
    assert header.split() == ["test", "training", "verdict", "probability", "score"]
    assert row.split()[:4] == ["test/1.jpg", "train/cat.jpg", "copy", ">.99"]
    assert "leaked: 1 of 2 test pictures, from 2 training pictures" in printed.err
    assert Path("leaks-report/report.html").exists()
    assert _run("leaks", "train", "test", "--format", "csv", "--verify", "--quiet") == 0
    (fields,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (fields["query"], fields["reference"]) == ("test/1.jpg", "train/cat.jpg")
    assert float(fields["query_share"]) > 0.9
    for format_ in ("json", "jsonl"):
        assert _run("leaks", "train", "test", "--format", format_, "--quiet") == 0
        found = json.loads(capsys.readouterr().out)
        match = found["matches"][0] if format_ == "json" else found
        assert match["verdict"] == "copy"
    assert _run("leaks", "test", "train", "--threshold", "1.5", "--fail-on-match") == 0
