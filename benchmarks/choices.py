"""Choices of training beside each other on one core; ``python -m benchmarks.choices --help``.

The recipe is the teacher of ``cpu``, but its first twelve of sixteen blocks stay as they come from
ImageNet: their maps of all views are made once and kept, so that only the last four blocks, the
pooling and the projection are trained, on views that are each seen once. A model is measured with
its own projection and whitened as the packaged one is. Every finished run is a line of
OUT/results.jsonl and is not made again. It does not say what a whole training would give.
"""

import argparse
import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit4icd.datasets import ClassSource, ImageSource, open_classes, open_images
from vit4icd.evaluate import evaluate
from vit4icd.images import read_image
from vit4icd.preprocessing import prepare
from vit4icd.scores import Normalised, ScoreNormalisation, normalise
from vit4icd.search import best_pairs
from vit4icd.storage import atomic_path, read_truth
from vit4icd.train.checkpoint import import_weights, load_backbone
from vit4icd.train.descriptor import DescriptorModel, build
from vit4icd.train.efficientnet import EfficientNetLite0
from vit4icd.train.feed import Feed
from vit4icd.train.loop import run
from vit4icd.train.processes import Place
from vit4icd.train.recipes import RECIPES, Recipe, override
from vit4icd.train.stages import Learner, teacher_loss
from vit4icd.train.whitening import whiten
from vit4icd.types import DescriptorSet

N_KEPT = 12  # blocks of the backbone that are not trained
N_EPOCHS = 30  # of a schedule in the recipe's proportions
N_FEW = 512  # training pictures of the choices "few"
N_WHITENING = 2500  # training pictures that whitening is measured on
ROLES = ("queries", "references", "background")
BASE = (
    "teacher.loop.precision=float32",
    f"teacher.loop.schedule.n_epochs={N_EPOCHS}",
    "teacher.loop.schedule.warmup_epochs=1",
    "teacher.loop.schedule.decay_from_epoch=2",
)
SIZES = ("teacher.architecture.image_size", "teacher.feed.image_size", "preprocessing.image_size")
HEAD = "teacher.losses.classes=0.1"
Maps = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A variant: the fields of the recipe that it changes, and what is measured of it."""

    settings: tuple[str, ...] = ()
    image_size: int = 112
    share: float = 1.0
    """Steps as a share of the others', where a step takes longer."""
    few: bool = False
    """Learn from ``N_FEW`` pictures, in new copies each time, instead of from all."""
    measured_at: tuple[int, ...] = (112,)
    weights: tuple[str, ...] = ("averaged",)


CHOICES = {
    "untrained": Choice(
        settings=(
            "teacher.loop.schedule.n_epochs=0",
            "teacher.loop.schedule.warmup_epochs=0",
            "teacher.loop.schedule.decay_from_epoch=0",
        )
    ),
    "base": Choice(weights=("averaged", "last")),
    "gray": Choice(settings=("teacher.feed.colour=false", "preprocessing.colour=gray")),
    "entropy 0": Choice(settings=("teacher.losses.entropy=0",)),
    "weak": Choice(settings=("teacher.feed.edits.strength=0.5",)),
    "memory": Choice(settings=("teacher.losses.memory=4096",)),
    "plain 0": Choice(settings=("teacher.feed.plain_share=0",)),
    "head": Choice(settings=(HEAD,)),
    "few": Choice(few=True),
    "few, head": Choice(few=True, settings=(HEAD,)),
    "few, head, margin 0": Choice(
        few=True,
        settings=(HEAD, "teacher.losses.wide_margin=0", "teacher.losses.raw_margin=0"),
    ),
    "temperature 0.1": Choice(settings=("teacher.losses.temperature=0.1",)),
    "temperature 0.025": Choice(settings=("teacher.losses.temperature=0.025",)),
    "160 px": Choice(
        image_size=160,
        share=0.5,
        measured_at=(112, 160),
    ),
    "base at 160": Choice(measured_at=(160,)),
}
"""By name; "160 px" sees half the views, in the time of the others."""


class Trunk(nn.Module):
    """The first blocks of a network: pictures -> the maps that the others start from."""

    def __init__(self, backbone: EfficientNetLite0) -> None:
        super().__init__()
        self.stem, self.norm = backbone._conv_stem, backbone._bn0
        self.blocks = backbone._blocks[:N_KEPT]

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the maps after the last kept block."""
        maps: Tensor = F.relu6(self.norm(self.stem(pixels)))
        for block in self.blocks:
            maps = block(maps)
        return maps


class Rest(nn.Module):
    """The blocks after the trunk's: its maps -> those of the whole network."""

    def __init__(self, backbone: EfficientNetLite0) -> None:
        super().__init__()
        self.dim = backbone.dim
        self.blocks = backbone._blocks[N_KEPT:]
        self.head, self.norm = backbone._conv_head, backbone._bn1

    def forward(self, maps: Tensor) -> Tensor:
        """Return the network's last maps."""
        for block in self.blocks:
            maps = block(maps)
        return F.relu6(self.norm(self.head(maps)))


