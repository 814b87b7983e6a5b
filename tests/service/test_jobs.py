"""Bulk additions: taken at once, done later, gone on with after a stop."""

import hashlib
import io
import os
import sqlite3
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import Serving, search, until
from vit4icd.errors import StoreError
from vit4icd.service import database
from vit4icd.service.database import Database
from vit4icd.service.findings import Findings
from vit4icd.service.jobs import Job, Jobs
from vit4icd.service.library import Added, Adding, New
from vit4icd.service.uploads import Limits

PATH = "/v1/collections/mine/jobs"
TAR = {"Content-Type": "application/x-tar"}


def _tar(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return sink.getvalue()


def _read(pictures: list[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in pictures}


def _jobs(client: TestClient) -> Jobs:
    jobs: Jobs = client.app.state.service.jobs  # type: ignore[attr-defined]
    return jobs


def _database(client: TestClient) -> sqlite3.Connection:
    database = client.app.state.service.database  # type: ignore[attr-defined]
    connection: sqlite3.Connection = database._connection
    return connection


def _finished(client: TestClient, location: str) -> dict[str, Any]:
    until(lambda: client.get(location).json()["state"] in ("done", "failed"))
    found: dict[str, Any] = client.get(location).json()
    return found


def test_adds_the_pictures_of_a_tar(client: TestClient, pictures: list[Path]) -> None:
    members = {f"./a/{path.name}": path.read_bytes() for path in pictures}
    members |= {"notes.txt": b"no picture", "../../escape.jpg": pictures[0].read_bytes()}
    members[f"{'x' * 1_024}.jpg"] = pictures[0].read_bytes()  # none could remove it again
    taken = client.post(PATH, content=_tar(members), headers=TAR)
    assert taken.status_code == 202
    job = _finished(client, taken.headers["location"])
    assert (job["state"], job["n_done"], job["n_stored"], job["n_skipped"]) == ("done", 9, 7, 2)
    held = client.app.state.service  # type: ignore[attr-defined]
    assert job["basis"]["collection"] == "mine"
    assert job["basis"]["fingerprint"] == held.describer.fingerprint
    assert job["skipped"][0] == {
        "id": "notes.txt",
        "reason": "unsupported_format",
        "message": job["skipped"][0]["message"],
    }
    assert job["skipped"][1]["reason"] == "invalid_request"
    found = search(client, pictures[2].read_bytes()).json()["matches"]
    assert found[0]["reference"] == "a/002.jpg"
    again = client.post(PATH, content=_tar(members), headers=TAR)
    assert _finished(client, again.headers["location"])["n_unchanged"] == 7
    folder = held.config.folder
    until(lambda: not list((folder / "jobs").iterdir()))
    assert not (folder.parent / "escape.jpg").exists()


def test_goes_on_after_a_stop(serving: Serving, pictures: list[Path]) -> None:
    members = {path.name: path.read_bytes() for path in pictures}
    with serving() as client:
        held = client.app.state.service  # type: ignore[attr-defined]
        held.jobs.close()  # as if the service were stopped before it came to this job
        location = client.post(PATH, content=_tar(members), headers=TAR).headers["location"]
        assert client.get(location).json()["state"] == "waiting"
    with serving() as client:
        assert _finished(client, location)["n_stored"] == 6


def test_keeps_over_a_stop_that_parts_are_wanted(serving: Serving, pictures: list[Path]) -> None:
    with serving() as client:
        held = client.app.state.service  # type: ignore[attr-defined]
        held.jobs.close()
        taken = client.post(f"{PATH}?regions=true", content=_tar(_read(pictures)), headers=TAR)
        assert taken.json()["regions"] is True
    with serving() as client:
        assert _finished(client, taken.headers["location"])["n_stored"] == 6
        held = client.app.state.service  # type: ignore[attr-defined]
        assert held.library.first.collection.info().n_parts == 54


def test_gives_a_job_back_when_it_stops(
    serving: Serving, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(adding: Adding, items: Sequence[New]) -> list[Added | Exception]:
        held.jobs._closing.set()
        return run(adding, items)

    run = Adding.run
    monkeypatch.setattr("vit4icd.service.jobs._BATCH", 2)
    with serving() as client:
        held = client.app.state.service  # type: ignore[attr-defined]
        monkeypatch.setattr(Adding, "run", last)
        location = client.post(PATH, content=_tar(_read(pictures)), headers=TAR).headers["location"]
        until(lambda: client.get(location).json()["n_stored"] == 2)
        until(lambda: client.get(location).json()["state"] == "waiting")
    monkeypatch.setattr(Adding, "run", run)
    with serving() as client:
        job = _finished(client, location)
        assert (job["n_stored"], job["n_unchanged"]) == (4, 2)


def test_leaves_a_job_to_the_process_that_works_on_it(
    serving: Serving, pictures: list[Path]
) -> None:
    with serving() as client, serving() as other:
        first, second = _jobs(client), _jobs(other)
        for jobs in (first, second):
            jobs.close()  # their threads; what they do is done here
        location = client.post(PATH, content=_tar(_read(pictures)), headers=TAR).headers["location"]
        job = first.get(location.rpartition("/")[2])
        assert first._claim(job)
        assert other.get(location).json()["state"] == "running"
        assert not second._claim(job)
        assert not second._keep(job)
        _database(client).execute("UPDATE jobs SET beat = beat - 61")
        assert second._claim(job)
        assert not first._claim(job)
        assert not first._keep(job)  # so the first, should it live after all, lets go


@pytest.mark.parametrize(("silent_s", "state"), [(30, "running"), (61, "done")])
def test_takes_over_only_what_was_long_silent(
    serving: Serving, pictures: list[Path], silent_s: int, state: str
) -> None:
    with serving() as client:
        _jobs(client).close()
        taken = client.post(PATH, content=_tar(_read(pictures)), headers=TAR)
        _database(client).execute(
            "UPDATE jobs SET state = 'running', owner = 'other', beat = ?",
            (time.time() - silent_s,),
        )
    with serving() as client:
        sent = client.post(PATH, content=_tar(_read(pictures)), headers=TAR)  # comes after it
        assert _finished(client, sent.headers["location"])["state"] == "done"
        assert client.get(taken.headers["location"]).json()["state"] == state


def test_shows_life_during_a_long_batch(
    serving: Serving, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit4icd.service.jobs._BEAT_S", 0.05)
    beats: set[float] = set()

    def slow(adding: Adding, items: Sequence[New]) -> list[Added | Exception]:
        def is_later() -> bool:
            ((beat,),) = held.database.read("SELECT beat FROM jobs")
            beats.add(beat)
            return len(beats) > 2

        until(is_later)
        return run(adding, items)

    run = Adding.run
    monkeypatch.setattr(Adding, "run", slow)
    with serving() as client:
        held = client.app.state.service  # type: ignore[attr-defined]
        location = client.post(PATH, content=_tar(_read(pictures)), headers=TAR).headers["location"]
        assert _finished(client, location)["n_stored"] == 6


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (sqlite3.OperationalError("disk I/O error"), "OperationalError: disk I/O error"),
    ],
)
def test_fails_one_job_and_goes_on_with_the_next(
    client: TestClient,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def failing(adding: Adding, items: Sequence[New]) -> list[Added | Exception]:
        monkeypatch.setattr(Adding, "run", run)
        raise error

    run = Adding.run
    monkeypatch.setattr(Adding, "run", failing)
    tar = _tar(_read(pictures))
    first, second = (client.post(PATH, content=tar, headers=TAR).headers["location"] for _ in "12")
    failed = _finished(client, first)
    assert (failed["state"], failed["error"]) == ("failed", reason)
    assert _finished(client, second)["n_stored"] == 6


def test_tries_again_when_the_collection_can_be_reached_again(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(adding: Adding, items: Sequence[New]) -> list[Added | Exception]:
        monkeypatch.setattr(Adding, "run", run)
        raise StoreError("others keep writing")

    run = Adding.run
    monkeypatch.setattr(Adding, "run", failing)
    location = client.post(PATH, content=_tar(_read(pictures)), headers=TAR).headers["location"]
    until(lambda: client.get(location).json()["error"] is not None)
    job = client.get(location).json()
    assert (job["state"], job["error"]) == ("running", "others keep writing; this is tried again")
    monkeypatch.setattr("vit4icd.service.jobs._GONE_S", 0.0)  # as if a minute had passed
    _jobs(client)._wake.set()
    job = _finished(client, location)
    assert (job["state"], job["n_stored"], job["error"]) == ("done", 6, None)


def test_does_not_take_a_picture_for_done_whose_preview_cannot_be_written(
    client: TestClient, pictures: list[Path]
) -> None:
    previews = client.app.state.service.config.folder / "previews"  # type: ignore[attr-defined]
    previews.write_bytes(b"")  # a file where a folder belongs
    location = client.post(PATH, content=_tar(_read(pictures)), headers=TAR).headers["location"]
    until(lambda: client.get(location).json()["error"] is not None)
    job = client.get(location).json()
    assert (job["state"], job["n_done"]) == ("running", 0)
    assert "previews" in job["error"]


def test_works_on_when_the_table_can_be_read_again(
    client: TestClient, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(jobs: Jobs, job: Job) -> bool:
        monkeypatch.setattr(Jobs, "_claim", claim)
        raise sqlite3.OperationalError("database is locked")

    claim = Jobs._claim
    monkeypatch.setattr("vit4icd.service.jobs._BEAT_S", 0.05)
    monkeypatch.setattr(Jobs, "_claim", failing)
    location = client.post(PATH, content=_tar(_read(pictures)), headers=TAR).headers["location"]
    _jobs(client)._wake.set()
    assert _finished(client, location)["n_stored"] == 6


def test_fails_where_a_tar_is_damaged_and_says_where(
    client: TestClient, pictures: list[Path]
) -> None:
    tar = bytearray(_tar(_read(pictures)))
    place = tar.index(b"003.jpg")
    tar[place] ^= 1
    job = _finished(client, client.post(PATH, content=bytes(tar), headers=TAR).headers["location"])
    assert (job["state"], job["n_done"]) == ("failed", 0)
    assert job["error"] == f"it is damaged, or cut off, at byte {place}"


def test_lets_the_later_picture_of_an_id_stay(
    serving: Serving, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = pictures[1].read_bytes()
    monkeypatch.setattr("vit4icd.service.jobs.is_heavy", lambda data: data == heavy)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, path in (("a.jpg", pictures[0]), ("a.jpg", pictures[1]), ("b.jpg", pictures[2])):
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
    with serving() as client:
        taken = client.post(PATH, content=tar.getvalue(), headers=TAR)
        assert _finished(client, taken.headers["location"])["n_stored"] == 3
        image = client.get("/v1/collections/mine/images/a.jpg").json()["image"]
        assert image["sha256"] == hashlib.sha256(heavy).hexdigest()


def test_takes_what_is_there_already_whatever_its_size(
    serving: Serving, pictures: list[Path]
) -> None:
    with serving() as client:
        held = client.app.state.service  # type: ignore[attr-defined]
        held.library.first.collection.add(pictures, id_from="name")
    with serving(limits=Limits(max_pixels=100)) as client:
        taken = client.post(PATH, content=_tar(_read(pictures)), headers=TAR)
        job = _finished(client, taken.headers["location"])
        assert (job["state"], job["n_unchanged"], job["n_skipped"]) == ("done", 6, 0)


def test_refuses_a_member_that_is_too_large(serving: Serving, pictures: list[Path]) -> None:
    data = pictures[0].read_bytes()
    limits = Limits(max_bytes=len(data))
    members = {"whole.jpg": data, "long.jpg": data + b"\0"}  # cut, it would be a good picture
    with serving(limits=limits) as client:
        taken = client.post(PATH, content=_tar(members), headers=TAR)
        job = _finished(client, taken.headers["location"])
        assert (job["n_stored"], job["n_skipped"]) == (1, 1)
        assert (job["skipped"][0]["id"], job["skipped"][0]["reason"]) == ("long.jpg", "too_large")
        message = f"{len(data) + 1} bytes exceed the limit of {len(data)}"
        assert job["skipped"][0]["message"] == message


def test_reads_files_of_the_first_format(tmp_path: Path) -> None:
    path = tmp_path / "review.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(database._SCHEMA_1)
        connection.execute("INSERT INTO jobs VALUES ('a', 'now', 'running', 'mine', '{}')")
        for id_, level in (("low", 0.2), ("high", 0.9)):
            row = (id_, "now", "undecided", "mine", "q r", "q", "r", level, "{}")
            connection.execute("INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    opened = Database(path)
    assert opened.read("SELECT id, owner, beat FROM jobs") == [("a", "", 0.0)]
    queue = Findings(opened).queue("undecided", kind="search")
    assert [(found.id, found.kind) for found in queue.findings] == [
        ("high", "search"),
        ("low", "search"),
    ]
    opened.close()


def test_clears_away_what_a_kill_left_of_an_upload(serving: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "collection.service" / "jobs"
    with serving():
        pass
    old, new = folder / "old.tar", folder / "new.tar"
    for path in (old, new):
        path.write_bytes(b"half a t")
    os.utime(old, (0, 0))
    (folder / "gone.tar").symlink_to("nowhere")  # as one that another process just removed
    with serving():
        until(lambda: not old.exists())
        assert new.exists()  # somebody may be sending it


def test_refuses_what_is_no_tar(client: TestClient) -> None:
    for data in (b"no tar", b"\x1f\x8b\x08 gzip"):
        answer = client.post(PATH, content=data, headers=TAR)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")
    answer = client.post(PATH, content=_tar({}), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    folder = client.app.state.service.config.folder  # type: ignore[attr-defined]
    assert list((folder / "jobs").iterdir()) == []
