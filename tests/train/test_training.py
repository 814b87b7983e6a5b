"""Training: stopped and resumed runs equal whole ones, on one process and on two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_pictures
from vit4icd.copies import prepare_copies
from vit4icd.datasets import open_classes, open_images
from vit4icd.errors import ConfigError, DataError, MismatchError, WeightsError
from vit4icd.images import read_image
from vit4icd.labelled_pairs import LabelledPairs
from vit4icd.storage import file_sha256, read_json, read_model_card
from vit4icd.train import command
from vit4icd.train.checkpoint import import_weights
from vit4icd.train.export import load_model
from vit4icd.train.feed import Feed, FeedConfig, open_feed
from vit4icd.train.loop import StepReport, run
from vit4icd.train.pipeline import TrainingData, train
from vit4icd.train.processes import Place, take_place
from vit4icd.train.recipes import RECIPES, STAGES, Recipe, StageName, override, tiny
from vit4icd.train.runs import load_learner
from vit4icd.train.stages import Learner, LossConfig, pairs_loss, student_loss, teacher_loss

PLACE = Place()


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    make_pictures(tmp_path / "train", 12)
    return _data(tmp_path)


def _data(folder: Path) -> TrainingData:
    return TrainingData(classes=open_classes(folder / "train"), name="train")


def _run(data: TrainingData, out: Path, **options: object) -> Path:
    return train(tiny(), data, out=out, place=PLACE, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures ("train") and a run of all stages on them ("out")."""
    folder = tmp_path_factory.mktemp("whole")
    make_pictures(folder / "train", 12)
    _run(_data(folder), folder / "out")
    return folder


def _weights(out: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_learner(out / stage / "averaged.pt")


def test_runs_all_stages_and_leaves_a_model_after_each(whole: Path) -> None:
    for stage in ("teacher", "student", "tune", "pairs"):
        out = whole / "out" / stage
        model = load_model(out / "model")
        assert model.describe(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 7))
        config = read_json(out / "config.json")
        assert config["config"]["loop"]["schedule"]["n_epochs"] == 2
        assert not (out / "last.pt").exists()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _stopping_at(stage: str, step: int) -> Callable[[StageName], Callable[[StepReport], None]]:
    def watch(name: StageName) -> Callable[[StepReport], None]:
        def report(state: StepReport) -> None:
            if (name, state.step) == (stage, step):
                os.kill(os.getpid(), signal.SIGINT)

        return report

    return watch


@pytest.mark.parametrize(("stage", "step"), [("teacher", 2), ("student", 3), ("pairs", 5)])
def test_resumes_a_stopped_run_to_the_same_weights(
    stage: StageName, step: int, whole: Path, tmp_path: Path
) -> None:
    data, stopped = _data(whole), tmp_path / "stopped"
    stages = STAGES[: STAGES.index(stage) + 1]
    for finished in stages[:-1]:
        shutil.copytree(whole / "out" / finished, stopped / finished)
    with pytest.raises(KeyboardInterrupt):
        _run(data, stopped, stages=stages, resume=True, progress=_stopping_at(stage, step))
    assert (stopped / stage / "last.pt").exists()
    assert _run(data, stopped, stages=stages, resume=True) == stopped / stage / "model"
    expected, resumed = _weights(whole / "out", stage), _weights(stopped, stage)
    assert expected.keys() == resumed.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(tensor, resumed[key], rtol=0, atol=0)
    logs = [
        [json.loads(line)["loss"] for line in _lines(run / stage / "log.jsonl")]
        for run in (whole / "out", stopped)
    ]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_resumes_a_killed_run_to_the_same_weights(data: TrainingData, tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "vit4icd", "train", "tiny", "--data", str(tmp_path / "train"),
        "--out", str(tmp_path / "killed"), "--device", "cpu", "--stages", "teacher",
        "--threads", "1",
        "--set", "teacher.loop.save_every_s=0", "teacher.loop.schedule.n_epochs=15",
    ]  # fmt: skip
    child = subprocess.Popen(words, stderr=subprocess.PIPE)
    log = tmp_path / "killed" / "teacher" / "log.jsonl"
    while child.poll() is None:
        if log.exists() and log.read_text().count("\n") > 10:
            child.kill()
        time.sleep(0.005)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()
    subprocess.run([*words, "--resume"], check=True, capture_output=True)
    recipe = override(tiny(), *words[words.index("--set") + 1 :])
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(recipe, data, out=tmp_path / "whole", place=PLACE, stages=["teacher"])
    torch.set_num_threads(n_threads)
    one, other = _weights(tmp_path / "whole", "teacher"), _weights(tmp_path / "killed", "teacher")
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, other[key], rtol=0, atol=0)


