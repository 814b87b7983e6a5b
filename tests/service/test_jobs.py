"""Bulk additions: taken at once, done later, gone on with after a stop."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from tests.service.conftest import Serving, search, until

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


def _finished(client: TestClient, location: str) -> dict[str, Any]:
    until(lambda: client.get(location).json()["state"] in ("done", "failed"))
    found: dict[str, Any] = client.get(location).json()
    return found


def test_adds_the_pictures_of_a_tar(client: TestClient, pictures: list[Path]) -> None:
    members = {f"./a/{path.name}": path.read_bytes() for path in pictures}
    members |= {"notes.txt": b"no picture", "../../escape.jpg": pictures[0].read_bytes()}
    taken = client.post(PATH, content=_tar(members), headers=TAR)
    assert taken.status_code == 202
    job = _finished(client, taken.headers["location"])
    assert (job["state"], job["n_done"], job["n_stored"], job["n_skipped"]) == ("done", 8, 7, 1)
    assert job["skipped"][0] == {
        "id": "notes.txt",
        "reason": "unsupported_format",
        "message": job["skipped"][0]["message"],
    }
    found = search(client, pictures[2].read_bytes()).json()["matches"]
    assert found[0]["reference"] == "a/002.jpg"
    again = client.post(PATH, content=_tar(members), headers=TAR)
    assert _finished(client, again.headers["location"])["n_unchanged"] == 7
    folder = client.app.state.service.config.folder  # type: ignore[attr-defined]
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


def test_clears_away_what_a_kill_left_of_an_upload(serving: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "collection.service" / "jobs"
    with serving():
        pass
    old, new = folder / "old.tar", folder / "new.tar"
    for path in (old, new):
        path.write_bytes(b"half a t")
    os.utime(old, (0, 0))
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
