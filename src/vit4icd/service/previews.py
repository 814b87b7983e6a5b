"""Small JPEGs of pictures, by content: what the page shows; a collection itself keeps no pixels."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from vit4icd.errors import ImageError, StoreError
from vit4icd.images import read_image, resize
from vit4icd.service.database import Database
from vit4icd.service.turns import Turns
from vit4icd.storage import atomic_path

__all__ = ["PREVIEWS", "PREVIEW_SIDE", "Previews", "encode_jpeg", "held_as", "holder_of", "shrink"]

PREVIEWS = "previews"
"""What their folder is called in a service's folder."""

PREVIEW_SIDE = 1_024
"""Pixels of a preview's long side, at most."""

_QUALITY = 85
_SHA256 = re.compile(r"[0-9a-f]{64}")

Image = UInt8[np.ndarray, "_ _ 3"]


class Previews:
    """A folder of previews, and who holds them.

    ``pictures`` names the folder below which the sources of references may be opened, to show those
    that were added without the service; None opens nothing. ``on_replaced`` is told which holder
    has another picture from now on, and the SHA-256 of the one before.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        *,
        pictures: Path | None,
        max_pixels: int,
        on_replaced: Callable[[bytes, str], None] = lambda holder, sha256: None,
    ) -> None:
        self._folder, self._database, self._max_pixels = folder, database, max_pixels
        self._pictures = None if pictures is None else pictures.resolve()
        self._turns, self._on_replaced = Turns(), on_replaced

    def keep(self, data: bytes, sha256: str) -> None:
        """Make the preview of a picture of this SHA-256, unless there is one.

        Raises:
            ImageError: no readable picture.
            StoreError: the preview cannot be written, as on a full disk.
        """
        path = self._path(sha256)
        if not path.exists():
            with self._turns.taken(data):
                image = read_image(data, max_pixels=self._max_pixels, at_least=PREVIEW_SIDE)
                image = shrink(image, PREVIEW_SIDE)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as temporary:
                    temporary.write_bytes(encode_jpeg(image))
            except OSError as error:
                raise StoreError(f"{path.parent} cannot be written: {error.strerror}") from error

    def hold(
        self, wanted: Mapping[bytes, str], stored: Callable[[], Mapping[bytes, str]]
    ) -> set[bytes]:
        """Note which pictures, by SHA-256, are held by whom; return who does hold the wanted one.

        ``stored`` tells which picture each has now: who has another since, or none, holds nothing
        new. It is asked when nobody else can write, so what was stored last is held in the end.
        What a holder held before goes, unless somebody else needs it.
        """
        replaced: dict[bytes, str] = {}
        with self._database.writing() as connection:
            now = stored()
            held = {holder for holder, sha256 in wanted.items() if now.get(holder) == sha256}
            for holder in held:
                before = self.held_by(holder)
                if before not in (None, wanted[holder]):
                    replaced[holder] = str(before)
                connection.execute(
                    "INSERT OR REPLACE INTO holders VALUES (?, ?)", (holder, wanted[holder])
                )
        for holder, sha256 in replaced.items():
            self._on_replaced(holder, sha256)
            self.sweep(sha256)
        return held

    def read(self, sha256: str) -> bytes | None:
        """Return a preview, if there is one."""
        if not _SHA256.fullmatch(sha256):
            return None
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def held_by(self, holder: bytes) -> str | None:
        """Return which picture somebody holds."""
        rows = self._database.read("SELECT sha256 FROM holders WHERE holder = ?", (holder,))
        return str(rows[0][0]) if rows else None

    def from_source(self, source: str, sha256: str) -> bytes | None:
        """Return the preview of a reference's own file, if it may be opened and is still the same.

        The file must lie, links resolved, below the folder of pictures.
        """
        if self._pictures is None or not source:
            return None
        try:
            path = Path(source).resolve(strict=True)
            if not path.is_relative_to(self._pictures) or not path.is_file():
                return None
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                return None
            self.keep(data, sha256)
            return self.read(sha256)
        except (OSError, ValueError, ImageError, StoreError):
            return None

    def release(self, holder: bytes, is_gone: Callable[[], bool]) -> None:
        """Drop a holder that is gone, and the preview that nobody needs any more.

        Like ``stored`` of :meth:`hold`, ``is_gone`` is asked when nobody else can write.
        """
        with self._database.writing() as connection:
            if not is_gone():  # somebody added it again meanwhile
                return
            sha256 = self.held_by(holder)
            connection.execute("DELETE FROM holders WHERE holder = ?", (holder,))
        if sha256 is not None:
            self.sweep(sha256)

    def sweep(self, sha256: str) -> None:
        """Delete a preview that no reference, finding or decision needs."""
        needs = self._database.read(
            "SELECT 1 FROM holders WHERE sha256 = :it "
            "UNION ALL SELECT 1 FROM findings WHERE query = :it OR reference = :it "
            "UNION ALL SELECT 1 FROM decisions WHERE query = :it OR reference = :it LIMIT 1",
            {"it": sha256},
        )
        if not needs and _SHA256.fullmatch(sha256):
            self._path(sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.jpg"


def holder_of(collection: str, id_: str) -> bytes:
    """Return what a reference holds its preview as."""
    return b"\0".join((collection.encode(), id_.encode("utf-8", "surrogateescape")))


def held_as(holder: bytes) -> tuple[str, str]:
    """Return the collection and the id of a reference that holds a preview."""
    collection, _, id_ = holder.partition(b"\0")
    return collection.decode(), id_.decode("utf-8", "surrogateescape")


def shrink(image: Image, side: int) -> Image:
    """Return a picture whose long side has so many pixels at most."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale == 1.0:
        return image
    return resize(image, max(1, round(width * scale)), max(1, round(height * scale)))


def encode_jpeg(image: Image) -> bytes:
    """Return a picture as JPEG."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=_QUALITY)
    return data