@pytest.mark.slow
def test_trains_on_two_processes(data: TrainingData, tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "vit4icd", "train", "tiny", "--data", str(tmp_path / "train"),
        "--out", str(tmp_path / "two"), "--device", "cpu", "--threads", "1",
        "--set", "student.losses.contrast=1.0",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "two" / "pairs" / "config.json")["n_processes"] == 2
    lines = (tmp_path / "two" / "pairs" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 7))
    assert load_model(tmp_path / "two" / "pairs" / "model").dim == 16


_GRADIENT = """
import torch
from torch.nn.parallel import DistributedDataParallel
from vit4icd.train.losses import info_nce_entropy, nearest_push
from vit4icd.train.processes import gather_rows, take_place

def work(place):  # so that the model ends before the group of processes does
    torch.manual_seed(0)
    images, labels, layer = torch.randn(8, 4), torch.arange(4).repeat(2), torch.nn.Linear(4, 3)
    n_mine = 8 // place.n_processes
    mine = slice(place.rank * n_mine, (place.rank + 1) * n_mine)
    model = DistributedDataParallel(layer) if place.n_processes > 1 else layer
    raw, names = gather_rows(model(images[mine])), gather_rows(labels[mine])
    loss = info_nce_entropy(raw, names, temperature=0.1, entropy_weight=1.0)
    (loss + nearest_push(raw, names)).backward()
    if place.leads:
        print(*layer.weight.grad.flatten().tolist())

with take_place("cpu") as place:
    work(place)
"""


@pytest.mark.slow
def test_gives_the_same_gradient_on_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "gradient.py"
    script.write_text(_GRADIENT)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    found = list[np.ndarray]()
    for words in (list[str](), [*several, "2"]):
        command = [sys.executable, *words, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(np.fromstring(done.stdout, sep=" "))
    one, two = found
    assert np.abs(one).max() > 0.1
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


def test_takes_unedited_images_and_pairs_out_of_the_offline_layout(
    pictures: Path, tmp_path: Path
) -> None:
    prepare_copies(open_images([pictures]), tmp_path / "copies", n_copies=3, size=32, gray=False)
    source = open_classes(tmp_path / "copies")
    config = replace(tiny().pairs.feed, edits=None, flip=0.0, shift=0)
    batch = Feed(config, source, seed=0, place=PLACE)[0]
    files = [read_image(source.read(row)).transpose(2, 0, 1) for row in range(len(source))]
    rows = {image.tobytes(): row for row, image in enumerate(files)}

    def found(column: str) -> list[str]:
        return [Path(source.names[rows[image.numpy().tobytes()]]).stem for image in batch[column]]

    plain = {Path(name).stem for name in source.names if name.endswith("_0.jpg")}
    assert set(found("support")) <= plain
    assert set(found("references")) <= plain
    assert len(set(found("references"))) == config.n_pairs
    for query, reference in zip(found("queries"), found("references"), strict=True):
        assert query.split("_")[0] == reference.split("_")[0]
        assert query != reference


def test_refuses_processes_that_cannot_share_a_batch(data: TrainingData) -> None:
    with pytest.raises(ConfigError, match="3 processes cannot share 8 images evenly"):
        Feed(tiny().teacher.feed, data.classes, seed=0, place=Place(n_processes=3))


def test_refuses_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="--device cpu"), take_place("cuda"):
        pass


