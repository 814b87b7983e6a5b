"""The verbs that find copies among files: groups in folders, and leaks between two."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table
from tyro.conf import Positional

from vit4icd.cli.arguments import Flag, Format, MaybeCount, MaybeDevice, MaybePath, MaybeThreshold
from vit4icd.cli.codes import DONE, MATCHED, SKIPPED
from vit4icd.cli.options import (
    format_of,
    most_pixels,
    open_describer,
    paths_of,
    require_outputs,
    require_there,
    settled,
)
from vit4icd.cli.terminal import Advance, bar, print_table, say, shown
from vit4icd.errors import ConfigError

if TYPE_CHECKING:
    from vit4icd.dedup import Deed, Duplicates, Leaks, Member

__all__ = ["dedup", "leaks"]

_TOLD = 10  # files left where they are that are named on stderr
_COLUMNS = [
    "group", "keep", "path", "bytes", "width", "height", "taken", "sha256", "verdict", "score",
    "probability", "reason", "caution",
]  # fmt: skip
_DONE = {"move": "moved", "trash": "sent to the trash", "hardlink": "replaced by links"}

Inputs = Annotated[
    Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[FOLDER ...]", help_behavior_hint="")
]
Train = Annotated[Positional[Path], tyro.conf.arg(metavar="TRAIN")]
Test = Annotated[Positional[Path], tyro.conf.arg(metavar="TEST")]
GroupFormat = Literal[Format, "files0"]
Fields = dict[str, object]


def dedup(
    inputs: Inputs = (),
    /,
    *,
    reference: tuple[Path, ...] = (),
    from_file0: MaybePath = None,
    strictness: Literal["clique", "community", "component"] = "clique",
    threshold: MaybeThreshold = None,
    verify: Flag = False,
    action: Literal["report", "move", "trash", "hardlink"] = "report",
    to: MaybePath = None,
    yes: Flag = False,
    out: Path = Path("dedup-report"),
    cache: MaybePath = None,
    format_: Annotated[GroupFormat, tyro.conf.arg(name="format")] = "table",
    fail_on_match: Flag = False,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    max_pixels: MaybeCount = None,
    strict: Flag = False,
    quiet: Flag = False,
) -> int:
    """Find the groups of copies in folders, and which copy of each to keep; deletes nothing.

    Args:
        inputs: Folders (searched to the bottom) and pictures.
        reference: Folders that are only compared with; what lies there is kept.
        from_file0: File with more paths, each ended by a NUL byte; - is stdin.
        strictness: Of a group, every two are a pair (clique), half of them, or any (component).
        threshold: Least score; P99: 99 % of pairs are copies; auto: with a probability of 0.9.
        verify: Prove pairs by local features, with auto those from a probability of 0.01 on.
        action: What becomes of the spare copies, with --yes; hardlink takes the same bytes only.
        to: Folder that spare copies are moved to.
        yes: Do it; without, it is only said what would be done.
        out: Folder for report.html, groups.json, skipped.jsonl and the journal of an action.
        cache: Folder for what was learnt of the pictures; in --out by default.
        format_: csv, parquet: a row a file; jsonl: a line a group; files0: what trash would take.
        fail_on_match: End with exit code 11 when there is a group.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        strict: End with exit code 3 when a file was skipped, or left where it was.
        quiet: No progress and no remarks.
    """
    _require_folder(out)
    require_outputs(folder=to)
    options, most = settled(model, device, threads, threshold), most_pixels(max_pixels)
    from vit4icd.dedup import find_duplicates, groups_page, require_target, shown_bytes
    from vit4icd.report import write_page
    from vit4icd.storage import write_json
    from vit4icd.stream import write_skipped

    paths = paths_of(inputs, from_file0)
    require_there([*paths, *reference])
    if action != "move" and to is not None:
        raise ConfigError("--to is where spare copies are moved: add --action move")
    if action != "report":
        require_target([*paths, *reference], action, to)
    with bar("looking for copies", quiet) as advance:
        found = find_duplicates(
            paths,
            cache or out / "cache",
            open_describer(options),
            references=reference,
            strictness=strictness,
            threshold=options.threshold,
            verify=verify,
            max_pixels=most,
            n_threads=options.threads,
            progress=_told(advance),
        )
    write_json(out / "groups.json", found.to_json())
    write_skipped(out / "skipped.jsonl", found.skipped)
    write_page(out / "report.html", groups_page(found))
    _print_groups(found, format_)
    say(
        quiet,
        f"groups of copies: {len(found.groups)}, among {found.n_files} files; files to spare: "
        f"{found.n_spare} ({shown_bytes(found.n_spare_bytes)}); see {out / 'report.html'}",
    )
    _remark(found, out, quiet)
    n_left = 0
    if action != "report" and found.groups:
        n_left = _act(found, action, to=to, yes=yes, out=out, quiet=quiet)
    if fail_on_match and found.groups:
        return MATCHED
    return SKIPPED if strict and (found.skipped or n_left) else DONE


def leaks(
    train: Train,
    test: Test,
    /,
    *,
    threshold: MaybeThreshold = None,
    verify: Flag = False,
    out: Path = Path("leaks-report"),
    cache: MaybePath = None,
    format_: Annotated[Format, tyro.conf.arg(name="format")] = "table",
    fail_on_match: Flag = False,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    max_pixels: MaybeCount = None,
    strict: Flag = False,
    quiet: Flag = False,
) -> int:
    """List the test pictures that are copies of training pictures.

    Args:
        train: Folder of the training pictures, searched to the bottom.
        test: Folder of the test pictures, searched to the bottom.
        threshold: Least score; P99: 99 % of pairs are copies; auto: with a probability of 0.9.
        verify: Prove pairs by local features, with auto those from a probability of 0.01 on.
        out: Folder for report.html, leaks.json and skipped.jsonl.
        cache: Folder for what was learnt of the pictures; in --out by default.
        format_: csv, parquet: a row a pair; jsonl: a line a pair.
        fail_on_match: End with exit code 11 when there is a leak.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        strict: End with exit code 3 when a file was skipped.
        quiet: No progress and no remarks.
    """
    _require_folder(out)
    options, most = settled(model, device, threads, threshold), most_pixels(max_pixels)
    require_there([train, test])
    from vit4icd.dedup import find_leaks, leaks_page
    from vit4icd.report import write_page
    from vit4icd.storage import write_json
    from vit4icd.stream import write_skipped

    with bar("looking for leaks", quiet) as advance:
        found = find_leaks(
            [train],
            [test],
            cache or out / "cache",
            open_describer(options),
            threshold=options.threshold,
            verify=verify,
            max_pixels=most,
            n_threads=options.threads,
            progress=_told(advance),
        )
    write_json(out / "leaks.json", found.to_json())
    write_skipped(out / "skipped.jsonl", found.skipped)
    write_page(out / "report.html", leaks_page(found))
    _print_leaks(found, format_)
    say(
        quiet,
        f"leaked: {found.n_leaked} of {found.n_test} test pictures, from {found.n_train} training "
        f"pictures; see {out / 'report.html'}",
    )
    if found.n_in_both:
        say(quiet, f"in both folders, and taken for test pictures alone: {found.n_in_both}")
    _remark(found, out, quiet)
    if fail_on_match and found.matches:
        return MATCHED
    return SKIPPED if strict and found.skipped else DONE


def _require_folder(out: Path) -> None:
    """Refuse, before any work, what is no folder, or to be one and is named as a list is."""
    require_outputs(folder=out)
    format_ = format_of(out)
    if format_ != "table" and not out.is_dir():
        name = shown(str(out))
        raise ConfigError(
            f"--out is the folder of a report, not {name}; for a list: --format {format_} > {name}"
        )


def _told(advance: Advance) -> Callable[[str, int, int, int], None]:
    return lambda what, done, n, skipped: advance(done, n, f"{what}, {skipped} skipped")


def _remark(found: "Duplicates | Leaks", out: Path, quiet: bool) -> None:
    if found.skipped:
        say(quiet, f"skipped: {len(found.skipped)}, see {out / 'skipped.jsonl'}")
    if found.n_symlinks:
        say(quiet, f"symbolic links passed over: {found.n_symlinks}")
    if found.is_cut:
        say(quiet, "there were more pairs than are judged; the best were: raise --threshold")


def _act(
    found: "Duplicates",
    action: Literal["move", "trash", "hardlink"],
    *,
    to: Path | None,
    yes: bool,
    out: Path,
    quiet: bool,
) -> int:
    """Do it, or say what would be done; return how many files are left where they were."""
    from vit4icd.dedup import carry_out, planned

    if yes:
        with bar("acting", quiet) as advance:
            deeds = carry_out(
                found,
                action,
                journal=out / "journal.jsonl",
                to=to,
                progress=lambda done, n: advance(done, n, ""),
            )
    else:
        deeds = planned(found, action)
    left = [deed for deed in deeds if not deed.is_done]
    n_done, verb = len(deeds) - len(left), _DONE[action]
    if yes:
        say(quiet, f"{verb}: {n_done}, left: {len(left)}; see {out / 'journal.jsonl'}")
    else:
        say(quiet, f"would be {verb}: {n_done}, left: {len(left)}; to do it, add --yes")
    _tell_left(left, quiet)
    return len(left)


def _tell_left(left: Sequence["Deed"], quiet: bool) -> None:
    for deed in left[:_TOLD]:
        say(quiet, f"left: {shown(deed.path)}: {deed.left_because}")
    if len(left) > _TOLD:
        say(quiet, f"... and {len(left) - _TOLD} more")


def _print_groups(found: "Duplicates", format_: GroupFormat) -> None:
    if format_ == "table":
        _draw_groups(found)
    elif format_ == "files0":
        from vit4icd.dedup import planned

        names = [deed.path for deed in planned(found, "trash") if deed.is_done]
        sys.stdout.buffer.write(b"".join(os.fsencode(name) + b"\0" for name in names))
        sys.stdout.buffer.flush()
    elif format_ == "json":
        print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    else:
        from vit4icd.collection import write_fields

        rows = _groups(found) if format_ == "jsonl" else _members(found)
        write_fields(rows, format_, None, columns=_COLUMNS)


def _draw_groups(found: "Duplicates") -> None:
    from vit4icd.dedup import shown_bytes

    table = Table("group", "", "file", "size", "bytes", "why", box=None)
    for number, group in enumerate(found.groups, 1):
        for row, member in enumerate(group.members):
            size = "" if member.header is None else f"{member.header.width}x{member.header.height}"
            why = member.reason + (f"; careful: {member.caution}" if member.caution else "")
            table.add_row(
                "" if row else str(number),
                "keep" if member.is_kept else "",
                shown(member.file.path),
                size,
                shown_bytes(member.file.stamp.size),
                why,
            )
    print_table(table, None)


def _groups(found: "Duplicates") -> Iterator[Fields]:
    for number, group in enumerate(found.groups, 1):
        yield {"group": number, "members": [member.to_json() for member in group.members]}


def _members(found: "Duplicates") -> Iterator[Fields]:
    for number, group in enumerate(found.groups, 1):
        for member in group.members:
            yield {"group": number, **_member(member)}


def _member(member: "Member") -> Fields:
    from vit4icd.storage import name_fields

    header, match = member.header, member.match
    return {
        "keep": member.is_kept,
        **name_fields("path", member.file.path),
        "bytes": member.file.stamp.size,
        "width": None if header is None else header.width,
        "height": None if header is None else header.height,
        "taken": None if header is None else header.taken,
        "sha256": member.file.sha256,
        "verdict": None if match is None else match.verdict,
        "score": None if match is None else match.score,
        "probability": None if match is None else match.probability,
        "reason": member.reason,
        "caution": member.caution,
    }


def _print_leaks(found: "Leaks", format_: Format) -> None:
    from vit4icd.matches import probability_text

    if format_ == "table":
        table = Table("test", "training", "verdict", "probability", "score", box=None)
        for match in found.matches:
            probability = probability_text(match.probability)
            names = shown(match.query), shown(match.reference)
            table.add_row(*names, match.verdict, probability, f"{match.score:.3f}")
        print_table(table, None)
        return
    if format_ == "json":
        print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
        return
    from vit4icd.collection import match_fields, write_fields

    is_flat = format_ in ("csv", "parquet")
    write_fields(
        (match_fields(match) if is_flat else match.to_json() for match in found.matches),
        format_,
        None,
    )
