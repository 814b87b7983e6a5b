"""The verb that adds pictures to a collection, which it makes if there is none."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from vit4icd.cli.arguments import Flag, MaybeCount, MaybeDevice, MaybePath, Pictures, Place
from vit4icd.cli.codes import DONE, FAILED, SKIPPED
from vit4icd.cli.options import (
    most_pixels,
    open_collection,
    paths_of,
    pictures_in,
    require_outputs,
    settled,
)
from vit4icd.cli.terminal import bar, counted, say, shown
from vit4icd.errors import ConfigError

if TYPE_CHECKING:
    from vit4icd.collection import AddProgress, AddSummary, Collection

__all__ = ["index_add"]

Metadata = tyro.conf.UseAppendAction[tuple[str, ...]]


def index_add(
    collection: Place,
    images: Pictures = (),
    /,
    *,
    id_from: Literal["path", "name", "sha256"] = "path",
    metadata: Metadata = (),
    without_features: Flag = False,
    regions: Flag = False,
    from_file0: MaybePath = None,
    skipped: MaybePath = None,
    jsonl: Flag = False,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    max_pixels: MaybeCount = None,
    strict: Flag = False,
    quiet: Flag = False,
) -> int:
    """Add pictures to a collection, which is made if there is none; goes on where it stopped.

    Args:
        collection: Folder of the collection, or an address such as s3://bucket/name.
        images: Pictures, folders (searched to the bottom) and uncompressed .tar shards.
        id_from: What becomes a picture's id: its path as given, file name, or content.
        metadata: KEY=VALUE, stored with each of the pictures; may be given again.
        without_features: Leave out local features, 16 kB a picture, which search --verify needs.
        regions: Describe nine parts of each picture too, to find queries that show a part of it.
        from_file0: File with more paths, each ended by a NUL byte; - is stdin.
        skipped: Where pictures left out are listed; beside the collection's folder by default.
        jsonl: Print a JSON line for each picture once it is safely stored.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        strict: End with exit code 3 when a picture was left out; when all were, it is 1 without.
        quiet: No progress and no summary.
    """
    require_outputs(skipped)
    options, most = settled(model, device, threads), most_pixels(max_pixels)
    given, paths = _metadata(metadata), paths_of(images, from_file0)
    _require_place(collection)
    pictures = pictures_in(paths)
    pictures.ids(None, id_from)  # refused, where they are, before a collection is made
    opened = open_collection(collection, options, make=True)
    with bar("adding", quiet, with_lines=jsonl) as advance:

        def progress(report: "AddProgress") -> None:
            advance(report.n_done, report.n_images, f"{report.n_skipped} skipped")
            for fields in _stored(report) if jsonl else ():
                print(json.dumps(fields, ensure_ascii=False), flush=True)

        summary = opened.add(
            pictures,
            id_from=id_from,
            metadata=given or None,
            features=not without_features,
            regions=regions,
            max_pixels=most,
            progress=progress,
        )
    n_described = summary.n_added + summary.n_updated
    rate = f" at {summary.images_per_s:.1f} a second" if n_described else ""
    say(
        quiet,
        f"{summary.n_added} added, {summary.n_updated} updated, {summary.n_unchanged} unchanged"
        f"{rate}; {collection} holds {_held(opened)}",
    )
    _tell_same_bytes(summary, quiet)
    _list_skipped(summary, collection, skipped, quiet)
    if strict and summary.skipped:
        return SKIPPED
    return FAILED if len(summary.skipped) == summary.n_images else DONE


def _stored(report: "AddProgress") -> Iterator[dict[str, str]]:
    """Yield what is said of each picture that is safely stored."""
    from vit4icd.storage import name_fields

    for id_ in report.stored:
        other = report.same_bytes.get(id_)
        same_bytes = {} if other is None else name_fields("same_bytes_as", other)
        yield name_fields("id", id_) | same_bytes


def _tell_same_bytes(summary: "AddSummary", quiet: bool) -> None:
    for id_, other in islice(summary.same_bytes.items(), 1):
        say(
            quiet,
            f"held already, byte for byte, under other ids: {len(summary.same_bytes)} of them, "
            f"such as {shown(id_)} = {shown(other)}",
        )


def _list_skipped(
    summary: "AddSummary", collection: str, skipped: Path | None, quiet: bool
) -> None:
    """List what was left out, and say of the first why."""
    from vit4icd.stream import write_skipped

    is_named = skipped is not None
    if skipped is None and "://" not in collection:
        place = Path(collection)
        place = place.resolve() if place.name in ("", "..") else place  # such as . and ../
        skipped = place.parent / f"{place.name}.skipped.jsonl"
    if skipped is not None:
        write_skipped(skipped, summary.skipped, keep_empty=is_named)
    for first in summary.skipped[:1]:
        see = f"; see {skipped}" if skipped else ""
        said = f"{shown(first.name)}: {first.message}"
        say(quiet, f"{len(summary.skipped)} left out{see}; such as {said}")


def _held(collection: "Collection") -> str:
    info = collection.info()
    parts = f" and {counted(info.n_parts, 'part')} of them" * bool(info.n_parts)
    return counted(info.n_images, "picture") + parts


def _require_place(collection: str) -> None:
    """Refuse a folder of pictures where a collection is to be made."""
    from vit4icd.collection import Collection
    from vit4icd.datasets import walk_pictures

    place = Path(collection)
    if Collection.exists(collection) or "://" in collection or not place.is_dir():
        return
    if next(iter(walk_pictures(place)), None) is not None:
        raise ConfigError(
            f"{collection} is a folder of pictures, not a collection; the collection comes first: "
            f"vit4icd index add my-collection {collection}"
        )


def _metadata(pairs: Sequence[str]) -> dict[str, str]:
    fields = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--metadata is KEY=VALUE, such as owner=me, not {pair!r}")
        fields[key] = value
    return fields
