"""Networks, losses, schedule and averaging of the official training code, on its own tensors."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import DATA
from vit4icd.train.descriptor import Architecture, GeM, build
from vit4icd.train.ema import EmaWeights
from vit4icd.train.losses import (
    compatibility_loss,
    cosface_logits,
    cosface_loss,
    nearest_push,
    pair_pull,
)
from vit4icd.train.recipes import paper
from vit4icd.train.resnet import wave_block

FOLDER = DATA / "oracle" / "train"


def _load(name: str) -> dict[str, Tensor]:
    stored = np.load(FOLDER / f"{name}.npz")
    return {key: torch.from_numpy(stored[key]) for key in stored if stored[key].dtype.kind != "U"}


@pytest.mark.parametrize(("name", "margin"), [("cosface_768_m035", 0.35), ("cosface_512_m06", 0.6)])
def test_computes_cosface_and_its_gradients(name: str, margin: float) -> None:
    stored = _load(name)
    x, weight = stored["x"].requires_grad_(), stored["weight"].requires_grad_()
    logits = cosface_logits(x, weight, stored["y"], scale=64, margin=margin)
    loss = cosface_loss(x, weight, stored["y"], scale=64, margin=margin)
    loss.backward()
    torch.testing.assert_close(logits, stored["logits"], rtol=1e-4, atol=1e-4)
    assert loss.item() == pytest.approx(stored["loss"].item(), rel=1e-5)
    torch.testing.assert_close(weight.grad, stored["grad_w"], rtol=1e-3, atol=1e-4)
    assert x.grad is not None
    rows = [row for row in range(len(x)) if row != 3]  # row 3 is zero: its gradient is 1e7
    torch.testing.assert_close(x.grad[rows], stored["grad_x"][rows], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(x.grad[3], stored["grad_x"][3], rtol=1e-3, atol=1e2)


def test_pools_as_gem_does() -> None:
    stored = _load("gem")
    torch.testing.assert_close(GeM()(stored["x"]), stored["out"][:, :, 0, 0])


def test_puts_waves_where_the_original_does() -> None:
    stored = _load("waveblock")
    for start, expected in zip(stored["start_row"].tolist(), stored["out_for_ones"], strict=True):
        torch.testing.assert_close(wave_block(torch.ones(2, 3, 16, 16), start), expected)


def test_runs_the_vit_of_an_official_checkpoint() -> None:
    stored = _load("tiny_vit")
    model = build(Architecture(name="vit_test", image_size=32, dim=20)).eval()
    backbone = {
        key.removeprefix("sd/module.base.0."): tensor
        for key, tensor in stored.items()
        if key.startswith("sd/module.base.0.")
    }
    model.backbone.load_state_dict(backbone)
    linear = {part: stored[f"sd/module.linear.{part}"] for part in ("weight", "bias")}
    model.projection.load_state_dict(linear)
    with torch.no_grad():
        wide, raw = model(stored["x"])
        unit = model.describe(stored["x"])
    torch.testing.assert_close(wide, stored["cls_768like"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(raw, stored["proj"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(unit, stored["proj_l2"], rtol=1e-4, atol=1e-6)


def _toy_losses(stored: dict[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    names = np.load(FOLDER / "stage23_losses.npz")
    identities = {
        key: torch.from_numpy(np.unique(names[key], return_inverse=True)[1])
        for key in ("query_names", "ref_names")
    }
    features = stored["src"] @ weight
    queries, references = stored["query_images"] @ weight, stored["ref_images"] @ weight
    push = 0.5 * (
        nearest_push(queries, identities["query_names"])
        + nearest_push(references, identities["ref_names"])
    )
    cross_entropy = torch.nn.functional.cross_entropy
    return {
        "ce": cross_entropy(5 * features[:, :10], stored["targets"]),
        "ce_1": cross_entropy(7 * features[:, 10:20], stored["targets"]),
        "sp": compatibility_loss(
            stored["support_images"] @ weight, stored["support_images"] @ stored["W_support"]
        ),
        "gt": pair_pull(queries, references),
        "ng": push,
    }


def test_computes_the_losses_of_stages_two_and_three() -> None:
    stored = _load("stage23_losses")
    weight = stored["W_student"].clone().requires_grad_()
    losses = _toy_losses(stored, weight)
    for name, key in (("ce", "s2_loss_ce"), ("ce_1", "s2_loss_ce_1"), ("sp", "s2_loss_sp"),
                      ("gt", "s3_loss_gt"), ("ng", "s3_loss_ng")):  # fmt: skip
        assert losses[name].item() == pytest.approx(stored[key].item(), rel=1e-5)
    stage_2 = losses["ce"] + losses["ce_1"] + 100 * losses["sp"]
    (gradient,) = torch.autograd.grad(stage_2, weight, retain_graph=True)
    torch.testing.assert_close(gradient, stored["s2_grad_W"], rtol=1e-3, atol=1e-4)
    stage_3 = stage_2 + losses["gt"] - losses["ng"]
    assert stage_3.item() == pytest.approx(stored["s3_total"].item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(stage_3, weight)
    torch.testing.assert_close(gradient, stored["s3_grad_W"], rtol=1e-3, atol=1e-4)


def test_follows_the_official_learning_rates_and_averages() -> None:
    stored = json.loads((FOLDER / "schedule_ema.json").read_text())
    recipe = paper()
    for schedule, key in (
        (recipe.teacher.loop.schedule, "lr_factor_25ep"),
        (recipe.student.loop.schedule, "lr_factor_25ep"),
        (recipe.tune.loop.schedule, "lr_factor_10ep"),
        (recipe.pairs.loop.schedule, "lr_factor_10ep"),
    ):
        assert schedule.n_epochs == len(stored[key])
        for epoch, factor in stored[key].items():
            assert schedule.factor(int(epoch)) == pytest.approx(factor, abs=1e-12)
    holder = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(holder.weight)
    ema = EmaWeights(holder, decay=stored["ema"]["decay_max"])
    for step, expected in enumerate(stored["ema"]["shadow_after_steps_1_to_50"], start=1):
        torch.nn.init.constant_(holder.weight, float(step))
        ema.update(holder)
        assert ema.shadow["weight"].item() == pytest.approx(expected, rel=1e-5)
