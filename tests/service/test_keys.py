"""Keys: kept as hashes, compared in constant time, read from a file of nothing but keys."""

import hmac
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import bearer
from vit4icd.errors import ConfigError
from vit4icd.service import read_keys


def test_keeps_hashes_of_keys_and_not_the_keys(keys: dict[str, str], tmp_path: Path) -> None:
    text = (tmp_path / "keys.txt").read_text()
    known = read_keys(tmp_path / "keys.txt")
    for scope, key in keys.items():
        assert key not in text
        found = known.find(key)
        assert found is not None
        assert found.scope == scope
        assert known.find(key[:-1]) is None
    assert known.find("") is None


@pytest.mark.parametrize("text", ["", "# none\n", "admin sha256:12\n", "root sha256:" + "0" * 64])
def test_refuses_files_that_hold_no_keys(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(text)
    with pytest.raises(ConfigError, match="--make-key"):
        read_keys(tmp_path / "keys.txt")


def test_compares_each_of_the_keys_in_constant_time_however_one_comes(
    guarded: TestClient, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever key it is, and whether it is one: all are compared, so the time tells nothing."""
    known = {key.digest for key in read_keys(tmp_path / "keys.txt").known}
    compared: list[set[Any]] = []
    genuine = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append({one, other})
        return genuine(one, other)

    def require_all_compared() -> None:
        assert sum(not known.isdisjoint(pair) for pair in compared) == len(known)
        compared.clear()

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in ("v4i_wrong", *keys.values()):
        guarded.cookies.clear()
        guarded.get("/v1/collections", headers=bearer(key))
        require_all_compared()
        guarded.get("/v1/collections", auth=("anybody", key))
        require_all_compared()
        guarded.post("/login", data={"key": key}, follow_redirects=False)
        require_all_compared()
    assert guarded.get("/v1/collections").status_code == 200  # by the cookie of the last login
    require_all_compared()
