"""What the training verbs of the command line do; the options are checked here, once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from vit4icd.datasets import ImageSource, open_classes, open_images
from vit4icd.edits import robust_config
from vit4icd.errors import ConfigError
from vit4icd.labelled_pairs import read_labelled_pairs
from vit4icd.preprocessing import Preprocessing
from vit4icd.storage import ModelCard, file_sha256, read_descriptors, read_model_card
from vit4icd.train import checkpoint, pipeline, projection, whitening
from vit4icd.train import export as exporting
from vit4icd.train.descriptor import DescriptorModel, build, with_levels
from vit4icd.train.loop import Progress, StepReport
from vit4icd.train.processes import take_place
from vit4icd.train.recipes import RECIPES, STAGES, StageName, override

__all__ = ["Options", "export", "import_weights", "train"]

Advance = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The words of ``vit4icd train``."""

    recipe: Literal["paper", "small", "cpu", "refine", "levels", "tiny"]
    data: Path
    out: Path
    resume: bool = False
    stages: Sequence[StageName] = STAGES
    pairs: Path | None = None
    support: Path | None = None
    start: Sequence[str] = ()
    teacher: Path | None = None
    neighbours: Path | None = None
    settings: Sequence[str] = ()
    device: str = "auto"
    threads: int | None = None
    licence: str = "unknown"


def train(options: Options, *, progress: Advance) -> Path:
    """Run a recipe and return the last model folder.

    Raises:
        ConfigError, MismatchError, DataError: as :func:`vit4icd.train.pipeline.train`.
    """
    recipe = override(RECIPES[options.recipe], *options.settings)
    data = pipeline.TrainingData(
        classes=open_classes(options.data),
        support=None if options.support is None else open_images([options.support]),
        pairs=None if options.pairs is None else read_labelled_pairs(options.pairs),
        descriptors=(
            None if options.neighbours is None else read_descriptors(options.neighbours, ids="path")
        ),
        name=options.data.resolve().name,
        licence=options.licence,
    )
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    def watch(stage: StageName) -> Progress:
        def report(step: StepReport) -> None:
            losses = f"loss {step.losses['loss']:.3f}"
            remark = f"{stage}: {losses}, {step.images_per_s:.0f} images/s"
            progress(step.step, step.n_steps, remark)

        return report

    with take_place(options.device) as place:
        return pipeline.train(
            recipe,
            data,
            out=options.out,
            place=place,
            stages=options.stages,
            starts=dict(map(_start, options.start)),
            teacher=options.teacher,
            resume=options.resume,
            progress=watch,
        )


def import_weights(
    file: Path, out: Path, *, licence: str, overwrite: bool = False
) -> tuple[str, bool]:
    """Write imported weights as a model folder; return their kind and whether they are complete.

    Complete weights are an official model and prepare pictures as the official extraction does;
    others get a fresh projection and colour pictures.

    Raises:
        ConfigError: ``out`` is taken, or the file is a stage of a run, which has a model folder.
        FormatError, WeightsError: as :func:`vit4icd.train.checkpoint.import_weights`.
    """
    exporting.require_place(out, overwrite=overwrite)
    imported = checkpoint.import_weights(file)
    if imported.complete and not imported.official:
        raise ConfigError(
            f"{file} is a stage of a run and does not say how to prepare pictures; use the model "
            f"folder beside it, {file.parent / 'model'} (train --resume writes it where it is lost)"
        )
    torch.manual_seed(0)
    model = build(imported.architecture)
    checkpoint.load_backbone(model, imported)
    size = imported.architecture.image_size
    colours: Literal["gray", "colour"] = "gray" if imported.official else "colour"
    remark = "" if imported.complete else "; the projection is untrained"
    exporting.export(
        model,
        Preprocessing(image_size=size, colour=colours),
        out,
        provenance=f"{imported.kind}, from {file.name} (sha256 {file_sha256(file)}){remark}",
        licence=licence,
        overwrite=overwrite,
    )
    return imported.kind, imported.complete


