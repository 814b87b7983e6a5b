"""A recipe from data to model folders: stages in order, weights handed on; it optimises nothing."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vit4icd
from vit4icd.datasets import ClassSource, ImageSource
from vit4icd.errors import ConfigError, MismatchError
from vit4icd.labelled_pairs import LabelledPairs
from vit4icd.storage import file_sha256, read_json, read_model_card, write_json
from vit4icd.train.checkpoint import ImportedWeights, import_weights, load_backbone, require_fit
from vit4icd.train.descriptor import DescriptorModel, build
from vit4icd.train.export import export, load_model, require_place
from vit4icd.train.feed import Feed, FeedConfig, open_feed, require_usable
from vit4icd.train.loop import Progress, run
from vit4icd.train.neighbours import ClassOrder, InGroups, nearest_classes
from vit4icd.train.processes import Place, wait_for_all
from vit4icd.train.recipes import STAGES, Recipe, StageConfig, StageName
from vit4icd.train.runs import load_into, load_learner, save_learner
from vit4icd.train.stages import Learner, StageLoss, pairs_loss, student_loss, teacher_loss
from vit4icd.types import DescriptorSet

__all__ = ["TrainingData", "train"]

_LOSSES: dict[StageName, StageLoss] = {
    "teacher": teacher_loss,
    "student": student_loss,
    "tune": student_loss,
    "pairs": pairs_loss,
}
_N_NEAREST = 10  # look-alikes of a class out of which a batch's are drawn
_CONTINUES: dict[StageName, StageName] = {"tune": "student", "pairs": "tune"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData:
    """What a run learns from, and how that data may be used further."""

    classes: ClassSource
    support: ImageSource | None = None
    """Unedited images for the compatibility loss; the classes' own images when absent."""
    pairs: LabelledPairs | None = None
    """Labelled pairs of stage 3; edited copies and their originals when absent."""
    descriptors: DescriptorSet | None = None
    """Descriptors of the classes' images, where batches are to hold classes that look alike."""
    name: str = ""
    """Where it came from, for the record."""
    licence: str = "unknown"
    """Licence of the models trained on it, for the record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    recipe: Recipe
    data: TrainingData
    out: Path
    starts: Mapping[StageName, Path] = field(default_factory=dict)
    weights: Mapping[StageName, ImportedWeights] = field(default_factory=dict)
    """What those starts hold, of the stages to run."""
    teacher: Path | None = None
    resume: bool = False
    place: Place
    progress: Callable[[StageName], Progress] | None = None


def train(
    recipe: Recipe,
    data: TrainingData,
    *,
    out: Path,
    place: Place,
    stages: Sequence[StageName] = STAGES,
    starts: Mapping[StageName, Path] | None = None,
    teacher: Path | None = None,
    resume: bool = False,
    progress: Callable[[StageName], Progress] | None = None,
) -> Path:
    """Run stages of a recipe in order and return the last one's model folder.

    Each stage works in ``out/<stage>`` and leaves there config.json (written before its first
    step), log.jsonl, averaged.pt (what the next stage starts from) and the folder ``model``.
    ``starts`` maps a stage to a weights file, or model folder, that it starts from; ``teacher`` is
    a model folder to use as the teacher instead of the one in ``out``. With ``resume``, finished
    stages are skipped and an unfinished one goes on.

    Raises:
        ConfigError: the folder holds a run and ``resume`` is not set, or a needed stage or start is
            missing.
        WeightsError: a start of another network, or of another pooling.
        MismatchError: the folder's run has another configuration.
        DataError: fewer pictures than a batch needs, or labelled pairs that cannot be read.
        KeyboardInterrupt: the run was told to stop; its state is saved.
    """
    starts = starts or {}
    job = _Run(
        recipe=recipe,
        data=data,
        out=out,
        starts=starts,
        weights={name: _weights(starts[name]) for name in stages if name in starts},
        teacher=teacher,
        resume=resume,
        place=place,
        progress=progress,
    )
    if not stages:
        raise ConfigError(f"name at least one stage of {', '.join(STAGES)}")
    for name in stages:
        _require_start(recipe.stage(name), job.weights.get(name), name)
    if place.leads and "pairs" in stages and data.pairs is not None:
        require_usable(data.pairs, at_least=recipe.pairs.feed.n_pairs)
    for name in sorted(stages, key=STAGES.index):
        _run_stage(job, name)
    return out / max(stages, key=STAGES.index) / "model"


def _require_start(stage: StageConfig, start: ImportedWeights | None, name: StageName) -> None:
    """Refuse a start that cannot be used before anything is written of the run."""
    if start is not None:
        require_fit(stage.architecture, start)
    elif stage.needs_start:
        raise ConfigError(
            f"this recipe goes on from a trained model: pass its folder with --start {name}=FOLDER"
        )


def _run_stage(job: _Run, name: StageName) -> None:
    folder, stage = job.out / name, job.recipe.stage(name)
    if job.place.leads:
        _claim(job, name, folder)
    wait_for_all(job.place)
    if (folder / "averaged.pt").exists() and (folder / "model").exists():
        return
    if job.place.leads:
        require_place(folder / "model")
    learner = _learner(job, name, stage)
    if not (folder / "averaged.pt").exists():
        _optimise(job, name, stage, learner)
    if job.place.leads:
        load_into(learner, load_learner(folder / "averaged.pt"), folder)
        _export(job, name, learner.model)
    wait_for_all(job.place)


def _claim(job: _Run, name: StageName, folder: Path) -> None:
    config = _describe_run(job, name)
    if (folder / "config.json").exists():
        if not job.resume:
            raise ConfigError(f"{folder} holds a run: go on with --resume, or choose another --out")
        found = read_json(folder / "config.json")
        if found != config:
            names = ", ".join(sorted(key for key in config if found.get(key) != config[key]))
            raise MismatchError(
                f"{folder}/config.json describes another run than this command ({names}); use the "
                "options of that run, or choose another --out"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)


def _optimise(job: _Run, name: StageName, stage: StageConfig, learner: Learner) -> None:
    data, folder = job.data, job.out / name
    feed = Feed(
        stage.feed,
        data.classes,
        support=data.support,
        pairs=data.pairs,
        class_order=_class_order(data, stage.feed),
        seed=job.recipe.seed,
        place=job.place,
    )
    state = run(
        learner,
        partial(open_feed, feed),
        config=stage.loop,
        folder=folder,
        place=job.place,
        seed=job.recipe.seed,
        resume=job.resume,
        progress=None if job.progress is None else job.progress(name),
    )
    if job.place.leads:
        save_learner(folder / "averaged.pt", state)
        (folder / "last.pt").unlink(missing_ok=True)


def _class_order(data: TrainingData, feed: FeedConfig) -> ClassOrder | None:
    if not feed.n_neighbours:
        return None
    if data.descriptors is None:
        raise ConfigError(
            "this recipe trains look-alikes side by side and needs to know them: describe the "
            "training pictures and pass the file with --neighbours, or --set "
            "teacher.feed.n_neighbours=0"
        )
    nearest = nearest_classes(data.classes, data.descriptors, n_nearest=_N_NEAREST)
    return InGroups(nearest, feed.n_neighbours)


def _learner(job: _Run, name: StageName, stage: StageConfig) -> Learner:
    torch.manual_seed(job.recipe.seed)
    model = build(stage.architecture)
    if name in job.weights:
        load_backbone(model, job.weights[name])
    learner = Learner(
        model,
        _LOSSES[name],
        n_classes=job.data.classes.n_classes,
        config=stage.losses,
        image_mean=job.recipe.preprocessing.mean,
        image_std=job.recipe.preprocessing.std,
        teacher=None if name == "teacher" else _teacher(job).to(job.place.device),
    )
    previous = _CONTINUES.get(name)
    if previous is not None and name not in job.starts:
        path = _finished(job, previous)
        load_into(learner, load_learner(path), path)
    return learner


def _weights(path: Path) -> ImportedWeights:
    """Read a weights file, or the torch weights of a model folder."""
    if not path.is_dir():
        return import_weights(path)
    model = load_model(path)
    return ImportedWeights(
        kind="model folder",
        architecture=model.architecture,
        state=model.state_dict(),
        complete=True,
    )


def _teacher(job: _Run) -> DescriptorModel:
    if job.teacher is not None:
        return load_model(job.teacher)
    return load_model(_finished(job, "teacher").parent / "model")


def _finished(job: _Run, name: StageName) -> Path:
    path = job.out / name / "averaged.pt"
    if not path.exists():
        raise ConfigError(f"stage {name!r} has to be finished first: {path} is missing")
    return path


def _export(job: _Run, name: StageName, model: DescriptorModel) -> None:
    stage = job.recipe.stage(name)
    export(
        model,
        replace(job.recipe.preprocessing, image_size=stage.architecture.image_size),
        job.out / name / "model",
        provenance=_before(job.starts.get(name))
        + (
            f"vit4icd {vit4icd.__version__}, recipe {job.recipe.name!r}, stage {name!r}, trained "
            f"on {job.data.name or 'unnamed data'} ({job.data.classes.n_classes} classes)"
        ),
        licence=job.data.licence,
        config=_describe_run(job, name),
        seed=job.recipe.seed,
    )


def _before(start: Path | None) -> str:
    """Return what the model folder that a stage started from says of itself."""
    return f"{read_model_card(start).provenance}; then " if start and start.is_dir() else ""


def _describe_run(job: _Run, name: StageName) -> dict[str, Any]:
    """Return what a stage's config.json records: enough to know whether a run is the same."""
    start = job.starts.get(name)
    if start is not None and start.is_dir():
        start /= "model.safetensors"
    return {
        "package_version": vit4icd.__version__,
        "recipe": job.recipe.name,
        "stage": name,
        "seed": job.recipe.seed,
        "config": _plain(asdict(job.recipe.stage(name))),
        "preprocessing": job.recipe.preprocessing.to_json(),
        "data": job.data.name,
        "n_images": len(job.data.classes),
        "n_classes": job.data.classes.n_classes,
        "support_sha256": None if job.data.support is None else _digest(job.data.support.names),
        "pairs_sha256": None if job.data.pairs is None else _digest(_names_in(job.data.pairs)),
        "start_sha256": None if start is None else file_sha256(start),
        "teacher": None if job.teacher is None else read_model_card(job.teacher).fingerprint,
        "neighbours": None if job.data.descriptors is None else job.data.descriptors.fingerprint,
        "n_processes": job.place.n_processes,
    }


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _names_in(pairs: LabelledPairs) -> Iterator[str]:
    for query, reference in zip(pairs.queries, pairs.references, strict=True):
        yield from (str(query), str(reference))


def _plain(value: Any) -> Any:
    """Return the value as JSON would give it back, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
