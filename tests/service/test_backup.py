"""What a service wrote: copied while it runs, put back whole, and never used once it is damaged."""

import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving, add, search
from vit4icd import cli
from vit4icd.cli.codes import FAILED
from vit4icd.errors import ConfigError, FormatError, StoreError
from vit4icd.service import back_up
from vit4icd.service.database import DATABASE, Database
from vit4icd.service.decisions import Decisions
from vit4icd.service.previews import PREVIEWS
from vit4icd.service.problems import problem_of

N_REJECTED = 40

_CHILD = """
import sys
from pathlib import Path
from vit4icd.service.database import Database
from vit4icd.service.decisions import Decisions
decisions = Decisions(Database(Path(sys.argv[1])))
for number in range(int(sys.argv[2])):
    decisions.add("reject", query=f"later {number}", reference="r")
print("written", flush=True)
sys.stdin.read()
"""


def _backed_up(collection: Path, out: Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", str(collection), "--backup", str(out)])
    return int(ended.value.code or 0)


def _judge(client: TestClient, data: bytes, decision: str) -> None:
    match = search(client, data, review=True).json()["matches"][0]
    made = client.post("/v1/decisions", json={"decision": decision, "match": match["id"]})
    assert made.status_code == 201


def test_restores_what_was_there_when_it_was_backed_up(
    serving: Serving, pictures: list[Path], tmp_path: Path
) -> None:
    first, second = (path.read_bytes() for path in pictures[:2])
    out = tmp_path / "copies" / "monday"
    with serving() as client:
        add(client, first, "a")
        add(client, second, "b")
        _judge(client, first, "reject")
        assert _backed_up(tmp_path / "collection", out) == 0  # while the service runs
        _judge(client, second, "reject")
    assert not (out / "secret").exists()
    with serving(data=out) as client:
        assert client.get("/v1/decisions").json()["decisions"][0]["decision"] == "reject"
        found = search(client, first).json()
        assert (found["matches"], found["n_rejected"]) == ([], 1)
        (match,) = search(client, second).json()["matches"]
        assert client.get(f"/v1/images/{match['picture']}/thumbnail").status_code == 200


def _rejecting(path: Path, n_decisions: int) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), str(n_decisions)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    return child


def _killed(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder whose service was killed after 400 decisions, and beside it a copy of 40."""
    data = tmp_path / "data"
    data.mkdir()
    child = _rejecting(data / DATABASE, N_REJECTED)
    assert back_up(data, tmp_path / "copy") == 0
    _killed(child)
    _killed(_rejecting(data / DATABASE, 10 * N_REJECTED))
    assert (data / f"{DATABASE}-wal").stat().st_size
    return data


def test_takes_the_place_of_a_folder_whose_service_was_killed(killed: Path) -> None:
    killed.rename(killed.with_name("damaged"))
    killed.with_name("copy").rename(killed)
    database = Database(killed / DATABASE)
    rejected = Decisions(database).rejected("r")
    database.close()
    assert rejected == {f"later {number}" for number in range(N_REJECTED)}


def test_does_not_open_a_file_beside_the_log_of_another(killed: Path) -> None:
    shutil.copy(killed.with_name("copy") / DATABASE, killed / DATABASE)
    with pytest.raises(FormatError, match=r"review\.sqlite is damaged.* put a copy in the place"):
        Database(killed / DATABASE)


def _with_decisions(folder: Path) -> Path:
    folder.mkdir()
    path = folder / DATABASE
    database = Database(path)
    decisions = Decisions(database)
    for number in range(200):
        decisions.add("reject", query=f"q{number}", reference="r")
    database.read("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


def _damage(path: Path) -> None:
    """Overwrite the middle of every page, as a broken disk might."""
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)


def test_refuses_to_serve_and_to_copy_damaged_decisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _with_decisions(tmp_path / "any.service")
    _damage(path)
    with pytest.raises(FormatError, match="is damaged"):
        Database(path)
    assert _backed_up(tmp_path / "any", tmp_path / "copy") == FAILED
    assert "is damaged" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["any.service"]


def test_tells_damage_that_comes_while_it_serves(tmp_path: Path) -> None:
    path = _with_decisions(tmp_path / "data")
    database = Database(path)
    database.read("PRAGMA shrink_memory")  # which has it read the file again
    _damage(path)
    with pytest.raises(FormatError) as caught:
        Decisions(database).rejected("r")
    assert problem_of(caught.value).code == "damaged"
    database.close()


def test_lets_through_what_breaks_a_rule_of_the_tables(tmp_path: Path) -> None:
    database = Database(tmp_path / DATABASE)
    with pytest.raises(sqlite3.IntegrityError), database.writing() as connection:
        connection.execute("INSERT INTO decisions (at) VALUES ('now')")
    database.close()


def test_copies_nothing_over_anything(tmp_path: Path) -> None:
    path = _with_decisions(tmp_path / "data")
    (tmp_path / "copy").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        back_up(path.parent, tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"holds no review\.sqlite"):
        back_up(tmp_path, tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        back_up(path.parent, tmp_path / "file" / "other")


def test_says_of_one_picture_that_its_preview_cannot_be_written(
    client: TestClient, pictures: list[Path], tmp_path: Path
) -> None:
    previews = tmp_path / "collection.service" / PREVIEWS
    previews.write_bytes(b"")  # a file where a folder belongs: nothing can be written below it
    answer = add(client, pictures[0].read_bytes(), "a")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["Retry-After"]
    answer = search(client, pictures[0].read_bytes(), review=True)
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert search(client, pictures[0].read_bytes()).status_code == 200
    previews.unlink()
    answer = add(client, pictures[0].read_bytes(), "a")  # as Retry-After asks
    assert (answer.status_code, answer.json()["outcome"]) == (200, "unchanged")
    picture = answer.json()["picture"]
    assert client.get(f"/v1/images/{picture}/thumbnail").status_code == 200


def test_says_that_an_archive_cannot_be_written(client: TestClient, tmp_path: Path) -> None:
    jobs = tmp_path / "collection.service" / "jobs"
    jobs.rmdir()
    answer = client.post(
        "/v1/collections/mine/jobs", content=b"any", headers={"Content-Type": "application/x-tar"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
