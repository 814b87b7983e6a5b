"""The verbs that say what a collection holds, remove from it and look after it."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table
from tyro.conf import Positional

from vit4icd.cli.arguments import (
    Flag,
    Format,
    Json,
    MaybeCount,
    MaybePath,
    MaybeText,
    Out,
    Place,
)
from vit4icd.cli.codes import DONE, FAILED
from vit4icd.cli.options import (
    file_of,
    format_of,
    open_collection,
    require_counts,
    require_printable,
)
from vit4icd.cli.terminal import counted, print_table, say, shown
from vit4icd.errors import ConfigError

if TYPE_CHECKING:
    from vit4icd.collection import Collection, Record

__all__ = [
    "index_compact",
    "index_info",
    "index_list",
    "index_recover",
    "index_remove",
    "index_restore",
    "index_snapshot",
    "index_verify",
]

ListFormat = Literal["auto", Format, "ids0"]

_PAGE = 1_000  # records listed at a time
_MOST_MINUTES = 10_000_000  # some twenty years

Ids = Annotated[
    Positional[tuple[str, ...]], tyro.conf.arg(metavar="[ID ...]", help_behavior_hint="")
]
Name = Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
_VERSION = tyro.conf.arg(metavar="VERSION")


def index_remove(
    collection: Place,
    ids: Ids = (),
    /,
    *,
    from_file0: MaybePath = None,
    quiet: Flag = False,
) -> int:
    """Remove pictures from a collection, by id.

    Args:
        collection: Folder or address of the collection.
        ids: Ids of the pictures, as index list prints them.
        from_file0: File with more ids, each ended by a NUL byte; - is stdin.
        quiet: No summary.
    """
    opened = open_collection(collection)
    wanted = {*ids, *_listed(from_file0)}
    if not wanted:
        raise ConfigError("name at least one id, or a list with --from-file0")
    removed = opened.remove(wanted)
    missing = f"; {len(wanted) - removed} were not there" if removed < len(wanted) else ""
    say(quiet, f"{removed} removed{missing}; {collection} holds {_pictures(len(opened))}")
    return 0


def index_info(collection: Place, /, *, json_out: Json = False) -> int:
    """Say what a collection is and holds.

    Args:
        collection: Folder or address of the collection.
        json_out: Print it as JSON.
    """
    info = open_collection(collection).info()
    fields = {
        "collection": info.uri,
        "pictures": info.n_images,
        "parts": info.n_parts,
        "model": info.model,
        "fingerprint": info.fingerprint,
        "dimensions": info.dim,
        "created": info.created.isoformat(),
        "made by": f"vit4icd {info.package_version}, format {info.format_version}",
        "version": info.version,
        "snapshots": {snapshot.name: snapshot.version for snapshot in info.snapshots},
    }
    if json_out:
        print(json.dumps(fields, indent=2))
        return 0
    for name, value in fields.items():
        shown = (", ".join(value) or "none") if isinstance(value, dict) else value
        print(f"{name + ':':<13} {shown}")
    return 0


def index_list(
    collection: Place,
    /,
    *,
    after: MaybeText = None,
    limit: MaybeCount = None,
    format_: Annotated[ListFormat, tyro.conf.arg(name="format")] = "auto",
    out: Out = None,
) -> int:
    """List the pictures of a collection, by id.

    Args:
        collection: Folder or address of the collection.
        after: Begin after this id.
        limit: List no more than this many.
        format_: auto: as --out ends, or table; ids0: ids, NUL-ended; table does not hold all.
        out: Write to this file instead of stdout.
    """
    from vit4icd.collection import write_fields
    from vit4icd.collection.formats import write_parts
    from vit4icd.collection.records import RECORD_FIELDS

    require_counts(limit=limit)
    out = file_of(out)
    wanted = format_of(out) if format_ == "auto" else format_
    require_printable(wanted, out)
    records = _records(open_collection(collection), after, limit)
    if wanted == "ids0":
        write_parts((os.fsencode(record.id) + b"\0" for record in records), out)
        return 0
    if wanted != "table":
        rows = (record.to_json() for record in records)
        if wanted in ("csv", "parquet"):
            rows = ({**row, "metadata": json.dumps(row["metadata"])} for row in rows)
        write_fields(rows, wanted, out, columns=RECORD_FIELDS)
        return 0
    listed = list(records)
    if not listed:
        say(False, f"{collection} holds no picture" + (f" after {shown(after)}" if after else ""))
    print_table(_table(listed), out)
    return 0


def index_verify(collection: Place, /) -> int:
    """Read a whole collection and check it: every checksum, unique ids, nothing missing.

    Args:
        collection: Folder or address of the collection.
    """
    found = open_collection(collection).verify()
    for problem in found.problems:
        print(shown(problem))
    files, problems = counted(found.n_files, "file"), counted(len(found.problems), "problem")
    say(False, f"{_pictures(found.n_images)} in {files}, {problems}")
    return FAILED if found.problems else DONE


def index_compact(collection: Place, /, *, keep_minutes: float = 30.0, quiet: bool = False) -> int:
    """Join small files of a collection and free what only older versions need.

    Args:
        collection: Folder or address of the collection.
        keep_minutes: Versions that were in use this long ago stay, for those reading them.
        quiet: No summary.
    """
    if not 0 <= keep_minutes <= _MOST_MINUTES:
        raise ConfigError(f"--keep-minutes is 0 to {_MOST_MINUTES:,}, not {keep_minutes}")
    freed = open_collection(collection).compact(keep=timedelta(minutes=keep_minutes))
    say(quiet, f"{freed / 2**20:.1f} MiB freed")
    return 0


def index_snapshot(collection: Place, name: Name, /, *, forget: bool = False) -> int:
    """Keep a collection as it is now under a name; index info lists what is kept.

    Args:
        collection: Folder or address of the collection.
        name: Name of the snapshot.
        forget: Keep the snapshot of this name no longer.
    """
    opened = open_collection(collection)
    if forget:
        opened.forget(name)
        say(False, f"{name} is not kept any more; index compact frees its space")
    else:
        say(False, f"{name} is version {opened.snapshot(name)}, {_pictures(len(opened))}")
    return 0


def index_restore(collection: Place, name: Name, /) -> int:
    """Make a collection what it was at a snapshot.

    Args:
        collection: Folder or address of the collection.
        name: Name of the snapshot.
    """
    opened = open_collection(collection)
    opened.restore(name)
    say(False, f"{collection} holds the {_pictures(len(opened))} of {name} again")
    return 0


def index_recover(
    collection: Place,
    /,
    *,
    to: Annotated[int | None, _VERSION] = None,
    drop_damaged: bool = False,
) -> int:
    """Find the newest whole version of a damaged collection, and go back to it if told to.

    Args:
        collection: Folder of the collection; nothing may write to it meanwhile.
        to: Go back to this version, which must be the newest whole one; without, only look.
        drop_damaged: Go on from the newest version, without what its damaged files hold.
    """
    from vit4icd.collection import go_back, newest_whole

    if drop_damaged:
        if to is not None:
            raise ConfigError("--to goes back, --drop-damaged goes on: take one of them")
        return _drop_damaged(collection)
    if to is not None:
        version = go_back(collection, to)
        held = len(open_collection(collection))
        say(False, f"{collection} holds the {_pictures(held)} of version {to} again, as {version}")
        return 0
    found = newest_whole(collection)
    for version, problem in found.cut.items():
        print(f"version {version}: {shown(problem)}")
    for name in found.lost:
        print(f"snapshot {shown(name)}: its version is gone, or was cut")
    if not found.is_needed:
        say(False, f"{collection} is whole: version {found.version}, {_pictures(found.n_images)}")
        return 0
    if not found.cut:
        say(
            False,
            f"version {found.version} is whole, with {_pictures(found.n_images)}; to let go of "
            f"those snapshots: vit4icd index recover {collection} --to {found.version}",
        )
        return FAILED
    if len(found.cut) > 1:
        say(
            False,
            "a power cut leaves one version cut, seldom more: where index verify names single "
            "pictures, remove them and add them again; or bring back a copy",
        )
    if not found.n_images:
        say(
            False,
            "only the empty collection that it was at first is whole; to keep all but what is in "
            f"damaged files: vit4icd index recover {collection} --drop-damaged",
        )
        return FAILED
    say(
        False,
        f"version {found.version} is whole, with {_pictures(found.n_images)}; to go back to it and "
        f"give up what came later: vit4icd index recover {collection} --to {found.version}; or to "
        f"keep all but what is in damaged files: vit4icd index recover {collection} --drop-damaged",
    )
    return FAILED


def _pictures(n: int) -> str:
    return counted(n, "picture")


def _drop_damaged(collection: str) -> int:
    from vit4icd.collection import drop_damaged

    saved = drop_damaged(collection)
    for version, problem in saved.cut.items():
        print(f"version {version}: {shown(problem)}; what it added or removed is lost")
    for name, problem in saved.dropped.items():
        print(f"file {name}: {shown(problem)}")
    again = "; add theirs again: index add skips those that are there" * bool(saved.n_lost)
    say(
        False,
        f"{collection} holds {_pictures(saved.n_images)}, as version {saved.version}; "
        f"{saved.n_lost} were in {counted(len(saved.dropped), 'damaged file')}{again}",
    )
    return index_verify(collection)


def _table(records: Sequence["Record"]) -> Table:
    """Return records for people, in local time, with parts and metadata only if some have them."""
    columns: dict[str, Callable[[Record], str]] = {
        "id": lambda record: shown(record.id),
        "size": lambda record: f"{record.width} x {record.height}",
        "parts": lambda record: str(record.n_parts or ""),
        "added": lambda record: f"{record.added.astimezone():%Y-%m-%d %H:%M}",
        "metadata": lambda record: shown(
            " ".join(f"{key}={value}" for key, value in record.metadata.items())
        ),
    }
    for name in ("parts", "metadata"):
        if not any(map(columns[name], records)):
            del columns[name]
    table = Table(*columns, box=None)
    for record in records:
        table.add_row(*(cell(record) for cell in columns.values()))
    return table


def _records(collection: "Collection", after: str | None, limit: int | None) -> Iterator["Record"]:
    left = sys.maxsize if limit is None else limit
    while left and (page := collection.list(after=after, limit=min(left, _PAGE))):
        yield from page
        after, left = page[-1].id, left - len(page)


def _listed(path: Path | None) -> list[str]:
    """Return the ids of a NUL-separated list, as they are; paths would be tidied."""
    if path is None:
        return []
    data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    return [os.fsdecode(part) for part in data.split(b"\0") if part]