def test_gives_the_same_batch_whoever_makes_it(data: TrainingData) -> None:
    config = tiny().pairs.feed
    one = Feed(config, data.classes, seed=3, place=PLACE)
    made = {name: tensor.numpy() for name, tensor in one[5].items()}
    workers = Feed(replace(config, n_workers=1), data.classes, seed=3, place=PLACE)
    batch = next(iter(open_feed(workers, 5)))
    assert set(batch) == set(made)
    for name, column in made.items():
        np.testing.assert_array_equal(batch[name].numpy(), column)


def test_shares_a_batch_among_processes(data: TrainingData) -> None:
    config = tiny().teacher.feed
    whole = Feed(config, data.classes, seed=3, place=PLACE)[0]["labels"]
    shares = [
        Feed(config, data.classes, seed=3, place=Place(rank=rank, n_processes=2))[0]["labels"]
        for rank in range(2)
    ]
    assert torch.cat(shares).tolist() == whole.tolist()


def test_visits_every_class_equally_often(data: TrainingData) -> None:
    feed = Feed(tiny().teacher.feed, data.classes, seed=0, place=PLACE)
    labels = torch.cat([feed[number]["labels"] for number in range(3)])
    assert torch.bincount(labels).tolist() == [2] * 12


def test_gives_labelled_pairs_aligned_and_shuffled(data: TrainingData, tmp_path: Path) -> None:
    paths = make_pictures(tmp_path / "pairs", 8, seed=9)
    pairs = LabelledPairs(queries=paths, references=paths[:4] + paths[:4])
    config = replace(tiny().pairs.feed, n_pairs=4)
    feed = Feed(config, data.classes, pairs=pairs, seed=1, place=PLACE)
    batches = [feed[number] for number in range(4)]
    seen = [batch["query_names"].tolist() for batch in batches]
    assert sorted(seen[0] + seen[1]) == list(range(8))
    assert seen[:2] != seen[2:]
    for batch in batches:
        assert [name % 4 for name in batch["query_names"].tolist()] == batch[
            "reference_names"
        ].tolist()


def test_goes_on_past_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", 8)
    (tmp_path / "train" / "003.jpg").write_bytes(b"broken")
    feed = Feed(tiny().pairs.feed, open_classes(tmp_path / "train"), seed=0, place=PLACE)
    with pytest.warns(UserWarning, match="003.jpg is left out"):
        batches = [feed[number] for number in range(4)]
    assert all(batch["images"].shape == (8, 3, 32, 32) for batch in batches)


