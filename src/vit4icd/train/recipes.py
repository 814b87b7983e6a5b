"""The named training runs: functions that return a frozen configuration; they train nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from vit4icd.edits import EditConfig, robust_config
from vit4icd.errors import ConfigError
from vit4icd.preprocessing import OFFICIAL, Preprocessing
from vit4icd.train.descriptor import Architecture
from vit4icd.train.feed import FeedConfig
from vit4icd.train.loop import LoopConfig
from vit4icd.train.schedule import Schedule
from vit4icd.train.stages import LossConfig

__all__ = [
    "RECIPES",
    "STAGES",
    "Recipe",
    "StageConfig",
    "StageName",
    "cpu",
    "levels",
    "override",
    "paper",
    "refine",
    "small",
    "tiny",
]

StageName = Literal["teacher", "student", "tune", "pairs"]
STAGES: tuple[StageName, ...] = ("teacher", "student", "tune", "pairs")
"""The stages in the order they run: 1, 2a, 2b and 3 of the paper."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """One stage: the network, its images, its losses and the loop it runs in."""

    architecture: Architecture
    feed: FeedConfig
    loop: LoopConfig
    losses: LossConfig = field(default_factory=LossConfig)
    needs_start: bool = False
    """Whether fresh weights are refused, for the stage goes on from a trained model."""

    def __post_init__(self) -> None:
        if self.architecture.image_size != self.feed.image_size:
            raise ConfigError(
                f"the network is built for {self.architecture.image_size} px, but its images are "
                f"{self.feed.image_size} px"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The four stages, and how the finished model wants its images prepared."""

    name: str
    teacher: StageConfig
    student: StageConfig
    tune: StageConfig
    pairs: StageConfig
    preprocessing: Preprocessing
    """Its picture size is not used: every stage's model takes that of its network."""
    seed: int = 0

    def __post_init__(self) -> None:
        is_colour = self.preprocessing.colour == "colour"
        for name in STAGES:
            if self.stage(name).feed.colour != is_colour:
                raise ConfigError(
                    f"{name}.feed.colour is {str(not is_colour).lower()}, but preprocessing.colour "
                    f"is {self.preprocessing.colour!r}: a model is used on what it was trained on"
                )

    def stage(self, name: StageName) -> StageConfig:
        """Return the stage of that name."""
        return {
            "teacher": self.teacher,
            "student": self.student,
            "tune": self.tune,
            "pairs": self.pairs,
        }[name]


def paper() -> Recipe:
    """Return ViT4ICD as published: 100,000 classes of offline gray copies, 560,000 steps.

    Source: the official code's scripts; method, hyper-parameters and schedules are theirs. Two
    choices differ: labelled pairs are shuffled jointly, and all stages are seeded.
    """
    feed = FeedConfig(image_size=224, colour=False, n_classes=32, n_copies=4, n_workers=8)
    long = Schedule(n_epochs=25, steps_per_epoch=8000, learning_rate=3.5e-4, decay_from_epoch=10)
    short = replace(long, n_epochs=10, decay_from_epoch=5)
    student = StageConfig(
        architecture=Architecture(name="vit_base", image_size=224, drop_path=0.1),
        feed=replace(feed, n_support=128),
        loop=LoopConfig(schedule=long),
    )
    tune = replace(student, loop=LoopConfig(schedule=short, keep_eval_mode=True))
    return Recipe(
        name="paper",
        teacher=StageConfig(
            architecture=Architecture(name="resnet50", image_size=256, wave_block=True),
            feed=replace(feed, image_size=256),
            loop=LoopConfig(schedule=long),
        ),
        student=student,
        tune=tune,
        pairs=replace(tune, feed=replace(feed, n_support=128, n_pairs=128)),
        preprocessing=OFFICIAL,
    )