class First:
    """The first ``N_FEW`` pictures of a source."""

    def __init__(self, images: ImageSource) -> None:
        self.images, self.names = images, images.names[:N_FEW]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Return the bytes of the picture."""
        return self.images.read(index)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """The folders that are read, and the one where maps and results are kept."""

    data: Path
    devset: Path
    start: Path
    out: Path
    steps_per_epoch: int

    def kept(self, key: Any, make: Callable[[], Maps]) -> Maps:
        """Return what was made for a key, or make and keep it."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = self.out / "maps" / f"{name}.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = make()
            with atomic_path(path) as temporary:
                torch.save(made, temporary)
        loaded: Maps = torch.load(path, weights_only=True)
        return loaded

    def files(self, role: str) -> list[Path]:
        """Return the pictures of a role of the development set, or of whitening."""
        if role == "whitening":
            return sorted(self.data.glob("*.tar"))[:1]
        return sorted((self.devset / role).glob("*.jpg"))

    def started(self, recipe: Recipe) -> DescriptorModel:
        """Return the recipe's network with the weights that training starts from."""
        model = build(recipe.teacher.architecture)
        load_backbone(model, import_weights(self.start))
        return model


def main() -> None:
    """Run every choice with every seed, the base first, and print a line for each figure."""
    asked = _asked()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    bench = Bench(
        data=asked.data,
        devset=asked.devset,
        start=asked.start,
        out=asked.out,
        steps_per_epoch=asked.steps_per_epoch,
    )
    results = bench.out / "results.jsonl"
    jobs = [("base", seed) for seed in asked.seeds]
    jobs += [(name, seed) for seed in asked.seeds for name in asked.choices]
    for name, seed in jobs:
        known = results.read_text("utf-8").splitlines() if results.exists() else []
        if any((line["choice"], line["seed"]) == (name, seed) for line in map(json.loads, known)):
            continue
        found = [
            json.dumps({"choice": name, "seed": seed, **figures}, ensure_ascii=False)
            for figures in compare(bench, CHOICES[name], seed)
        ]
        with results.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in found))
        print(*found, sep="\n", flush=True)


def compare(bench: Bench, choice: Choice, seed: int) -> Iterator[dict[str, Any]]:
    """Train one choice with one seed and yield its figures."""
    recipe, views = _recipe(bench, choice, seed), _views(bench, choice)
    learner, folder = _learner(bench, recipe, int(views["labels"].max()) + 1), bench.out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    averaged = run(
        learner,
        lambda _start: _batches(views, recipe),
        config=recipe.teacher.loop,
        folder=folder,
        place=Place(),
    )
    n_images = recipe.teacher.feed.n_classes * recipe.teacher.feed.n_copies
    states = {"averaged": averaged, "last": copy.deepcopy(learner.state_dict())}
    for weights in choice.weights:
        learner.load_state_dict(states[weights])
        for size in choice.measured_at:
            for projection, figures in _measured(bench, recipe, learner.model, size):
                yield {
                    "views": recipe.teacher.loop.schedule.n_steps * n_images,
                    "weights": weights,
                    "size": size,
                    "projection": projection,
                    **figures,
                }


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--devset", type=Path, required=True, help="as benchmarks.devset reads it")
    parser.add_argument("--start", type=Path, required=True, help="EfficientNet-Lite0's weights")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/choices"), help="one for each length"
    )
    parser.add_argument("--choices", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--steps-per-epoch", type=int, default=2, help=f"of {N_EPOCHS} epochs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return parser.parse_args()


def _recipe(bench: Bench, choice: Choice, seed: int) -> Recipe:
    return override(
        RECIPES["cpu"],
        *BASE,
        *(f"{field}={choice.image_size}" for field in SIZES),
        f"teacher.loop.schedule.steps_per_epoch={round(bench.steps_per_epoch * choice.share)}",
        f"seed={seed}",
        f"teacher.loop.seed={seed}",
        *choice.settings,
    )


def _learner(bench: Bench, recipe: Recipe, n_classes: int) -> Learner:
    """Return a learner whose batches are maps of the trunk instead of pictures."""
    torch.manual_seed(recipe.seed)
    model = bench.started(recipe)
    model.backbone = Rest(model.backbone)
    learner = Learner(
        model,
        teacher_loss,
        n_classes=n_classes,
        config=recipe.teacher.losses,
        image_mean=recipe.preprocessing.mean,
        image_std=recipe.preprocessing.std,
    )
    learner.mean, learner.std = torch.zeros(1), torch.full((1,), 1 / 255)  # maps as they are
    return learner


def _batches(views: Maps, recipe: Recipe) -> Iterator[Maps]:
    """Yield all views in an order of the recipe's seed, the copies of a class together."""
    order_rng, feed = np.random.default_rng(recipe.seed), recipe.teacher.feed
    rows_of = np.arange(len(views["labels"])).reshape(-1, feed.n_copies)
    for classes in order_rng.permutation(len(rows_of)).reshape(-1, feed.n_classes):
        rows = torch.from_numpy(rows_of[classes].ravel())
        yield {"images": views["maps"][rows], "labels": views["labels"][rows]}


def _views(bench: Bench, choice: Choice) -> Maps:
    """Return the trunk's maps and the labels of all views, the same for every seed."""
    recipe = _recipe(bench, choice, 0)
    config = replace(recipe.teacher.feed, n_workers=0)
    n_batches = N_EPOCHS * recipe.teacher.loop.schedule.steps_per_epoch

    def make() -> Maps:
        source = open_classes(bench.data)
        if choice.few:
            source = ClassSource(images=First(source.images), labels=source.labels[:N_FEW])
        feed = Feed(config, source, seed=0, place=Place())
        trunk = Trunk(bench.started(recipe).backbone).eval()
        batches = [_seen(trunk, feed[number], recipe) for number in range(n_batches)]
        labels = torch.cat([labels for _, labels in batches])
        return {
            "maps": torch.cat([maps for maps, _ in batches]),
            "labels": torch.unique(labels, return_inverse=True)[1],
        }

    return bench.kept(["views", asdict(config), choice.few, n_batches], make)


def _seen(trunk: Trunk, batch: Maps, recipe: Recipe) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values).reshape(1, 3, 1, 1)
        for values in (recipe.preprocessing.mean, recipe.preprocessing.std)
    )
    return _trunk_maps(trunk, (batch["images"] / 255.0 - mean) / std), batch["labels"]