def test_refuses_labelled_pairs_that_cannot_be_read_before_the_first_step(
    data: TrainingData, tmp_path: Path
) -> None:
    paths = make_pictures(tmp_path / "pairs", 8, seed=9)
    paths[5].write_bytes(b"broken")
    pairs = LabelledPairs(queries=paths, references=paths[:4] + paths[:4])
    with pytest.raises(DataError, match=r"1 files of labelled pairs .*005\.jpg"):
        _run(replace(data, pairs=pairs), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_fewer_labelled_pairs_than_a_batch_needs_before_the_first_step(
    data: TrainingData, tmp_path: Path
) -> None:
    paths = make_pictures(tmp_path / "pairs", 3, seed=9)
    pairs = LabelledPairs(queries=paths, references=paths)
    with pytest.raises(DataError, match="a batch needs 4 labelled pairs, but the data has 3"):
        _run(replace(data, pairs=pairs), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Drawing(torch.nn.Module):
    """Remembers what it draws in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1)})
        self.drawn: list[float] = []

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.drawn.append(float(torch.rand(())))
        return {"loss": self.model["backbone"](batch["images"]).sum()}


def test_the_seed_of_a_recipe_reaches_what_is_drawn_within_a_step(tmp_path: Path) -> None:
    drawn = {}
    for name, seed in {"one": 1, "again": 1, "other": 2}.items():
        learner = _Drawing()
        run(
            learner,
            lambda _: iter([{"images": torch.ones(1, 1)}] * 9),
            config=tiny().teacher.loop,
            folder=tmp_path,
            place=PLACE,
            seed=seed,
        )
        drawn[name] = learner.drawn
    assert drawn["one"] == drawn["again"] != drawn["other"]


def _learner(recipe: Recipe, stage: StageName, **options: object) -> Learner:
    from vit4icd.train.descriptor import build

    torch.manual_seed(0)
    losses = {
        "teacher": teacher_loss, "student": student_loss, "tune": student_loss, "pairs": pairs_loss,
    }  # fmt: skip
    return Learner(
        build(recipe.stage(stage).architecture),
        losses[stage],
        n_classes=12,
        config=LossConfig(),
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.2, 0.2, 0.2),
        teacher=build(recipe.teacher.architecture) if stage != "teacher" else None,
    )


@pytest.mark.parametrize("stage", ["teacher", "student", "pairs"])
def test_reaches_every_weight_but_the_teachers(stage: StageName, data: TrainingData) -> None:
    recipe = tiny()
    learner = _learner(recipe, stage).train()
    batch = Feed(recipe.stage(stage).feed, data.classes, seed=0, place=PLACE)[0]
    learner(batch)["loss"].backward()
    for name, parameter in learner.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    if stage != "teacher":
        assert all(p.grad is None for p in learner.teacher.parameters())
        assert not any("teacher" in name for name in learner.state_dict())


def test_learns_one_batch_by_heart(data: TrainingData) -> None:
    recipe = tiny()
    learner = _learner(recipe, "teacher").train()
    batch = Feed(recipe.teacher.feed, data.classes, seed=0, place=PLACE)[0]
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = learner(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


class _Fitting(torch.nn.Module):
    """A line through points; its loss is their mean squared distance."""

    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.line.weight)
        torch.nn.init.zeros_(self.line.bias)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": (self.line(batch["images"]) - batch["heights"]).square().mean()}


def test_averages_gradients_over_accumulated_batches(tmp_path: Path) -> None:
    points = torch.randn(6, 4, 1, generator=torch.Generator().manual_seed(3))
    whole = [{"images": part, "heights": 3 * part.square()} for part in points]
    halves = [{name: t[at] for name, t in batch.items()} for batch in whole
              for at in (slice(2), slice(2, 4))]  # fmt: skip

    def fitted(batches: list[dict[str, torch.Tensor]], accumulate: int) -> float:
        config, learner = replace(tiny().teacher.loop, accumulate=accumulate), _Fitting()
        run(learner, lambda _: iter(batches), config=config, folder=tmp_path, place=PLACE)
        return learner.line.weight.item()

    assert fitted(whole, 1) != 1
    assert fitted(halves, 2) == pytest.approx(fitted(whole, 1), abs=1e-6)


def test_trains_in_bfloat16_and_on_contrast(data: TrainingData, tmp_path: Path) -> None:
    recipe = override(
        tiny(),
        'teacher.loop.precision="bfloat16"',
        "teacher.losses.contrast=1",
        "teacher.losses.classes=0",
    )
    train(recipe, data, out=tmp_path / "out", place=PLACE, stages=["teacher"])
    (line, *_) = (tmp_path / "out" / "teacher" / "log.jsonl").read_text().splitlines()
    assert "contrast" in json.loads(line)
    assert "wide" not in json.loads(line)


def test_refuses_to_overwrite_or_mix_runs(whole: Path, tmp_path: Path) -> None:
    data = _data(whole)
    with pytest.raises(ConfigError, match="has to be finished first"):
        _run(data, tmp_path / "out", stages=["student"])
    shutil.copytree(whole / "out" / "teacher", tmp_path / "done" / "teacher")
    with pytest.raises(ConfigError, match="--resume"):
        _run(data, tmp_path / "done", stages=["teacher"])
    other = override(tiny(), "seed=5")
    with pytest.raises(MismatchError, match=r"another run .*\(seed\)"):
        train(other, data, out=tmp_path / "done", place=PLACE, stages=["teacher"], resume=True)


def test_stops_at_a_loss_that_is_not_finite(data: TrainingData, tmp_path: Path) -> None:
    recipe = override(tiny(), "teacher.losses.scale=1e38", "teacher.losses.classes=1e10")
    with pytest.raises(DataError, match="not finite at step 1"):
        train(recipe, data, out=tmp_path / "out", place=PLACE, stages=["teacher"])


def test_needs_as_much_data_as_a_batch(tmp_path: Path) -> None:
    make_pictures(tmp_path / "few", 3)
    with pytest.raises(DataError, match="needs 4 classes"):
        Feed(tiny().teacher.feed, open_classes(tmp_path / "few"), seed=0, place=PLACE)


def test_has_the_numbers_of_the_paper() -> None:
    recipe = RECIPES["paper"]
    n_steps = [
        recipe.stage(name).loop.schedule.n_steps for name in ("teacher", "student", "tune", "pairs")
    ]
    assert n_steps == [200_000, 200_000, 80_000, 80_000]
    assert recipe.teacher.architecture.image_size == 256
    assert recipe.teacher.losses == LossConfig()
    assert (LossConfig().scale, LossConfig().wide_margin, LossConfig().raw_margin) == (
        64,
        0.35,
        0.6,
    )
    assert LossConfig().compatibility == 100
    for name in ("teacher", "student", "tune", "pairs"):
        stage = recipe.stage(name)
        assert stage.feed.n_classes * stage.feed.n_copies == 128
        assert stage.loop.schedule.learning_rate == 3.5e-4
        assert stage.loop.ema_decay == 0.9999
        assert stage.loop.weight_decay == 0
        assert not stage.feed.colour
        assert stage.loop.keep_eval_mode == (name in ("tune", "pairs"))


def test_changes_fields_that_must_agree_together() -> None:
    recipe = override(
        tiny(),
        "seed=1",
        "teacher.feed.image_size=64",
        "teacher.architecture.image_size=64",
        "seed=2",
    )
    assert recipe.teacher.architecture.image_size == recipe.teacher.feed.image_size == 64
    assert recipe.seed == 2
    assert override(tiny()) == tiny()


def test_changes_one_field_and_checks_it() -> None:
    recipe = override(tiny(), "teacher.feed.edits.strength=0.5")
    assert recipe.teacher.feed.edits is not None
    assert recipe.teacher.feed.edits.strength == 0.5
    assert override(recipe, "preprocessing.mean=[0, 0, 0]").preprocessing.mean == (0, 0, 0)
    for setting, message in (
        ("teacher.nothing=1", "teacher.nothing: there is no field 'nothing'"),
        ("seed.deeper=1", "no field 'deeper'"),
        ("seed", "field=value"),
        ("seed=soon", "is int"),
        ("teacher.feed.image_size=64", "built for 32"),
        ("teacher.feed.n_support=-1", "n_support must be at least 0"),
        ("teacher.feed.flip=2", "flip lies between 0 and 1"),
        ("teacher.loop.accumulate=0", "accumulate must be at least 1"),
        ("teacher.loop.ema_decay=7", "ema_decay below 1"),
        ("student.feed.colour=false", "student.feed.colour is false, but preprocessing.colour"),
        ("preprocessing.colour=gray", "teacher.feed.colour is true, but preprocessing.colour"),
    ):
        with pytest.raises(ConfigError, match=message):
            override(tiny(), setting)


def test_refuses_feeds_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="images of 1 px, not 32, 4 and 0"):
        FeedConfig(image_size=0)


def _remembering() -> Recipe:
    recipe = tiny()
    losses = LossConfig(classes=0.0, contrast=1.0, entropy=1.0, memory=12)
    return replace(recipe, teacher=replace(recipe.teacher, losses=losses))


def test_resumes_with_the_memory_it_had(data: TrainingData, tmp_path: Path) -> None:
    recipe = _remembering()

    def stop(_stage: StageName) -> Callable[[StepReport], None]:
        return lambda report: os.kill(os.getpid(), signal.SIGINT) if report.step == 3 else None

    train(recipe, data, out=tmp_path / "whole", place=PLACE, stages=["teacher"])
    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, out=tmp_path / "cut", place=PLACE, stages=["teacher"], progress=stop)
    train(recipe, data, out=tmp_path / "cut", place=PLACE, stages=["teacher"], resume=True)
    whole, cut = (load_learner(tmp_path / run / "teacher/averaged.pt") for run in ("whole", "cut"))
    assert (whole["memory_labels"] >= 0).all()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_starts_from_the_weights_that_a_stage_left(whole: Path, tmp_path: Path) -> None:
    first = whole / "out"
    path = first / "student" / "averaged.pt"
    imported = import_weights(path)
    assert imported.complete
    left = load_learner(path)
    assert all(torch.equal(left[f"model.{name}"], t) for name, t in imported.state.items())
    second, teacher = tmp_path / "second", first / "teacher" / "model"
    _run(_data(whole), second, stages=["student"], starts={"student": path}, teacher=teacher)
    assert not torch.equal(
        load_learner(second / "student" / "averaged.pt")["model.projection.weight"],
        left["model.projection.weight"],
    )
    with pytest.raises(ConfigError, match="use the model folder beside it"):
        command.import_weights(path, tmp_path / "imported", licence="unknown")
    assert not (tmp_path / "imported").exists()


def test_starts_from_a_model_folder(whole: Path, tmp_path: Path) -> None:
    start = whole / "out" / "teacher" / "model"
    train(
        replace(tiny(), seed=5),  # whose own fresh weights are others
        _data(whole),
        out=tmp_path,
        place=PLACE,
        stages=["teacher"],
        starts={"teacher": start},
    )
    told = [read_model_card(folder).provenance for folder in (start, tmp_path / "teacher/model")]
    assert told[1].startswith(f"{told[0]}; then vit4icd")
    config = read_json(tmp_path / "teacher" / "config.json")
    assert config["start_sha256"] == file_sha256(start / "model.safetensors")
    first, second = (load_model(folder) for folder in (start, tmp_path / "teacher" / "model"))
    near = [
        torch.cosine_similarity(t.flatten(), second.state_dict()[name].flatten(), dim=0)
        for name, t in first.state_dict().items()
        if name.endswith("conv1.weight")
    ]
    assert min(near) > 0.9  # six steps away, where fresh weights would be at 0


def test_writes_nothing_where_the_start_is_missing_or_wrong(whole: Path, tmp_path: Path) -> None:
    out, start = tmp_path / "out", whole / "out" / "teacher" / "model"
    with pytest.raises(ConfigError, match="pass its folder with --start teacher=FOLDER"):
        train(RECIPES["levels"], _data(whole), out=out, place=PLACE, stages=["teacher"])
    with pytest.raises(WeightsError, match="holds a resnet_test"):
        _run(_data(whole), out, stages=["student"], starts={"student": start})
    assert not out.exists()


def test_keeps_freed_memory_on_a_processor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return 1

    monkeypatch.setattr("ctypes.CDLL", lambda _name: Libc())
    with take_place("cpu"):
        assert asked == [(-4, 0), (-1, 2**31 - 1)]
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())  # where there is no glibc
    with take_place("cpu"):
        assert len(asked) == 2


def test_writes_a_lost_model_folder_again_and_replaces_none(whole: Path, tmp_path: Path) -> None:
    data, stage = _data(whole), tmp_path / "out" / "teacher"
    folder = shutil.copytree(whole / "out" / "teacher", stage) / "model"
    first = (folder / "model.onnx").read_bytes()
    shutil.rmtree(folder)
    _run(data, tmp_path / "out", stages=["teacher"], resume=True)
    assert (folder / "model.onnx").read_bytes() == first
    (stage / "averaged.pt").unlink()
    with pytest.raises(ConfigError, match="already"):
        _run(data, tmp_path / "out", stages=["teacher"], resume=True)
