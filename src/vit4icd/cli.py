"""The front door: one function per verb, which parses, calls its room and prints; no logic.

Data goes to stdout, talk to stderr; progress is drawn on a terminal only. Exit codes: 0 done, 1
failed, 2 wrong usage, 3 finished but some inputs were skipped (with --strict), 130 stopped.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from tyro.conf import Positional

import vit4icd
from vit4icd.errors import ConfigError, Vit4icdError

__all__ = ["VERBS", "main"]

_FAILED, _SKIPPED, _STOPPED = 1, 3, 130
_talk = Console(stderr=True, highlight=False)

Reduction = Literal["avg", "min", "sscd", "copynce", "vsc", "stretch", "subtract"]
StageName = Literal["teacher", "student", "tune", "pairs"]


def describe(
    inputs: Positional[tuple[Path, ...]],
    /,
    *,
    out: Path,
    model: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    share: str = "0/1",
    max_pixels: int | None = None,
    strict: bool = False,
    quiet: bool = False,
) -> int:
    """Describe pictures, folders and tar shards into one HDF5 file; goes on where it stopped.

    Args:
        inputs: Pictures, folders (searched to the bottom) and uncompressed .tar shards.
        out: The descriptor file to write, .h5; what is skipped is listed beside it.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors to use; all this process may use by default.
        share: i/n describes every n-th picture from the i-th on, for several machines.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        strict: End with exit code 3 when a picture was skipped.
        quiet: No progress and no summary.
    """
    from vit4icd import extract
    from vit4icd.describer import load_describer
    from vit4icd.images import MAX_PIXELS

    describer = load_describer(model, device=device, n_threads=threads)
    with _bar("describing", quiet) as advance:
        summary = extract.describe(
            inputs,
            out,
            describer,
            max_pixels=max_pixels or MAX_PIXELS,
            share=_share(share),
            progress=lambda report: advance(
                report.n_done, report.n_images, f"{report.n_skipped} skipped"
            ),
        )
    reused = f", {summary.n_reused} found done" if summary.n_reused else ""
    _say(
        quiet,
        f"{summary.n_described} pictures described at {summary.images_per_s:.1f} a second{reused}: "
        f"{out}",
    )
    if summary.n_skipped:
        _say(quiet, f"{summary.n_skipped} skipped, see {extract.skipped_path(out)}")
    return _SKIPPED if strict and summary.n_skipped else 0


def match(
    *,
    queries: Path,
    references: tuple[Path, ...],
    out: Path,
    background: tuple[Path, ...] = (),
    reduction: Reduction = "avg",
    factor: float | None = None,
    neighbours: int | None = None,
    max_pairs: int = 500_000,
    per_query: int | None = None,
    ids: Literal["official", "path"] = "official",
    all_digits: bool = False,
    threads: int | None = None,
    quiet: bool = False,
) -> int:
    """Find the best pairs of queries and references, exactly; normalise scores by a background.

    Args:
        queries: Descriptor file of the queries.
        references: Descriptor files of the references.
        out: The pairs to write: query_id,ref_id,score, by query, then reference.
        background: Descriptor files of images that match nothing; turns on score normalisation.
        reduction: The variant of score normalisation; avg is ViT4ICD's.
        factor: Weight of the background; the variant's published one by default.
        neighbours: Nearest background images that count; the variant's published number by default.
        max_pairs: Keep the best pairs over all queries together.
        per_query: Keep this many references of each query instead.
        ids: official: the file name without .jpg or .png; path: the whole name.
        all_digits: Write scores in full instead of with the original's 6 decimals.
        threads: Processors to use.
        quiet: No progress and no summary.
    """
    from vit4icd.scores import Normalised, ScoreNormalisation, normalise
    from vit4icd.search import best_pairs
    from vit4icd.storage import map_descriptors, read_descriptors, write_pairs

    query_set, sets = read_descriptors(queries, ids=ids), map_descriptors(references, ids=ids)
    prepared = Normalised.unchanged(query_set)
    if background:
        config = ScoreNormalisation.published(reduction, factor=factor, neighbours=neighbours)
        prepared = normalise(query_set, read_descriptors(*background, ids=ids), config=config)
    elif factor is not None or neighbours is not None or reduction != "avg":
        raise ConfigError("score normalisation needs --background; leave its options out otherwise")
    with _bar("comparing", quiet) as advance:
        pairs = best_pairs(
            prepared.queries,
            sets,
            max_pairs=max_pairs,
            per_query=per_query,
            bias=prepared.bias,
            transform=prepared.transform,
            n_threads=threads,
            progress=lambda done, rows: advance(done, rows, ""),
        )
    write_pairs(out, pairs, decimals=None if all_digits else 6)
    _say(quiet, f"{len(pairs)} pairs: {out}")
    return 0


def evaluate(
    *,
    pairs: Path,
    truth: Path,
    queries_after: str | None = None,
    max_pairs: int = 500_000,
    resamples: int = 200,
    seed: int = 0,
    json_out: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    report: Path | None = None,
    query_images: Path | None = None,
    reference_images: Path | None = None,
) -> int:
    """Measure pairs against the truth: the original's figures, with intervals and a report.

    Args:
        pairs: query_id,ref_id,score lines.
        truth: query_id,reference_id lines.
        queries_after: Only queries whose id comes after this one (Q25000 for the published half).
        max_pairs: Refuse more pairs than this, as the original does.
        resamples: Bootstrap resamples behind the intervals; 0 leaves them out.
        seed: Seed of the bootstrap.
        json_out: Write all figures to this file.
        report: Write a page with curves and the worst pairs to this file.
        query_images: Folder of the queries' pictures, shown on the page.
        reference_images: Folder of the references' pictures, shown on the page.
    """
    import numpy as np

    from vit4icd import evaluate as room
    from vit4icd.report import write_page
    from vit4icd.storage import read_pairs, read_truth, write_json

    result = room.evaluate(
        read_pairs(pairs),
        read_truth(truth),
        queries_after=queries_after,
        max_pairs=max_pairs,
        n_resamples=resamples,
        bootstrap_rng=np.random.default_rng(seed),
    )
    print(room.format_official(result), end="")
    _talk.print(result.protocol, style="dim", soft_wrap=True)
    for name, (low, high) in result.intervals.items():
        _talk.print(f"{name}: {low:.5f} to {high:.5f} (95 %)", style="dim")
    if json_out is not None:
        write_json(json_out, result.to_json())
    if report is not None:
        page = room.evaluation_page(
            result,
            query_picture=room.pictures_in(query_images),
            reference_picture=room.pictures_in(reference_images),
        )
        write_page(report, page)
    return 0


def train(
    recipe: Positional[Literal["paper", "small", "cpu", "tiny"]],
    /,
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    stages: tuple[StageName, ...] = ("teacher", "student", "tune", "pairs"),
    pairs: Path | None = None,
    support: Path | None = None,
    start: tuple[str, ...] = (),
    teacher: Path | None = None,
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    licence: str = "unknown",
    quiet: bool = False,
) -> int:
    """Train by a recipe: teacher, student, tuned student, labelled pairs; goes on with --resume.

    Args:
        recipe: paper is ViT4ICD as published; cpu trains in about an hour on two cores.
        data: Folder of pictures, of the original's {class}_{j}.jpg copies, or of tar shards.
        out: Folder of the run; each stage leaves its log, weights and model folder there.
        resume: Go on with the run in --out.
        stages: The stages to run, out of teacher, student, tune and pairs.
        pairs: Labelled pairs of stage 3: a CSV query,reference, or the original's folders.
        support: Unedited pictures for the compatibility loss; those of --data by default.
        start: STAGE=FILE, weights that a stage's backbone starts from.
        teacher: Model folder of the teacher, when its stage is not run.
        settings: FIELD=VALUE changes a field of the recipe: teacher.loop.schedule.n_epochs=3
        device: Where to train; several processes are started with torchrun.
        threads: Processors to use.
        licence: Licence of the models, for the record.
        quiet: No progress.
    """
    from vit4icd.train import command

    run = command.Options(
        recipe=recipe, data=data, out=out, resume=resume, stages=stages, pairs=pairs,
        support=support, start=start, teacher=teacher, settings=settings, device=device,
        threads=threads, licence=licence,
    )  # fmt: skip
    with _bar("training", quiet) as advance:
        folder = command.train(run, progress=advance)
    _say(quiet, f"model folder: {folder}")
    return 0


def import_weights(file: Positional[Path], /, *, out: Path, licence: str = "unknown") -> int:
    """Turn an official checkpoint, or ImageNet weights to start from, into a model folder.

    Args:
        file: A .pth or .pth.tar file: ViT4ICD stage 1 to 3, DeiT or timm ViT, torchvision or
            Barlow Twins ResNet-50, EfficientNet-Lite0.
        out: The model folder to write.
        licence: Licence of the weights, for the record.
    """
    from vit4icd.train import command

    kind, complete = command.import_weights(file, out, licence=licence)
    remark = "" if complete else "; the projection is untrained: start a training from it"
    _talk.print(f"{kind}: {out}{remark}", soft_wrap=True)
    return 0


def export(
    model: Positional[Path],
    /,
    *,
    out: Path,
    image_size: int | None = None,
    half: bool = False,
    licence: str | None = None,
    torch_weights: bool = True,
) -> int:
    """Write a model folder anew: at another image size, in half precision, without torch weights.

    Args:
        model: A model folder with model.safetensors.
        out: The model folder to write.
        image_size: Pixels of the square input; a ViT's positions are interpolated.
        half: Store the weights in half precision.
        licence: Licence to state; the folder's own by default.
        torch_weights: Keep model.safetensors too.
    """
    from vit4icd.train import command

    card = command.export(
        model, out, image_size=image_size, half=half, licence=licence, torch_weights=torch_weights
    )
    _talk.print(f"{out}: fingerprint {card.fingerprint}")
    return 0


def edits(image: Positional[Path], /, *, out: Path, donors: Path | None = None) -> int:
    """Draw a contact sheet of every edit at three strengths.

    Args:
        image: The picture to edit.
        out: The sheet to write, .jpg or .png.
        donors: Folder of pictures to mix in; the picture itself, mirrored, by default.
    """
    from vit4icd.copies import write_contact_sheet

    write_contact_sheet(image, out, donors=donors)
    _talk.print(str(out))
    return 0


def prepare_copies(
    source: Positional[Path],
    /,
    *,
    out: Path,
    copies: int = 19,
    size: int = 256,
    colour: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> int:
    """Write edited copies as files, in the original's offline layout {class}_{j}.jpg.

    Args:
        source: Folder or tar shard of pictures; each is a class.
        out: Folder to write; files that exist are left alone.
        copies: Edited copies of each picture, beside the plain one.
        size: Pixels of the square files.
        colour: Keep colours; the original's files are gray.
        seed: The same seed gives the same files.
        quiet: No progress and no summary.
    """
    from vit4icd.copies import prepare_copies as prepare
    from vit4icd.datasets import open_images

    with _bar("editing", quiet) as advance:
        summary = prepare(
            open_images([source]),
            out,
            n_copies=copies,
            size=size,
            gray=not colour,
            seed=seed,
            progress=lambda done, n: advance(done, n, ""),
        )
    _say(quiet, f"{summary.n_written} files written, {summary.n_reused} found done: {out}")
    for name, reason in summary.skipped:
        _say(quiet, f"skipped {name}: {reason}")
    return 0


def demo(*, out: Path = Path("demo-report"), model: Path | None = None, quiet: bool = False) -> int:
    """Find which of the packaged pictures are copies of which photographs, and show it.

    Args:
        out: Folder for the report.
        model: Model folder; the packaged model by default.
        quiet: No progress.
    """
    from vit4icd.demo import run_demo
    from vit4icd.describer import load_describer

    with _bar("describing", quiet) as advance:
        result = run_demo(
            out,
            load_describer(model),
            progress=lambda done, n: advance(done, n, ""),
        )
    table = Table("query", "found", "score", "verdict", "edit", "right", box=None)
    for row in result.rows:
        right = "[green]yes[/green]" if row.is_right else "[red]no[/red]"
        table.add_row(row.query, row.reference, f"{row.score:.3f}", row.verdict, row.edit, right)
    Console().print(table)
    print(result.headline)
    print(f"report: {result.report}")
    return 0


VERBS: dict[str, Callable[..., int]] = {
    "describe": describe,
    "match": match,
    "evaluate": evaluate,
    "demo": demo,
    "train": train,
    "import-weights": import_weights,
    "export": export,
    "edits": edits,
    "prepare-copies": prepare_copies,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        print(f"vit4icd {vit4icd.__version__}")
        sys.exit(0)
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            VERBS, prog="vit4icd", description=vit4icd.__doc__, args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )  # fmt: skip
    except Vit4icdError as error:
        _talk.print(f"vit4icd: {error}", style="red", markup=False, soft_wrap=True)
        code = _FAILED
    except KeyboardInterrupt:
        _talk.print("vit4icd: stopped; run the same command to go on (train: with --resume)")
        code = _STOPPED
    except BrokenPipeError:
        sys.stderr.close()
        code = _FAILED
    sys.exit(code)


Advance = Callable[[int, int, str], None]


@contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Advance]:
    """Draw progress on a terminal; elsewhere, and when quiet, draw nothing."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    shown = _talk.is_terminal and not quiet
    with Progress(*columns, console=_talk, disable=not shown, transient=True) as progress:
        task = progress.add_task(what, total=None, remark="")
        yield lambda done, total, remark: progress.update(
            task, completed=done, total=total, remark=remark
        )


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        _talk.print(text, markup=False, soft_wrap=True)


def _share(text: str) -> tuple[int, int]:
    index, slash, n_shares = text.partition("/")
    if not (slash and index.isdigit() and n_shares.isdigit()):
        raise ConfigError(f"--share is i/n, such as 0/4, not {text!r}")
    return int(index), int(n_shares)