def export(
    folder: Path,
    out: Path,
    *,
    image_size: int | None = None,
    half: bool = False,
    licence: str | None = None,
    thresholds: Sequence[str] = (),
    torch_weights: bool = True,
    average: Sequence[Path] = (),
    whiten: Sequence[Path] = (),
    copies: int = 0,
    levels: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ModelCard:
    """Write a model folder anew with another image size, precision, thresholds or set of files.

    With ``average``, the weights are the mean of the folder's and of those folders'. With
    ``whiten``, the projection is replaced by one that whitens those pictures, and with ``copies``
    by one learnt on so many edited copies of each of them. With ``levels``, an EfficientNet
    describes by a finer map beside its last one. Thresholds are handed on where scores stay.

    Raises:
        ConfigError: a threshold that is not NAME=SCORE; levels of another network, or levels or
            copies without pictures to whiten on.
        DataError: too few pictures to whiten on.
        FormatError: the folder has no torch weights.
        WeightsError: the exported model disagrees with torch.
    """
    exporting.require_place(out, overwrite=overwrite)
    if copies < 0:
        raise ConfigError(f"--copies is 0 or more, not {copies}")
    if (levels or copies) and not whiten:
        raise ConfigError("--levels and --copies need --whiten: pictures to fit the projection on")
    stated = dict(map(_threshold, thresholds))
    card, model = read_model_card(folder), exporting.load_model(folder, image_size=image_size)
    size = image_size or card.preprocessing.image_size
    is_same = size == card.preprocessing.image_size and not (average or levels or whiten)
    preprocessing = replace(card.preprocessing, image_size=size)
    provenance = card.provenance
    if average:
        exporting.take_mean(model, [exporting.load_model(o, image_size=size) for o in average])
        told = [provenance, *(read_model_card(other).provenance for other in average)]
        provenance = f"mean of {len(told)} models: " + "; ".join(told)
    if levels:
        model = with_levels(model)
        provenance += "; described by two levels"
    if whiten:
        pictures = open_images(whiten)
        provenance += "; " + _new_projection(model, pictures, preprocessing, copies, progress)
    return exporting.export(
        model,
        preprocessing,
        out,
        provenance=provenance,
        licence=licence or card.licence,
        config=card.config,
        seed=card.seed,
        thresholds={**(card.thresholds if is_same else {}), **stated},
        half=half,
        with_torch_weights=torch_weights,
        overwrite=overwrite,
    )


def _new_projection(
    model: DescriptorModel,
    pictures: ImageSource,
    preprocessing: Preprocessing,
    n_copies: int,
    progress: Callable[[int, int], None] | None,
) -> str:
    """Fit the projection and return what was done, for the record."""
    if not n_copies:
        plain = whitening.wide_features(model, pictures, preprocessing, progress=progress)
        whitening.whiten(model, plain)
        return f"whitened on {len(plain)} pictures"
    features = projection.features_of_copies(
        model,
        pictures,
        preprocessing,
        n_copies=n_copies,
        edits=robust_config(1.0),
        progress=progress,
    )
    projection.fit_projection(model, features, progress=progress)
    return f"projection learnt on {n_copies} edited copies each of {len(features)} pictures"


def _threshold(text: str) -> tuple[str, float]:
    name, _, score = text.partition("=")
    try:
        return name, float(score)
    except ValueError as error:
        raise ConfigError(f"--threshold is NAME=SCORE, such as P90=0.6, not {text!r}") from error


def _start(text: str) -> tuple[StageName, Path]:
    name, equals, path = text.partition("=")
    for stage in STAGES:
        if equals and stage == name:
            return stage, Path(path)
    raise ConfigError(f"--start is STAGE=PATH with a stage of {', '.join(STAGES)}, not {text!r}")
