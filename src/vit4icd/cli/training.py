"""The verbs of the training wing, which they import only when they are called; and of edits."""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vit4icd.cli.arguments import Flag, MaybeCount, MaybePath, MaybeText
from vit4icd.cli.options import require_seed, settled
from vit4icd.cli.terminal import bar, say, talk
from vit4icd.errors import MissingExtraError

__all__ = ["edits", "export", "import_weights", "prepare_copies", "train"]

StageName = Literal["teacher", "student", "tune", "pairs"]


def train(
    recipe: Positional[Literal["paper", "small", "cpu", "refine", "levels", "tiny"]],
    /,
    *,
    data: Path,
    out: Path,
    resume: Flag = False,
    stages: tuple[StageName, ...] = ("teacher", "student", "tune", "pairs"),
    pairs: MaybePath = None,
    support: MaybePath = None,
    start: tuple[str, ...] = (),
    teacher: MaybePath = None,
    neighbours: MaybePath = None,
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: MaybeCount = None,
    licence: str = "unknown",
    quiet: Flag = False,
) -> int:
    """Train by a recipe: teacher, student, tuned student, labelled pairs; goes on with --resume.

    Args:
        recipe: paper is ViT4ICD as published; cpu trains in about an hour on two cores,
            refine goes on from its teacher for a quarter of one, levels for more than one from a
            teacher that describes by two levels of maps.
        data: Folder of pictures, of the original's {class}_{j}.jpg copies, or of tar shards.
        out: Folder of the run; each stage leaves its log, weights and model folder there.
        resume: Go on with the run in --out.
        stages: The stages to run, out of teacher, student, tune and pairs.
        pairs: Labelled pairs of stage 3: a CSV query,reference, or the original's folders.
        support: Unedited pictures for the compatibility loss; those of --data by default.
        start: STAGE=PATH, weights or a model folder that a stage starts from.
        teacher: Model folder of the teacher, when its stage is not run.
        neighbours: Descriptor file of --data; recipes that train look-alikes side by side need it.
        settings: FIELD=VALUE changes a field of the recipe: teacher.loop.schedule.n_epochs=3
        device: Where to train; several processes are started with torchrun.
        threads: Processors to use.
        licence: Licence of the models, for the record.
        quiet: No progress.
    """
    _require_the_extra()
    from vit4icd.train import command

    run = command.Options(
        recipe=recipe, data=data, out=out, resume=resume, stages=stages, pairs=pairs,
        support=support, start=start, teacher=teacher, neighbours=neighbours, settings=settings,
        device=device, threads=settled(threads=threads).threads, licence=licence,
    )  # fmt: skip
    with bar("training", quiet) as advance:
        folder = command.train(run, progress=advance)
    say(quiet, f"model folder: {folder}")
    return 0


def import_weights(
    file: Positional[Path],
    /,
    *,
    out: Path,
    licence: str = "unknown",
    overwrite: Flag = False,
) -> int:
    """Turn an official checkpoint, or ImageNet weights to start from, into a model folder.

    Args:
        file: A .pth or .pth.tar file: ViT4ICD stage 1 to 3, DeiT or timm ViT, torchvision or
            Barlow Twins ResNet-50, EfficientNet-Lite0.
        out: The model folder to write, new or empty.
        licence: Licence of the weights, for the record.
        overwrite: Replace the model folder in --out, with its background set and calibration.
    """
    _require_the_extra()
    from vit4icd.train import command

    kind, complete = command.import_weights(file, out, licence=licence, overwrite=overwrite)
    remark = "" if complete else "; the projection is untrained: start a training from it"
    talk.print(f"{kind}: {out}{remark}", soft_wrap=True)
    return 0


def export(
    model: Positional[Path],
    /,
    *,
    out: Path,
    image_size: MaybeCount = None,
    half: Flag = False,
    licence: MaybeText = None,
    threshold: tuple[str, ...] = (),
    without_torch_weights: Flag = False,
    average: tuple[Path, ...] = (),
    whiten: tuple[Path, ...] = (),
    copies: int = 0,
    levels: Flag = False,
    overwrite: Flag = False,
    quiet: Flag = False,
) -> int:
    """Write a model folder anew: at another size, in half precision, averaged, whitened.

    Args:
        model: A model folder with model.safetensors.
        out: The model folder to write, new or empty.
        image_size: Pixels of the square input; a ViT's positions are interpolated.
        half: Store the weights in half precision.
        licence: Licence to state; the folder's own by default.
        threshold: NAME=SCORE, a threshold to state, such as P90=0.6 for 90 % precision.
        without_torch_weights: Leave out model.safetensors, which training starts from.
        average: Model folders of the same network whose weights to average with this one's.
        whiten: Pictures, folders and tar shards, some thousand pictures; the projection is replaced
            by one that evens out what they have in common.
        copies: Learn the projection on so many edited copies of each picture of --whiten.
        levels: Describe by a finer map of an EfficientNet beside its last one; with --whiten.
        overwrite: Replace the model folder in --out, with its background set and calibration.
        quiet: No progress.
    """
    _require_the_extra()
    from vit4icd.train import command

    with bar("projection", quiet or not whiten) as advance:
        card = command.export(
            model,
            out,
            image_size=image_size,
            half=half,
            licence=licence,
            thresholds=threshold,
            torch_weights=not without_torch_weights,
            average=average,
            whiten=whiten,
            copies=copies,
            levels=levels,
            overwrite=overwrite,
            progress=lambda done, n: advance(done, n, ""),
        )
    talk.print(f"{out}: fingerprint {card.fingerprint}")
    return 0


def edits(image: Positional[Path], /, *, out: Path, donors: MaybePath = None) -> int:
    """Draw a contact sheet of every edit at three strengths.

    Args:
        image: The picture to edit.
        out: The sheet to write, .jpg or .png.
        donors: Folder of pictures to mix in; the picture itself, mirrored, by default.
    """
    from vit4icd.copies import write_contact_sheet

    write_contact_sheet(image, out, donors=donors)
    talk.print(str(out))
    return 0


def prepare_copies(
    source: Positional[Path],
    /,
    *,
    out: Path,
    copies: int = 19,
    size: int = 256,
    colour: Flag = False,
    seed: int = 0,
    quiet: Flag = False,
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
    require_seed(seed)
    from vit4icd.copies import prepare_copies as prepare
    from vit4icd.datasets import open_images

    with bar("editing", quiet) as advance:
        summary = prepare(
            open_images([source]),
            out,
            n_copies=copies,
            size=size,
            gray=not colour,
            seed=seed,
            progress=lambda done, n: advance(done, n, ""),
        )
    say(quiet, f"{summary.n_written} files written, {summary.n_reused} found done: {out}")
    for name, reason in summary.skipped:
        say(quiet, f"skipped {name}: {reason}")
    return 0


def _require_the_extra() -> None:
    for package in ("torch", "onnx", "onnxscript", "safetensors"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train")
