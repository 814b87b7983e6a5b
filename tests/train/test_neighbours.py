"""Look-alike classes: who is nearest, and passes in groups."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import make_pictures
from vit4icd.datasets import ClassSource, open_classes, open_images
from vit4icd.errors import ConfigError, MismatchError
from vit4icd.train.feed import Feed
from vit4icd.train.neighbours import InGroups, nearest_classes
from vit4icd.train.pipeline import TrainingData, train
from vit4icd.train.processes import Place
from vit4icd.train.recipes import override, tiny
from vit4icd.types import DescriptorSet


def _at(degrees: list[float], ids: list[str]) -> DescriptorSet:
    angles = np.radians(degrees)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return DescriptorSet(ids=ids, vectors=vectors)


@pytest.fixture
def classes(tmp_path: Path) -> ClassSource:
    make_pictures(tmp_path / "train", 4)
    return open_classes(tmp_path / "train")


def test_finds_the_classes_most_alike(classes: ClassSource) -> None:
    descriptors = _at([0, 40, 90, 170], list(classes.names))
    assert nearest_classes(classes, descriptors, n_nearest=2).tolist() == [
        [1, 2], [0, 2], [1, 3], [2, 1],
    ]  # fmt: skip


def test_passes_over_what_may_be_the_same_picture(classes: ClassSource) -> None:
    descriptors = _at([0, 10, 90, 180], list(classes.names))  # cos 10° = .98
    nearest = nearest_classes(classes, descriptors, n_nearest=2)
    assert nearest[0].tolist() == [2, 3]
    assert nearest[1].tolist() == [2, 3]


def test_stands_in_for_itself_where_nothing_is_known(classes: ClassSource) -> None:
    names = list(classes.names)
    nearest = nearest_classes(classes, _at([0, 60], names[:2]), n_nearest=2)
    assert nearest.tolist() == [[1, 0], [0, 1], [2, 2], [3, 3]]


def test_refuses_descriptors_of_other_pictures(classes: ClassSource) -> None:
    with pytest.raises(MismatchError, match="describe the same --data"):
        nearest_classes(classes, _at([0, 60], ["a", "b"]), n_nearest=2)


def test_follows_each_drawn_class_by_its_neighbours() -> None:
    nearest = np.array([[1, 2, 3], [0, 2, 3], [3, 4, 5], [2, 4, 5], [5, 0, 1], [4, 0, 1]])
    order = InGroups(nearest, 2)
    drawn = order(np.random.default_rng(0)).reshape(2, 3)
    assert len(set(drawn[:, 0])) == 2
    for seed, *near in drawn.tolist():
        assert set(near) <= set(nearest[seed].tolist())
        assert len(set(near)) == 2
    assert order(np.random.default_rng(0)).tolist() == drawn.ravel().tolist()


def test_puts_look_alikes_into_one_batch(classes: ClassSource) -> None:
    nearest = np.array([[1], [0], [3], [2]])
    config = tiny().teacher.feed
    feed = Feed(config, classes, class_order=InGroups(nearest, 1), seed=0, place=Place())
    labels = feed[0]["labels"].tolist()
    for first in range(0, len(labels), 4):
        one, same, other, too = labels[first : first + 4]
        assert (one, other) == (same, too)
        assert nearest[one, 0] == other


def test_trains_with_neighbours_only_where_they_are_known(tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", 12)
    recipe = override(tiny(), "teacher.feed.n_neighbours=1")
    known = open_images([tmp_path / "train"]).names
    vectors = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    descriptors = DescriptorSet(ids=known, vectors=vectors / 9, fingerprint="f")
    classes = open_classes(tmp_path / "train")
    with pytest.raises(ConfigError, match="--neighbours"):
        data = TrainingData(classes=classes)
        train(recipe, data, out=tmp_path / "a", place=Place(), stages=["teacher"])
    data = TrainingData(classes=classes, descriptors=descriptors)
    train(recipe, data, out=tmp_path / "b", place=Place(), stages=["teacher"])
    assert (tmp_path / "b" / "teacher" / "model" / "model.json").exists()