def small() -> Recipe:
    """Return the recipe of this project's own models: colour, edits on the fly, a small ViT.

    The teacher is an EfficientNet-Lite0 that starts from ImageNet weights and describes by two
    levels of its maps (decision 14), the student the first eight blocks of a ViT-S/14, to start
    from DINOv2's. Batches and worker processes suit one GPU beside 16 processor cores, which make
    the copies.
    """
    feed = FeedConfig(
        image_size=224,
        colour=True,
        n_classes=256,
        n_copies=2,
        edits=robust_config(1.0),
        plain_share=0.2,
        n_workers=14,
    )
    losses = LossConfig(classes=0.1, contrast=1.0, entropy=2.0)
    long = Schedule(
        n_epochs=20, steps_per_epoch=150, learning_rate=1e-3, warmup_epochs=1, decay_from_epoch=4
    )
    short = replace(long, n_epochs=5, learning_rate=2e-4, decay_from_epoch=2)
    loop = LoopConfig(
        schedule=long,
        backbone_rate=0.3,
        weight_decay=0.01,
        ema_decay=0.999,
        precision="bfloat16",
        save_every_s=60.0,
    )
    student = StageConfig(
        architecture=Architecture(
            name="vit_small_14", image_size=224, drop_path=0.05, pooling="patches"
        ),
        feed=replace(feed, n_support=256),
        loop=replace(loop, schedule=replace(long, steps_per_epoch=300), backbone_rate=0.1),
        losses=replace(losses, compatibility=10.0),
    )
    tune = replace(student, loop=replace(student.loop, schedule=short, keep_eval_mode=True))
    return Recipe(
        name="small",
        teacher=StageConfig(
            architecture=Architecture(name="efficientnet_lite0", image_size=224, pooling="levels"),
            feed=feed,
            loop=loop,
            losses=losses,
        ),
        student=student,
        tune=tune,
        pairs=replace(tune, feed=replace(student.feed, n_pairs=64)),
        preprocessing=_colour_preprocessing(224),
    )


def cpu() -> Recipe:
    """Return what two CPU cores train in about an hour: the teacher, hardly the rest.

    The teacher fine-tunes an EfficientNet-Lite0 from ImageNet weights on contrast alone, at 160 px;
    classification heads of many thousand classes would cost more than they teach in so few steps.
    The student's stages run for a few minutes each, which shows the way and trains no good ViT.
    """
    edits = robust_config(1.0)
    feed = FeedConfig(
        image_size=160, colour=True, n_classes=64, n_copies=2, edits=edits, plain_share=0.35
    )
    losses = LossConfig(classes=0.0, contrast=1.0, entropy=2.0, compatibility=10.0)
    long = Schedule(
        n_epochs=56, steps_per_epoch=25, learning_rate=1e-3, warmup_epochs=2, decay_from_epoch=4
    )
    loop = LoopConfig(
        schedule=long,
        backbone_rate=0.3,
        weight_decay=0.01,
        ema_decay=0.999,
        precision="bfloat16",
        save_every_s=60.0,
    )
    brief = Schedule(
        n_epochs=4, steps_per_epoch=10, learning_rate=5e-4, warmup_epochs=1, decay_from_epoch=2
    )
    student = StageConfig(
        architecture=Architecture(name="vit_small", image_size=160, drop_path=0.05),
        feed=replace(feed, n_classes=16, n_support=32),
        loop=replace(loop, schedule=brief, backbone_rate=1.0),
        losses=losses,
    )
    tune = replace(student, loop=replace(student.loop, keep_eval_mode=True))
    return Recipe(
        name="cpu",
        teacher=StageConfig(
            architecture=Architecture(name="efficientnet_lite0", image_size=160),
            feed=feed,
            loop=loop,
            losses=losses,
        ),
        student=student,
        tune=tune,
        pairs=replace(tune, feed=replace(student.feed, n_pairs=32)),
        preprocessing=_colour_preprocessing(160),
    )


def refine() -> Recipe:
    """Return what goes on from the finished teacher of ``cpu`` with harder batches.

    A quarter of an hour more at half the learning rate, on batches that hold 16 classes, each
    beside three of the ten that look most like it. The other stages are those of ``cpu``.
    """
    recipe = cpu()
    teacher = recipe.teacher
    schedule = replace(
        teacher.loop.schedule, n_epochs=12, learning_rate=5e-4, warmup_epochs=1, decay_from_epoch=2
    )
    return replace(
        recipe,
        name="refine",
        seed=1,
        teacher=replace(
            teacher,
            feed=replace(teacher.feed, n_neighbours=3),
            loop=replace(teacher.loop, schedule=schedule),
        ),
    )


