"""Losses by hand, and their guards."""

from functools import partial

import pytest
import torch

from vit4icd.errors import DataError
from vit4icd.train.losses import CosFace, compatibility_loss, info_nce_entropy, nearest_push


def test_is_zero_for_equal_and_four_for_opposite_descriptors() -> None:
    x = torch.randn(5, 8)
    assert compatibility_loss(x, 3 * x).item() == pytest.approx(0.0, abs=1e-6)
    assert compatibility_loss(x, -x).item() == pytest.approx(4.0)


def test_measures_the_nearest_other_picture() -> None:
    raw = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    names = torch.tensor([7, 7, 8])  # rows 0 and 1 show the same picture
    assert nearest_push(raw, names).item() == pytest.approx(2.0)
    assert nearest_push(raw, torch.tensor([1, 2, 3])).item() == pytest.approx(2 / 3)


def test_refuses_a_batch_that_shows_one_picture() -> None:
    with pytest.raises(DataError, match="same picture"):
        nearest_push(torch.randn(3, 4), torch.tensor([5, 5, 5]))


def test_computes_contrast_and_entropy_by_hand() -> None:
    raw = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    labels = torch.tensor([0, 0, 1, 1])
    similarity = raw @ raw.t()
    contrast = 0.0
    for row, positive in enumerate([1, 0, 3, 2]):
        others = [column for column in range(4) if column != row]
        shares = torch.softmax(similarity[row, others] / 0.5, dim=0)
        contrast -= torch.log(shares[others.index(positive)]).item() / 4
    nearest = [max(similarity[row, col].item() for col in cols)
               for row, cols in enumerate([[2, 3], [2, 3], [0, 1], [0, 1]])]  # fmt: skip
    entropy = sum(torch.tensor(2 - 2 * s).sqrt().log().item() for s in nearest) / 4
    ours = info_nce_entropy(raw, labels, temperature=0.5, entropy_weight=3.0)
    assert ours.item() == pytest.approx(contrast - 3 * entropy, rel=1e-5)


def test_takes_images_without_a_copy_as_negatives_only() -> None:
    raw, labels = torch.randn(3, 4), torch.tensor([0, 1, 2])
    loss = info_nce_entropy(raw, labels, temperature=0.1, entropy_weight=0.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_learns_one_batch_by_heart() -> None:
    torch.manual_seed(0)
    head = CosFace(6, 8, scale=64, margin=0.35)
    features = torch.randn(12, 8, requires_grad=True)
    labels = torch.arange(12) % 6
    optimizer = torch.optim.Adam([features, *head.parameters()], lr=0.05)
    first = head(features, labels).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = head(features, labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01 < first


def test_takes_earlier_descriptors_of_other_classes_as_negatives() -> None:
    torch.manual_seed(0)
    raw, labels = torch.randn(4, 6), torch.tensor([0, 0, 1, 1])
    others = torch.nn.functional.normalize(torch.randn(5, 6))
    loss = partial(info_nce_entropy, raw, labels, temperature=0.5, entropy_weight=1.0)
    of_class_0, of_none = (
        loss(others=others, other_labels=torch.full((5,), label)) for label in (0, 9)
    )
    rows = torch.nn.functional.normalize(raw)
    unit = torch.cat([rows, others])
    contrast = 0.0
    for row, positive in enumerate([1, 0, 3, 2]):
        columns = [column for column in range(9) if column != row]
        shares = torch.softmax(rows[row] @ unit[columns].t() / 0.5, dim=0)
        contrast -= torch.log(shares[columns.index(positive)]).item() / 4
    other_class = [rows[[2, 3]], rows[[2, 3]], rows[[0, 1]], rows[[0, 1]]]
    nearest = [
        (rows[row] @ torch.cat([images, others]).t()).max()
        for row, images in enumerate(other_class)
    ]
    entropy = sum((2 - 2 * s).sqrt().log().item() for s in nearest) / 4
    assert of_none.item() == pytest.approx(contrast - entropy, rel=1e-5)
    assert loss().item() < of_class_0.item() < of_none.item()
