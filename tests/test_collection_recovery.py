"""Collections after a power cut: what was acknowledged is on the disk, and can be gone back to."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import make_collection, make_model, make_pictures
from vit4icd.cli import main
from vit4icd.collection import Collection, drop_damaged, go_back, newest_whole
from vit4icd.collection import disk as disk_room
from vit4icd.describer import OnnxDescriber
from vit4icd.errors import ConfigError, DataError, FormatError, StoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of which the last commit added 12 pictures to 8."""
    collection, paths = make_collection(tmp_path_factory.mktemp("made"))
    collection.add(paths[:8], id_from="name")
    collection.add(paths[8:], id_from="name")
    return Path(collection.uri)


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """The same, to do with as a test likes."""
    return shutil.copytree(made, tmp_path / "mine")


def _newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def _newest_manifest(place: Path) -> Path:
    return min((place / "_versions").glob("*.manifest"))  # the newest has the least name


CUTS: dict[str, Callable[[Path], object]] = {
    "an empty manifest": lambda place: _newest_manifest(place).write_bytes(b""),
    "an empty file of rows": lambda place: _newest(place / "data").write_bytes(b""),
    "no file of rows": lambda place: _newest(place / "data").unlink(),
}


@pytest.mark.parametrize("cut", CUTS)
def test_goes_back_to_the_newest_whole_version(
    cut: str, place: Path, describer: OnnxDescriber, pictures: Path
) -> None:
    CUTS[cut](place)
    with pytest.raises((StoreError, FormatError), match="vit4icd index recover"):
        Collection.open(place, describer=describer).descriptors()
    before = sorted(place.rglob("*"))
    found = newest_whole(place)
    assert (found.version, found.n_images, list(found.cut), found.lost) == (2, 8, [3], ())
    assert sorted(place.rglob("*")) == before
    with pytest.raises(ConfigError, match="is 2, not 1"):
        go_back(place, 1)
    assert go_back(place, 2) == 4  # and 3, which was cut, is not given again
    assert not newest_whole(place).is_needed
    collection = Collection.open(place, describer=describer)
    assert [record.id for record in collection.list()] == [f"00{n}.jpg" for n in range(8)]
    assert collection.add(pictures, id_from="name").n_added == 12
    assert collection.verify().problems == ()
    assert len(collection) == 20
    (match, *_) = collection.search(pictures / "013.jpg", threshold=-2)[0]
    assert (match.reference, match.verdict) == ("013.jpg", "exact")


