"""The verbs of descriptor files, from pictures to figures; they need no torch."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table
from rich.text import Text

from vit4icd.cli.arguments import (
    Flag,
    MaybeCount,
    MaybeDevice,
    MaybeNumber,
    MaybePath,
    MaybeText,
    Pictures,
)
from vit4icd.cli.codes import DONE, FAILED, SKIPPED
from vit4icd.cli.options import (
    most_pixels,
    open_describer,
    require_counts,
    require_no_folder,
    require_outputs,
    require_seed,
    require_there,
    settled,
)
from vit4icd.cli.terminal import bar, counted, print_table, say, talk
from vit4icd.errors import ConfigError

__all__ = ["calibrate", "demo", "describe", "evaluate", "match"]

Reduction = Literal["avg", "min", "sscd", "copynce", "vsc", "stretch", "subtract"]


def describe(
    inputs: Pictures,
    /,
    *,
    out: Path,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    share: str = "0/1",
    max_pixels: MaybeCount = None,
    strict: Flag = False,
    quiet: Flag = False,
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
        strict: End with exit code 3 when a picture was skipped; when all were, it is 1 without.
        quiet: No progress and no summary.
    """
    require_no_folder(out)
    options, most = settled(model, device, threads), most_pixels(max_pixels)
    from vit4icd import extract

    describer = open_describer(options)
    with bar("describing", quiet) as advance:
        summary = extract.describe(
            inputs,
            out,
            describer,
            max_pixels=most,
            share=_share(share),
            progress=lambda report: advance(
                report.n_done, report.n_images, f"{report.n_skipped} skipped"
            ),
        )
    reused = f", {summary.n_reused} found done" if summary.n_reused else ""
    say(
        quiet,
        f"{counted(summary.n_described, 'picture')} described at {summary.images_per_s:.1f} a "
        f"second{reused}: {out}",
    )
    if summary.n_skipped:
        say(quiet, f"{summary.n_skipped} skipped, see {extract.skipped_path(out)}")
    if strict and summary.n_skipped:
        return SKIPPED
    is_in_vain = summary.n_skipped and not summary.n_described + summary.n_reused
    return FAILED if is_in_vain else DONE


