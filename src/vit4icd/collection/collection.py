"""A persistent set of references: add, remove, search, and look after it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from vit4icd.collection.adding import Adding, AddProgress, AddSummary
from vit4icd.collection.checking import Verification, require_restorable, verify
from vit4icd.collection.identity import Info, identity_of, info_of, require_own
from vit4icd.collection.memory import Memory
from vit4icd.collection.pictures import IdFrom, Images, Pictures
from vit4icd.collection.records import RECORD_COLUMNS, Record, encode, records_in
from vit4icd.collection.searching import Answer, Searching
from vit4icd.collection.table import KEPT_FOR, Table
from vit4icd.describer import OnnxDescriber, load_describer
from vit4icd.errors import ConfigError, DataError, ImageError, MismatchError
from vit4icd.images import MAX_PIXELS
from vit4icd.matches import Match
from vit4icd.thresholds import Threshold
from vit4icd.types import DescriptorSet

__all__ = ["Collection"]

_DELETED, _LOOKED_UP = 500, 4_096  # ids of one commit, and of one reading


class Collection:
    """References on disk or in an object store, described by one model, that can be searched.

    Any number of processes may read and write it at once. Ids are unique: adding under an id that
    is there replaces the picture, and adding an unchanged picture does nothing.

    Example:
        >>> import tempfile
        >>> from importlib.resources import files
        >>> photographs = Path(str(files("vit4icd.demo") / "photographs"))
        >>> collection = Collection.create(Path(tempfile.mkdtemp()) / "mine")
        >>> pair = [photographs / "cat.jpg", photographs / "wine.jpg"]
        >>> collection.add(pair, id_from="name").n_added
        2
        >>> matches = collection.search(photographs / "cat.jpg")[0]
        >>> matches[0].reference, matches[0].verdict
        ('cat.jpg', 'exact')
    """

    def __init__(self, table: Table, *, describer: OnnxDescriber | None = None) -> None:
        self._table, self._describer = table, describer
        self._memory = Memory(table)
        if describer is not None:
            require_own(table, describer)

    @classmethod
    def create(
        cls, uri: str | Path, *, model: Path | None = None, describer: OnnxDescriber | None = None
    ) -> "Collection":
        """Make an empty collection, a folder or an object store's address, for a model.

        Raises:
            ConfigError: there is something already.
            StoreError: the place cannot be written.
            FormatError: there is no such model.
        """
        describer = describer or load_describer(model)
        table = Table.create(_uri(uri), dim=describer.dim, metadata=identity_of(describer))
        return cls(table, describer=describer)

    @classmethod
    def open(
        cls, uri: str | Path, *, model: Path | None = None, describer: OnnxDescriber | None = None
    ) -> "Collection":
        """Open a collection; the model is loaded when a picture is first to be described.

        Raises:
            StoreError: there is none, or it cannot be read.
            FormatError: it is damaged, or of a newer version.
            MismatchError: it was made with another model than the one given.
        """
        if model is not None:
            describer = describer or load_describer(model)
        return cls(Table(_uri(uri)), describer=describer)

    @staticmethod
    def exists(uri: str | Path) -> bool:
        """Return whether there is a collection.

        Raises:
            StoreError: the place is out of reach.
        """
        return Table.exists(_uri(uri))

    def __len__(self) -> int:
        return self._table.seal().n_rows

    def __contains__(self, id_: str) -> bool:
        return id_ in self.find([id_])

    @property
    def uri(self) -> str:
        """Where it is."""
        return self._table.uri

    @property
    def version(self) -> int:
        """Number of the newest version; every commit makes one."""
        return self._table.version

    def newest(self) -> tuple[int, int]:
        """Return the newest version's number, and how many pictures it has, as a search sees it."""
        return (held := self._memory.newest()).version, len(held)

    @property
    def fingerprint(self) -> str:
        """Name of the weights and the preprocessing that describe its pictures."""
        return str(self._table.metadata["fingerprint"])

    @property
    def describer(self) -> OnnxDescriber:
        """The model; the packaged one unless another was given.

        Raises:
            MismatchError: the collection was made with another model.
        """
        if self._describer is None:
            describer = load_describer()
            require_own(self._table, describer)
            self._describer = describer
        return self._describer

    def add(
        self,
        images: Images | Pictures,
        *,
        ids: Sequence[str] | None = None,
        id_from: IdFrom = "path",
        metadata: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        features: bool = True,
        regions: bool = False,
        max_pixels: int = MAX_PIXELS,
        progress: Callable[[AddProgress], None] | None = None,
    ) -> AddSummary:
        """Add pictures: paths (of folders and tar shards too), bytes, Pillow's pictures or arrays.

        Folders and shards that ``Pictures`` has looked up are not looked up again. Pictures are
        stored every few seconds; those that ``progress`` reports as stored survive a kill, and the
        same call goes on where it was stopped. Unreadable pictures, and those too plain to judge,
        are left out and listed in the summary. ``metadata`` is one mapping for all or one for each;
        without it, what is stored stays. Local features, which a proof needs, are some 16 kB a
        picture. With ``regions``, nine parts of each picture are described beside it, so that a
        query that shows only a part of it is found; a picture that has parts is never left without,
        even where it is added again without ``regions``.

        Raises:
            DataError: a path that does not exist, or an empty id.
            MismatchError: ids that are not one for each picture, or not unique.
            ConfigError: pictures from memory without ids, or ``regions`` in a collection that an
                older version made.
            StoreError: the collection cannot be written.
        """
        pictures = Pictures.of(images, once=ids is None and not _is_one_each(metadata))
        adding = Adding(
            table=self._table,
            describer=self.describer,
            pictures=pictures,
            ids=pictures.ids(ids, id_from),
            metadata=pictures.metadata(metadata),
            features=features,
            regions=regions,
            max_pixels=max_pixels,
        )
        return adding.run(progress)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove pictures by id and return how many there were.

        Raises:
            StoreError: the collection cannot be written.
        """
        names = sorted({encode(id_) for id_ in ([ids] if isinstance(ids, str) else ids)} - {b""})
        parts = range(0, len(names), _DELETED)
        return sum(self._table.delete(names[start : start + _DELETED]) for start in parts)

    def search(
        self,
        images: Images,
        *,
        k: int = 10,
        threshold: Threshold = "auto",
        verify: bool = False,
        flip: bool = False,
        rotate: bool = False,
        regions: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[Match]]:
        """Return each query's matches, the best first; :meth:`ask` says more, and goes on.

        Raises:
            ImageError: a query that is no readable picture, or too plain to judge.
            ConfigError: k below 1, or a threshold that is none.
        """
        found = []
        for answer in self.ask(
            images, k=k, threshold=threshold, verify=verify, flip=flip, rotate=rotate,
            regions=regions, max_pixels=max_pixels,
        ):  # fmt: skip
            if answer.skipped is not None:
                raise ImageError(answer.skipped.reason, f"{answer.query}: {answer.skipped.message}")
            found.append(list(answer.matches))
        return found

    def ask(
        self,
        images: Images | Pictures,
        *,
        names: Sequence[str] | None = None,
        k: int = 10,
        threshold: Threshold = "auto",
        verify: bool = False,
        flip: bool = False,
        rotate: bool = False,
        regions: bool = False,
        max_pixels: int = MAX_PIXELS,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Answer]:
        """Answer queries one after another, by one version of the collection.

        A match reaches the ``threshold``: a score; a precision such as "P99", at which 99 % of the
        matches are copies; or "auto", from which on a reference is a copy with a probability of
        0.9. All but a score depend on how many pictures there are. ``verify`` tries to prove the
        nearest references (as many as ``k``, but 10 to 50) by local features; what is proven is a
        match whatever its score. ``flip`` searches the mirrored query too, ``rotate`` all eight
        orientations, ``regions`` nine parts of it, which may each hold a small copy. A query that
        cannot be searched is skipped, and its answer says why.

        Raises:
            ConfigError: k below 1, or a threshold that is none.
            MismatchError: the collection was made with another model, or names that are not one for
                each query.
            StoreError: the collection cannot be read.
            FormatError: it is damaged.
        """
        pictures = Pictures.of(images)
        if names is None:
            names = [name or f"query {row}" for row, name in enumerate(pictures.names)]
        if len(names) != len(pictures):
            raise MismatchError(f"{len(names)} names for {len(pictures)} queries")
        searching = Searching(
            memory=self._memory,
            describer=self.describer,
            k=k,
            threshold=threshold,
            verify=verify,
            flip=flip,
            rotate=rotate,
            regions=regions,
            max_pixels=max_pixels,
        )
        return searching.over(pictures, names, progress)

    def descriptors(self) -> DescriptorSet:
        """Return the descriptors of all pictures, without parts, in the order they are stored in.

        Raises:
            StoreError: the collection cannot be read.
            FormatError: it is damaged.
        """
        ids, vectors = self._memory.descriptors()
        return DescriptorSet(ids=ids, vectors=vectors, fingerprint=self.fingerprint)

    @property
    def dim(self) -> int:
        """Length of a descriptor."""
        return int(self._table.metadata["dim"])

    def get(self, id_: str) -> Record:
        """Return what is known of a picture.

        Raises:
            DataError: there is none of this id.
        """
        found = records_in(self._table.find([encode(id_)], RECORD_COLUMNS))
        if not found or not id_:
            raise DataError(f"the collection {self.uri} has no picture {id_!r}")
        return found[0]

    def find(self, ids: Iterable[str]) -> dict[str, Record]:
        """Return what is known of these pictures, by id; those that are not there are left out."""
        names, found = sorted({encode(id_) for id_ in ids} - {b""}), dict[str, Record]()
        for start in range(0, len(names), _LOOKED_UP):
            part = self._table.find(names[start : start + _LOOKED_UP], RECORD_COLUMNS)
            found |= {record.id: record for record in records_in(part)}
        return found

    def list(self, *, after: str | None = None, limit: int = 1_000) -> list[Record]:
        """Return the next records after an id, in the order of the ids' bytes."""
        return records_in(self._table.page(encode(after or ""), limit))

    def verify(self) -> Verification:
        """Read every row and say what is wrong with them, if anything.

        Raises:
            StoreError: the collection cannot be opened at all.
        """
        return verify(self._table)

    def compact(self, *, keep: timedelta = KEPT_FOR) -> int:
        """Join small files and drop what older versions alone need; return the bytes that it freed.

        Versions that a snapshot holds stay, and those that were the newest within the last half
        hour (``keep``), for a process may be reading them.

        Raises:
            StoreError: the collection cannot be written.
        """
        return self._table.compact(keep=keep)

    def snapshot(self, name: str) -> int:
        """Keep the collection as it is now under a name, at no cost; return its version.

        Raises:
            ConfigError: a name that is taken, or has other signs than letters, digits and ``._-``.
        """
        return self._table.snapshot(name)

    def restore(self, name: str) -> int:
        """Make the collection what it was at a snapshot; return the new version.

        The snapshot stays. What was added since is gone, unless another snapshot holds it.

        Raises:
            DataError: no such snapshot.
            FormatError: it is damaged; then nothing is changed.
        """
        require_restorable(self._table, self._table.named(name))
        return self._table.restore(name)

    def forget(self, name: str) -> None:
        """Keep a snapshot no longer; :meth:`compact` then frees what it alone needs.

        Raises:
            DataError: no such snapshot.
        """
        self._table.forget(name)

    def info(self) -> Info:
        """Return what the collection is and holds."""
        return info_of(self._table)


def _is_one_each(metadata: Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> bool:
    return metadata is not None and not isinstance(metadata, Mapping)


def _uri(uri: str | Path) -> str:
    text = str(uri)
    if not text:
        raise ConfigError("the name of a collection is empty; name a folder, or an address")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"a collection's own path must be UTF-8, not {text!r}") from None
    return text