def test_leaves_a_whole_collection_alone(place: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    found = newest_whole(place)
    assert (found.version, found.n_images, found.is_needed) == (3, 20, False)
    assert go_back(place, 3) == 3
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_says_when_no_version_is_whole(place: Path) -> None:
    for path in (place / "data").iterdir():
        path.write_bytes(b"")
    before = sorted(place.rglob("*"))
    with pytest.raises(DataError, match="no version .* is whole; bring back a copy"):
        newest_whole(place)
    assert sorted(place.rglob("*")) == before


def test_refuses_what_is_no_collection_on_a_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no collection"):
        newest_whole(tmp_path)
    with pytest.raises(ConfigError, match="index restore"):
        newest_whole("s3://bucket/mine")


SPOILED: dict[str, tuple[Callable[[Path], Path], list[int]]] = {
    "the first file of rows": (lambda place: _file_of(place, 0), [*range(8, 20)]),
    "the last file of rows": (lambda place: _file_of(place, 1), [*range(8)]),
    "a list of deleted rows": (lambda place: _deleted_from(place, 1), [*range(8, 20)]),
}


def _deleted_from(place: Path, number: int) -> Path:
    """Return the newest list of the rows that are deleted from a file, by its number."""
    return max((place / "_deletions").glob(f"{number}-*"), key=lambda p: p.stat().st_mtime_ns)


def _file_of(place: Path, number: int) -> Path:
    """Return the file of rows of the first commit that added, or of the second."""
    files = sorted((place / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return files[1 + number]


@pytest.mark.parametrize("what", SPOILED)
@pytest.mark.parametrize("has_sums", [True, False])
def test_goes_on_without_damaged_files(
    what: str, has_sums: bool, place: Path, describer: OnnxDescriber, pictures: Path
) -> None:
    Collection.open(place, describer=describer).remove(["003.jpg"])
    before = Collection.open(place).info()
    pick, left = SPOILED[what]
    path = pick(place)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    if not has_sums:
        shutil.rmtree(place / "_sums")
    saved = drop_damaged(place)
    assert saved.dropped.keys() <= {path.name for path in (place / "data").iterdir()}
    assert len(saved.dropped) == 1
    ids = {f"{number:03d}.jpg" for number in left} - {"003.jpg"}
    assert (saved.n_images, saved.n_lost) == (len(ids), 19 - len(ids))
    assert saved.version > before.version
    collection = Collection.open(place, describer=describer)
    assert {record.id for record in collection.list()} == ids
    assert collection.verify().problems == ()
    assert collection.add(pictures, id_from="name").n_added == 20 - len(ids)
    assert collection.verify().problems == ()
    again = drop_damaged(place)
    assert (again.n_images, again.n_lost, again.dropped) == (20, 0, {})
    assert again.version == collection.info().version


def test_goes_on_from_the_newest_version_that_opens(
    place: Path, describer: OnnxDescriber, pictures: Path
) -> None:
    opened = Collection.open(place, describer=describer)
    opened.snapshot("all")
    for path in (place / "data").iterdir():
        path.write_bytes(b"")
    CUTS["an empty manifest"](place)
    with pytest.raises(DataError, match=f"index recover {place} --drop-damaged"):
        newest_whole(place)
    saved = drop_damaged(place)
    assert (saved.version > 3, saved.n_images, saved.n_lost) == (True, 0, 8)
    found = newest_whole(place)
    assert (found.is_needed, found.n_images) == (False, 0)
    collection = Collection.open(place, describer=describer)
    assert collection.info().snapshots == ()
    assert collection.add(pictures, id_from="name").n_added == 20


def test_gives_no_snapshot_other_pictures_than_it_held(
    place: Path, describer: OnnxDescriber, pictures: Path
) -> None:
    opened = Collection.open(place, describer=describer)
    opened.snapshot("all")
    assert len(opened.search(pictures / "013.jpg", threshold=-2)[0])  # it holds version 3
    CUTS["an empty manifest"](place)
    found = newest_whole(place)
    assert (list(found.cut), found.lost) == ([3], ("all",))
    go_back(place, found.version)
    (place / "_refs" / "tags" / "torn.json").write_bytes(b"")
    assert newest_whole(place).lost == ("torn",)
    go_back(place, newest_whole(place).version)
    assert Collection.open(place, describer=describer).info().snapshots == ()
    matches = opened.search(pictures / "013.jpg", k=20, threshold=-2)[0]
    assert {match.reference for match in matches} == {f"00{n}.jpg" for n in range(8)}


def test_says_first_and_does_it_when_told_to(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CUTS["an empty manifest"](place)
    said, codes = [], []
    for words in ([], ["--to", "2"], []):
        with pytest.raises(SystemExit) as ended:
            main(["index", "recover", str(place), *words])
        codes.append(ended.value.code or 0)
        said.append(capsys.readouterr())
    assert codes == [1, 0, 0]
    assert said[0].out.startswith("version 3: ")
    told = [" ".join(one.err.split()) for one in said]
    assert "with 8 pictures; to go back to it and give up what came later: vit4icd" in told[0]
    assert f"index recover {place} --to 2" in told[0]
    assert "holds the 8 pictures of version 2 again, as 4" in told[1]
    assert said[2].out == ""
    assert "is whole: version 4, 8 pictures" in told[2]


def test_does_not_send_back_to_the_empty_beginning(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((place / "data").glob("*.lance"), key=lambda path: path.stat().st_mtime_ns)
    for path in files[1:]:  # the first has no picture
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit) as ended:
        main(["index", "recover", str(place)])
    assert ended.value.code == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "only the empty collection that it was at first is whole" in told
    assert "--drop-damaged" in told
    assert "--to" not in told


def test_notices_that_the_newest_version_is_lost(
    place: Path, describer: OnnxDescriber, pictures: Path
) -> None:
    reader = Collection.open(place, describer=describer)
    newest, older = sorted((place / "_versions").glob("*.manifest"))[:2]
    kept = newest.read_bytes()
    newest.write_bytes(older.read_bytes())
    with pytest.raises(FormatError, match="version 3 of .* is lost.*vit4icd index recover"):
        Collection.open(place)
    assert [*newest_whole(place).cut] == [3]
    newest.unlink()
    with pytest.raises(FormatError, match="version 3 of .* is lost"):
        reader.add(pictures, id_from="name")  # under a number that others know for another version
    assert newest_whole(place).cut == {3: "it is lost"}
    newest.write_bytes(kept)
    assert not newest_whole(place).is_needed
    newest.unlink()
    saved = drop_damaged(place)
    assert (saved.version, saved.n_images, saved.cut) == (4, 8, {3: "it is lost"})
    assert reader.add(pictures, id_from="name").n_added == 12


def test_restores_no_damaged_snapshot(
    place: Path, describer: OnnxDescriber, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = Collection.open(place, describer=describer)
    collection.snapshot("all")
    collection.remove(["003.jpg"])
    path = _file_of(place, 1)
    path.write_bytes(b"")
    drop_damaged(place)
    before = collection.info().version
    with pytest.raises(FormatError, match=f"snapshot 'all' is damaged: .*{path.name}"):
        collection.restore("all")
    assert collection.info().version == before
    (problem,) = collection.verify().problems
    assert "snapshot 'all' is damaged" in problem
    (place / "_refs" / "tags" / "all.json").write_bytes(b"garbage")
    (problem,) = collection.verify().problems
    assert "index recover" in problem
    with pytest.raises(SystemExit, match="1"):
        main(["index", "recover", str(place)])
    told = " ".join(capsys.readouterr().err.split())
    assert f"to let go of those snapshots: vit4icd index recover {place} --to {before}" in told
    assert go_back(place, before) == before + 1
    assert collection.verify().problems == ()


def test_says_what_it_dropped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file_of(place, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit) as ended:
        main(["index", "recover", str(place)])
    assert ended.value.code == 1
    assert f"index recover {place} --drop-damaged" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit, match="0"):
        main(["index", "recover", str(place), "--drop-damaged"])
    said = capsys.readouterr()
    assert said.out == f"file {path.name}: what it has in data is not as it was written\n"
    told = " ".join(said.err.split())
    assert "holds 12 pictures, as version 5; 8 were in 1 damaged file; add theirs again" in told
    assert "12 pictures in 2 files, 0 problems" in told
    with pytest.raises(SystemExit, match="2"):
        main(["index", "recover", str(place), "--to", "3", "--drop-damaged"])


def test_flushes_the_folders_that_lead_to_a_new_collection(
    describer: OnnxDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(disk_room, "flush", flushed.append)
    place = tmp_path / "new" / "mine"
    Collection.create(place, describer=describer)
    for path in (tmp_path, *(p for p in (tmp_path / "new").rglob("*") if p.name[0] != "l")):
        assert path in flushed, path


_CHILD = """
import os, sys
from pathlib import Path
from vit4icd.collection import Collection, writing
from vit4icd.describer import load_describer

writing._COMMIT_ROWS = 4
place, model, pictures = map(Path, sys.argv[1:])
collection = Collection.create(place, describer=load_describer(model, n_threads=1))
paths = sorted(pictures.iterdir())
collection.add(paths[:10], id_from="name")
os.write(1, b"DONE 10")
collection.remove(["001.jpg", "002.jpg"])
os.write(1, b"DONE 8")
collection.add(paths[10:], id_from="name", regions=True)
collection.snapshot("kept")
os.write(1, b"DONE 18")
"""
_CALLS = (
    "openat,open,creat,write,pwrite64,writev,ftruncate,fallocate,copy_file_range,rename,renameat,"
    "renameat2,link,linkat,unlink,unlinkat,fsync,fdatasync,mkdir,mkdirat"
)


def _calls(trace: Path) -> Iterator[tuple[str, str]]:
    """Yield the calls that succeeded, whole, with what they were given and gave."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        thread, text = line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            text = begun.pop(thread, "") + resumed[1]
        if (call := re.match(r"(\w+)\((.*)", text)) and " = -1 E" not in text:
            yield call[1], call[2]


class _Disk:
    """What a power cut would leave of a folder, by the calls that changed it.

    Those are the files whose bytes were flushed after they were last written, and whose names, up
    to the folder, are in folders that were flushed after they got them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[Path, list[bool]] = {}  # bytes, flushed or not, shared by their names
        self.folders: set[Path] = set()
        self.names: set[Path] = set()  # that are flushed

    def survivors(self) -> set[Path]:
        return {path for path, flushed in self.content.items() if flushed[0] and self._found(path)}

    def _found(self, path: Path) -> bool:
        ways = (way for way in (path, *path.parents) if self.root in way.parents)
        return self.names.issuperset(ways)

    def see(self, call: str, text: str) -> None:
        quoted = [Path(name) for name in re.findall(r'"(/[^"]*)"', text)]
        opened = [Path(name) for name in re.findall(r"\d+<(/[^>]*)>", text)]
        if call in ("openat", "open", "creat"):
            if "O_CREAT" in text and self.root in opened[-1].parents:
                self.content.setdefault(opened[-1], [True])
        elif call.startswith("mkdir"):
            self.folders.add(quoted[0])
        elif call.startswith(("rename", "link")):
            self._name(*quoted[:2], keep=call.startswith("link"))
        elif call.startswith("unlink"):
            self.content.pop(quoted[0], None)
        elif call in ("fsync", "fdatasync"):
            self.names |= {p for p in (*self.content, *self.folders) if p.parent == opened[0]}
            self.content.get(opened[0], [False])[0] = True
        else:
            for path in opened:
                self.content.get(path, [False])[0] = False

    def _name(self, old: Path, new: Path, *, keep: bool) -> None:
        if old in self.content:
            self.content[new] = self.content[old] if keep else self.content.pop(old)
            self.names.discard(new)


@pytest.mark.slow
def test_keeps_what_it_acknowledged_through_a_power_cut(tmp_path: Path) -> None:
    if (strace := shutil.which("strace")) is None:
        pytest.skip("strace is not installed: what reaches the disk is not watched")
    model = make_model(tmp_path / "model")
    make_pictures(tmp_path / "pictures", 20)
    root, trace = tmp_path / "root", tmp_path / "trace"
    root.mkdir()
    words = [strace, "-f", "-y", "-s", "200", "-e", f"trace={_CALLS}", "-o", str(trace)]
    child = [
        sys.executable,
        "-c",
        _CHILD,
        str(root / "mine"),
        str(model),
        str(tmp_path / "pictures"),
    ]
    done = subprocess.run([*words, *child], capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr:
        pytest.skip(f"strace may not watch here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    disk, seen = _Disk(root), []
    for call, text in _calls(trace):
        disk.see(call, text)
        if call != "write" or not (acknowledged := re.search(r"DONE (\d+)", text)):
            continue
        n_images = int(acknowledged[1])
        after = tmp_path / f"after-{n_images}"
        for path in disk.survivors():
            copy = after / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        collection = Collection.open(after / "mine", model=model)
        assert collection.verify().problems == ()
        assert len(collection) == n_images
        seen.append(n_images)
    assert seen == [10, 8, 18]