def levels() -> Recipe:
    """Return what goes on from a teacher of ``cpu`` that describes by two levels of its maps.

    Two hours at a small rate, norms as they are, on the contrast of descriptors whose
    projection was learnt on copies already (``vit4icd export --levels --whiten ... --copies 3``);
    the finer level had not been trained for copies before. More copies are hidden in other pictures
    than ``cpu`` hides, and fewer left plain. The other stages are those of ``cpu``.
    """
    recipe = cpu()
    teacher = recipe.teacher
    assert teacher.feed.edits is not None
    hidden = replace(teacher.feed.edits, hide_share=0.35)
    schedule = Schedule(
        n_epochs=200, steps_per_epoch=10, learning_rate=2e-4, warmup_epochs=1, decay_from_epoch=20
    )
    loop = replace(
        teacher.loop,
        schedule=schedule,
        backbone_rate=0.5,
        ema_decay=0.99,
        precision="float32",
        keep_eval_mode=True,
    )
    return replace(
        recipe,
        name="levels",
        teacher=replace(
            teacher,
            architecture=replace(teacher.architecture, pooling="levels"),
            feed=replace(teacher.feed, edits=hidden, plain_share=0.2),
            loop=loop,
            losses=replace(teacher.losses, entropy=10.0),
            needs_start=True,
        ),
    )


def tiny() -> Recipe:
    """Return all four stages at a size that a test can run: 32 px, a few steps."""
    feed = FeedConfig(
        image_size=32, colour=True, n_classes=4, n_copies=2, edits=EditConfig(), shift=2,
        n_workers=0,
    )  # fmt: skip
    schedule = Schedule(
        n_epochs=2, steps_per_epoch=3, learning_rate=1e-3, warmup_epochs=1, decay_from_epoch=1
    )
    loop = LoopConfig(schedule=schedule)
    student = StageConfig(
        architecture=Architecture(name="vit_test", image_size=32, dim=16, drop_path=0.1),
        feed=replace(feed, n_support=4),
        loop=loop,
    )
    tune = replace(student, loop=replace(loop, keep_eval_mode=True))
    return Recipe(
        name="tiny",
        teacher=StageConfig(
            architecture=Architecture(name="resnet_test", image_size=32, dim=16, wave_block=True),
            feed=feed,
            loop=loop,
        ),
        student=student,
        tune=tune,
        pairs=replace(tune, feed=replace(feed, n_support=4, n_pairs=4)),
        preprocessing=_colour_preprocessing(32),
    )


def override(recipe: Recipe, *settings: str) -> Recipe:
    """Return the recipe with fields changed, as in ``teacher.loop.schedule.n_epochs=3``.

    The values are JSON; text needs no quotes. All are set at once, so that fields that must agree,
    such as two picture sizes, can be changed together; of two values for one field the last counts.

    Raises:
        ConfigError: no such field, a value of another kind, or one that the field's owner refuses.
    """
    changed: Recipe = _changed(recipe, [_parsed(setting) for setting in settings])
    return changed


_Change = tuple[Sequence[str], Any]  # names that lead to a field, and its new value


def _parsed(setting: str) -> _Change:
    path, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"expected field=value, not {setting!r}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return path.strip().split("."), value


def _changed(owner: Any, changes: Sequence[_Change], path: str = "") -> Any:
    known = [each.name for each in fields(owner)] if is_dataclass(owner) else []
    by_name: dict[str, list[_Change]] = {}
    for (name, *rest), value in changes:
        if name not in known:
            raise ConfigError(
                f"{path}{name}: there is no field {name!r}; known: {', '.join(known)}"
            )
        by_name.setdefault(name, []).append((rest, value))
    return replace(
        owner,
        **{name: _value(getattr(owner, name), within, path + name)
           for name, within in by_name.items()},
    )  # fmt: skip


def _value(current: Any, changes: Sequence[_Change], path: str) -> Any:
    """Return what a field becomes, itself changed inside or another of its kind."""
    if deeper := [change for change in changes if change[0]]:
        return _changed(current, deeper, f"{path}.")
    _, value = changes[-1]
    if isinstance(current, tuple) and isinstance(value, list):
        value = tuple(value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if current is not None and type(value) is not type(current):
        raise ConfigError(f"{path} is {type(current).__name__}, not {value!r}")
    return value


def _colour_preprocessing(image_size: int) -> Preprocessing:
    return Preprocessing(
        image_size=image_size,
        colour="colour",
        resizer="bicubic",
        decode="reduced",
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (paper(), small(), cpu(), refine(), levels(), tiny())
}
"""The recipes by name."""