def match(
    *,
    queries: Path,
    references: tuple[Path, ...],
    out: Path,
    background: tuple[Path, ...] = (),
    reduction: Reduction = "avg",
    factor: MaybeNumber = None,
    neighbours: MaybeCount = None,
    max_pairs: int = 500_000,
    per_query: MaybeCount = None,
    ids: Literal["official", "path"] = "official",
    all_digits: Flag = False,
    threads: MaybeCount = None,
    quiet: Flag = False,
) -> int:
    """Find the best pairs of queries and references, exactly; normalise scores by a background.

    Args:
        queries: Descriptor file of the queries.
        references: Descriptor files of the references.
        out: The pairs to write as CSV: query_id,ref_id,score, by query, then reference.
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
    _require_csv(out)
    require_counts(max_pairs=max_pairs, per_query=per_query, neighbours=neighbours)
    options = settled(threads=threads)
    if not background and (factor is not None or neighbours is not None or reduction != "avg"):
        raise ConfigError("score normalisation needs --background; leave its options out otherwise")
    from vit4icd.scores import Normalised, ScoreNormalisation, normalise
    from vit4icd.search import best_pairs
    from vit4icd.storage import map_descriptors, read_descriptors, write_pairs

    config = ScoreNormalisation.published(reduction, factor=factor, neighbours=neighbours)
    query_set, sets = read_descriptors(queries, ids=ids), map_descriptors(references, ids=ids)
    prepared = Normalised.unchanged(query_set)
    if background:
        prepared = normalise(query_set, read_descriptors(*background, ids=ids), config=config)
    with bar("comparing", quiet) as advance:
        pairs = best_pairs(
            prepared.queries,
            sets,
            max_pairs=max_pairs,
            per_query=per_query,
            bias=prepared.bias,
            transform=prepared.transform,
            n_threads=options.threads,
            progress=lambda done, rows: advance(done, rows, ""),
        )
    write_pairs(out, pairs, decimals=None if all_digits else 6)
    say(quiet, f"{len(pairs)} pairs: {out}")
    return 0


def evaluate(
    *,
    pairs: Path,
    truth: Path,
    queries_after: MaybeText = None,
    max_pairs: int = 500_000,
    resamples: int = 200,
    seed: int = 0,
    json_out: Annotated[
        Path | None, tyro.conf.arg(name="json", metavar="PATH", help_behavior_hint="")
    ] = None,
    report: MaybePath = None,
    query_images: MaybePath = None,
    reference_images: MaybePath = None,
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

    require_outputs(json_out, report)
    require_counts(max_pairs=max_pairs)
    require_seed(seed)
    require_there([folder for folder in (query_images, reference_images) if folder is not None])
    result = room.evaluate(
        read_pairs(pairs),
        read_truth(truth),
        queries_after=queries_after,
        max_pairs=max_pairs,
        n_resamples=resamples,
        bootstrap_rng=np.random.default_rng(seed),
    )
    print(room.format_official(result), end="")
    talk.print(result.protocol, style="dim", soft_wrap=True)
    for name, (low, high) in result.intervals.items():
        talk.print(f"{name}: {low:.5f} to {high:.5f} (95 %)", style="dim")
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


def calibrate(
    pictures: Pictures,
    /,
    *,
    model: Path,
    background: Path,
    unrelated: tuple[Path, ...],
    copies: int = 8,
    seed: int = 0,
    source: str = "",
    report: MaybePath = None,
    threads: MaybeCount = None,
    quiet: Flag = False,
) -> int:
    """Measure what a model's scores mean and store it, with a background set, in its folder.

    Args:
        pictures: Pictures, folders, shards the model was not trained on; copies are made of them.
        model: Model folder that gets background.h5 and calibration.json.
        background: Descriptor file of images that match nothing, some 10,000 of them.
        unrelated: Descriptor files of other images that match nothing.
        copies: Copies made of each picture.
        seed: Seed of the edits.
        source: Where the pictures come from, for the record.
        report: Write a page with the reliability diagram to this file.
        threads: Processors to use.
        quiet: No progress and no summary.
    """
    require_outputs(report)
    require_counts(copies=copies)
    require_seed(seed)
    options = settled(model, threads=threads)
    from vit4icd import calibrate as room
    from vit4icd.datasets import open_images
    from vit4icd.report import write_page
    from vit4icd.storage import read_descriptors

    with bar("calibrating", quiet) as advance:
        result = room.calibrate(
            open_describer(options),
            open_images(pictures),
            background=read_descriptors(background, ids="path"),
            unrelated=read_descriptors(*unrelated, ids="path"),
            folder=model,
            n_copies=copies,
            seed=seed,
            source=source,
            progress=lambda done, n: advance(done, n, ""),
        )
    table = Table("references", "precision", "score", "recall", box=None)
    for row in room.threshold_rows(result.calibration):
        table.add_row(*row)
    print_table(table, None)
    if result.n_skipped:
        say(quiet, f"{counted(result.n_skipped, 'picture')} could not be read")
    if report is not None:
        write_page(report, room.calibration_page(result))
    say(quiet, f"stored in {model}")
    return 0


def demo(*, out: Path = Path("demo-report"), model: MaybePath = None, quiet: Flag = False) -> int:
    """Find which of the packaged pictures are copies of which photographs, and show it.

    Args:
        out: Folder for the report.
        model: Model folder; the packaged model by default.
        quiet: No progress.
    """
    require_outputs(folder=out)
    options = settled(model)
    from vit4icd.demo import run_demo

    with bar("describing", quiet) as advance:
        result = run_demo(
            out,
            open_describer(options),
            progress=lambda done, n: advance(done, n, ""),
        )
    table = Table("query", "found", "verdict", "score", "proven", "edit", "right", box=None)
    for row in result.rows:
        right = Text("yes", "green") if row.is_right else Text("no", "red")
        table.add_row(
            row.query, row.reference, row.verdict, f"{row.score:.3f}", row.shares, row.edit, right
        )
    print_table(table, None)
    print(result.headline)
    print(f"report: {result.report}")
    return 0


def _require_csv(out: Path) -> None:
    """Refuse, before any work, what cannot be written to, or is named as another format is."""
    require_outputs(out)
    if (ending := out.suffix.lower()) in (".h5", ".json", ".jsonl", ".parquet"):
        raise ConfigError(f"pairs are written as CSV: end the name of --out in .csv, not {ending}")


def _share(text: str) -> tuple[int, int]:
    index, slash, n_shares = text.partition("/")
    if not (slash and index.isdecimal() and n_shares.isdecimal()):
        raise ConfigError(f"--share is i/n, such as 0/4, not {text!r}")
    return int(index), int(n_shares)
