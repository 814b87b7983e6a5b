"""Descriptors that are being made: a journal that survives a kill, turned into HDF5 at the end.

Beside ``X.h5`` stands the folder ``X.h5.partial`` with ``config.json``, ``names`` (a JSON string a
line) and ``vectors`` (raw float32 rows). Vectors are flushed before the names that vouch for them,
so a name stands for a whole vector; whatever a kill left half-written is cut off when the journal
is opened again.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32

from vit4icd.errors import MismatchError
from vit4icd.storage.descriptors import write_descriptors
from vit4icd.storage.files import read_json, sole_writer, write_json
from vit4icd.types import DescriptorSet

__all__ = ["DescriptorWriter"]


class DescriptorWriter:
    """Appends descriptors durably; leaving it without :meth:`finish` keeps the journal.

    ``done`` holds the names already described, by this run or an earlier one.

    Raises:
        MismatchError: the journal is of another model or other options.
        StoreError: another run is writing it.
    """

    def __init__(
        self, path: Path, *, dim: int, fingerprint: str, config: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.dim, self.fingerprint = path, dim, fingerprint
        self.config = dict(config or {})
        self.folder = path.with_name(path.name + ".partial")
        with ExitStack() as held:
            held.enter_context(sole_writer(self.folder))
            self._claim()
            self.names = self._recover()
            self.done = set(self.names)
            self._names = held.enter_context((self.folder / "names").open("ab"))
            self._vectors = held.enter_context((self.folder / "vectors").open("ab"))
            self._held = held.pop_all()

    def __enter__(self) -> "DescriptorWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, names: Sequence[str], vectors: Float32[np.ndarray, "image dim"]) -> None:
        """Add images and their descriptors; when it returns, they survive a kill."""
        assert vectors.shape == (len(names), self.dim)
        self._vectors.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        _flush(self._vectors)
        lines = "".join(json.dumps(name) + "\n" for name in names)
        self._names.write(lines.encode("ascii"))
        _flush(self._names)
        self.names.extend(names)
        self.done.update(names)

    def finish(self, order: Sequence[str] | None = None) -> DescriptorSet:
        """Write the HDF5 file, in the order of names if one is given, and drop the journal."""
        self._names.close()
        self._vectors.close()
        vectors = self._read_vectors()
        names = self.names
        if order is not None:
            row = {name: index for index, name in enumerate(self.names)}
            names = [name for name in order if name in row]
            vectors = vectors[[row[name] for name in names]]
        result = DescriptorSet(ids=names, vectors=vectors, fingerprint=self.fingerprint)
        write_descriptors(self.path, result, config=self.config)
        shutil.rmtree(self.folder)
        self.close()
        return result

    def close(self) -> None:
        """Close the journal; it can be opened again."""
        self._held.close()

    def _claim(self) -> None:
        claim = {"dim": self.dim, "fingerprint": self.fingerprint, "config": self.config}
        if (self.folder / "config.json").exists():
            found = read_json(self.folder / "config.json")
            if found != claim:
                raise MismatchError(
                    f"{self.folder} was begun with other options ({_difference(found, claim)}); "
                    "use those, or remove the folder to begin anew"
                )
            return
        for rows in ("names", "vectors"):  # of nobody knows what
            (self.folder / rows).unlink(missing_ok=True)
        write_json(self.folder / "config.json", claim)

    def _recover(self) -> list[str]:
        """Cut off what a kill left half-written and return the names of the whole rows."""
        stored, sizes = self.folder / "names", self.folder / "vectors"
        data = stored.read_bytes() if stored.exists() else b""
        n_vectors = sizes.stat().st_size // (4 * self.dim) if sizes.exists() else 0
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)[:n_vectors]
        for file, size in ((stored, sum(map(len, lines))), (sizes, 4 * self.dim * len(lines))):
            if file.exists():
                os.truncate(file, size)
        return [json.loads(line) for line in lines]

    def _read_vectors(self) -> Float32[np.ndarray, "image dim"]:
        if not self.names:
            return np.empty((0, self.dim), np.float32)
        return np.memmap(self.folder / "vectors", np.float32, "r", 0, (len(self.names), self.dim))


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}: {found.get(key)!r} there, {wanted.get(key)!r} here"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    )


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
