"""The verb that searches a collection: of which references are these pictures copies?"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vit4icd.cli.answers import Tally, write_answers
from vit4icd.cli.arguments import (
    Flag,
    Format,
    MaybeCount,
    MaybeDevice,
    MaybePath,
    MaybeThreshold,
    Out,
    Pictures,
    Place,
)
from vit4icd.cli.codes import DONE, FAILED, MATCHED, SKIPPED
from vit4icd.cli.options import (
    file_of,
    format_of,
    most_pixels,
    open_collection,
    paths_of,
    pictures_in,
    require_counts,
    require_printable,
    settled,
)
from vit4icd.cli.terminal import bar

if TYPE_CHECKING:
    from vit4icd.collection import Answer

__all__ = ["search"]


def search(
    collection: Place,
    images: Pictures = (),
    /,
    *,
    k: Annotated[int, tyro.conf.arg(aliases=["-k"], metavar="N")] = 10,
    threshold: MaybeThreshold = None,
    verify: Flag = False,
    flip: Flag = False,
    rotate: Flag = False,
    regions: Flag = False,
    from_file0: MaybePath = None,
    format_: Annotated[Literal["auto", Format], tyro.conf.arg(name="format")] = "auto",
    out: Out = None,
    fail_on_match: Flag = False,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    max_pixels: MaybeCount = None,
    strict: Flag = False,
    quiet: Flag = False,
) -> int:
    """Search a collection for the pictures that these are copies of.

    Args:
        collection: Folder or address of the collection.
        images: Pictures, folders, uncompressed .tar shards; - reads one picture from stdin.
        k: Matches of each picture, at most.
        threshold: Least score; P99: 99 % of matches are copies; auto: with a probability of 0.9.
        verify: Try to prove the nearest -k (10 to 50) by local features; what is proven is a match.
        flip: Search the mirrored picture too.
        rotate: Search all eight orientations.
        regions: Search nine parts of the picture too, for small copies pasted into it.
        from_file0: File with more paths, each ended by a NUL byte; - is stdin.
        format_: auto: as --out ends, or table; json, jsonl: each answer; csv, parquet: each match.
        out: Write to this file instead of stdout.
        fail_on_match: End with exit code 11 when anything is a copy.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        strict: End with exit code 3 when a picture could not be searched.
        quiet: No progress and no remarks.
    """
    require_counts(k=k)
    out = file_of(out)
    wanted = format_of(out) if format_ == "auto" else format_
    require_printable(wanted, out)
    options, tally = settled(model, device, threads, threshold), Tally(quiet)
    most = most_pixels(max_pixels)
    from vit4icd.images import MAX_BYTES

    paths = paths_of(images, from_file0)
    from_stdin = [str(path) for path in paths] == ["-"]
    queries = sys.stdin.buffer.read(MAX_BYTES + 1) if from_stdin else pictures_in(paths)
    opened = open_collection(collection, options)
    is_streamed = wanted == "jsonl" and out is None

    def answers() -> Iterator["Answer"]:  # the bar is gone once the last has come
        with bar("searching", quiet, with_lines=is_streamed) as advance:
            yield from opened.ask(
                queries,
                names=["-"] if from_stdin else None,
                k=k,
                threshold=options.threshold,
                verify=verify,
                flip=flip,
                rotate=rotate,
                regions=regions,
                max_pixels=most,
                progress=lambda done, n: advance(done, n, ""),
            )

    write_answers(tally.over(answers()), wanted, out)
    if fail_on_match and tally.n_copies:
        return MATCHED
    if strict and tally.n_skipped:
        return SKIPPED
    return FAILED if tally.n_skipped == tally.n_queries else DONE