def _trunk_maps(trunk: Trunk, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        maps: Tensor = trunk(pixels.contiguous(memory_format=torch.channels_last))
        return maps.half().contiguous()


def _measured(
    bench: Bench, recipe: Recipe, model: DescriptorModel, size: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the figures of a trained model with its own projection, and whitened."""
    model = copy.deepcopy(model).eval()
    wide = {
        role: _wide(model, _picture_maps(bench, recipe, size, role))
        for role in ("whitening", *ROLES)
    }
    yield "trained", _figures(bench, model, wide)
    whiten(model, wide["whitening"].numpy())
    yield "whitened", _figures(bench, model, wide)


def _picture_maps(bench: Bench, recipe: Recipe, size: int, role: str) -> Tensor:
    """Return the trunk's maps of the pictures of a role, prepared as the package prepares them."""
    preprocessing = replace(recipe.preprocessing, image_size=size)

    def make() -> Maps:
        trunk = Trunk(bench.started(recipe).backbone).eval()
        pictures = open_images(bench.files(role))
        images = (
            read_image(pictures.read(row), at_least=preprocessing.at_least)
            for row in range(min(len(pictures), N_WHITENING))
        )
        prepared = torch.from_numpy(np.stack([prepare(image, preprocessing) for image in images]))
        return {"maps": torch.cat([_trunk_maps(trunk, some) for some in prepared.split(64)])}

    return bench.kept(["pictures", preprocessing.to_json(), role], make)["maps"]


def _wide(model: DescriptorModel, maps: Tensor) -> Tensor:
    with torch.inference_mode():
        parts = [
            model(some.float().contiguous(memory_format=torch.channels_last))[0]
            for some in maps.split(128)
        ]
    return torch.cat(parts)


def _figures(bench: Bench, model: DescriptorModel, wide: dict[str, Tensor]) -> dict[str, float]:
    truth, sets = read_truth(bench.devset / "ground_truth.csv"), dict[str, DescriptorSet]()
    for role in ROLES:
        with torch.inference_mode():
            vectors = F.normalize(model.projection_norm(model.projection(wide[role]))).numpy()
        sets[role] = DescriptorSet(ids=[path.stem for path in bench.files(role)], vectors=vectors)
    plain = Normalised.unchanged(sets["queries"])
    config = ScoreNormalisation(factor=1.0, neighbours=10)
    normalised = normalise(sets["queries"], sets["background"], config=config)
    figures: dict[str, float] = {}
    for sign, prepared in (("", plain), (", SN", normalised)):
        pairs = best_pairs(
            prepared.queries, sets["references"], bias=prepared.bias, max_pairs=10_000_000
        )
        found = evaluate(
            pairs, truth, max_pairs=10_000_000, n_resamples=0,
            bootstrap_rng=np.random.default_rng(0),
        )  # fmt: skip
        figures[f"µAP{sign}"] = round(found.average_precision, 4)
        figures[f"R@P90{sign}"] = round(found.recall_at_p90 or 0.0, 4)
        figures[f"R@1{sign}"] = round(found.recall_at_rank_1, 4)
    return figures


if __name__ == "__main__":
    main()
