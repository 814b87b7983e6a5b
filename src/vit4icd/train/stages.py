"""What each stage optimises, one loss function each; stepping and data are other rooms'."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit4icd.train.descriptor import DescriptorModel
from vit4icd.train.losses import (
    CosFace,
    compatibility_loss,
    info_nce_entropy,
    nearest_push,
    pair_pull,
)
from vit4icd.train.processes import gather_rows

__all__ = ["Learner", "LossConfig", "StageLoss", "pairs_loss", "student_loss", "teacher_loss"]

Losses = dict[str, Tensor]
StageLoss = Callable[["Learner", dict[str, Tensor]], Losses]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights and margins of the losses; the defaults are ViT4ICD's."""

    scale: float = 64.0
    wide_margin: float = 0.35
    raw_margin: float = 0.60
    classes: float = 1.0
    """Weight of the two CosFace losses; 0 leaves their heads out."""
    compatibility: float = 100.0
    pairs: float = 1.0
    contrast: float = 0.0
    """Weight of InfoNCE with an entropy term, as SSCD trains; ViT4ICD has none."""
    temperature: float = 0.05
    entropy: float = 10.0
    memory: int = 0
    """Descriptors of earlier batches that also serve the contrast as negatives."""


class Learner(nn.Module):
    """A model with its two classification heads; calling it with a batch gives named losses.

    The teacher is held but not owned: it is frozen, in evaluation mode, and part of neither the
    averaged weights nor the saved state.
    """

    def __init__(
        self,
        model: DescriptorModel,
        loss: StageLoss,
        *,
        n_classes: int,
        config: LossConfig,
        image_mean: tuple[float, float, float],
        image_std: tuple[float, float, float],
        teacher: DescriptorModel | None = None,
    ) -> None:
        super().__init__()
        self.layout = torch.preserve_format if model.is_vit else torch.channels_last
        self.model = model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.config = config
        self.wide_head = self.raw_head = None
        if config.classes:
            self.wide_head = CosFace(
                n_classes, model.wide_dim, scale=config.scale, margin=config.wide_margin
            )
            self.raw_head = CosFace(
                n_classes, model.dim, scale=config.scale, margin=config.raw_margin
            )
        self._loss = loss
        self._teacher: Sequence[DescriptorModel] = ()
        if teacher is not None:  # kept in a tuple, so that it is no submodule
            self._teacher = (teacher.eval().requires_grad_(False),)
        if config.contrast and config.memory:
            self.register_buffer("memory", torch.zeros(config.memory, model.dim))
            self.register_buffer("memory_labels", torch.full((config.memory,), -1))
        self.register_buffer("mean", _column(image_mean), persistent=False)
        self.register_buffer("std", _column(image_std), persistent=False)

    @property
    def teacher(self) -> DescriptorModel:
        """The frozen teacher of stages 2 and 3."""
        (teacher,) = self._teacher
        return teacher

    def contrast(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Return the contrast of a batch with itself and the memory, and remember the batch."""
        config = self.config
        loss = partial(
            info_nce_entropy,
            raw,
            labels,
            temperature=config.temperature,
            entropy_weight=config.entropy,
        )
        if not config.memory:
            return config.contrast * loss()
        memory, memory_labels = self.get_buffer("memory"), self.get_buffer("memory_labels")
        known = memory_labels >= 0
        value = loss(others=memory[known], other_labels=memory_labels[known])
        newest = F.normalize(raw.detach())
        memory.copy_(torch.cat([newest, memory])[: config.memory])
        memory_labels.copy_(torch.cat([labels, memory_labels])[: config.memory])
        return config.contrast * value

    def forward(self, batch: dict[str, Tensor]) -> Losses:
        """Return the stage's losses; "loss" is what is minimised, the others are its parts."""
        return self._loss(self, batch)

    def pixels(self, images: Tensor) -> Tensor:
        """Normalise uint8 images ``[image, 3, size, size]`` as the model expects them."""
        pixels = (images.float() / 255.0 - self.get_buffer("mean")) / self.get_buffer("std")
        return pixels.contiguous(memory_format=self.layout)


def teacher_loss(learner: Learner, batch: dict[str, Tensor]) -> Losses:
    """Stage 1: tell the classes apart. L = L_0.35(wide) + L_0.60(raw) (ViT4ICD, stage 1)."""
    return _total(_class_losses(learner, batch))


def student_loss(learner: Learner, batch: dict[str, Tensor]) -> Losses:
    """Stages 2a and 2b: the classes, and unedited images stay where the teacher puts them.

    L = L_0.35(wide) + L_0.60(raw) + 100 mean |n(f(z)) - n(f_T(z))|^2 over unedited images z.
    """
    return _total(_class_losses(learner, batch) | _compatibility(learner, batch))


def pairs_loss(learner: Learner, batch: dict[str, Tensor]) -> Losses:
    """Stage 3: as stage 2, and labelled pairs: pull each together, push the nearest others away.

    L = stage 2 + mean |q - r|^2 - (mean nearest other query + mean nearest other reference) / 2,
    squared distances of normalised descriptors.
    """
    _, queries = learner.model(learner.pixels(batch["queries"]))
    _, references = learner.model(learner.pixels(batch["references"]))
    with _single_precision(queries):
        pull = pair_pull(queries.float(), references.float())
        push = 0.5 * (
            _push(queries.float(), batch["query_names"])
            + _push(references.float(), batch["reference_names"])
        )
    weight = learner.config.pairs
    pairs = {"pull": weight * pull, "push": -weight * push}
    return _total(_class_losses(learner, batch) | _compatibility(learner, batch) | pairs)


def _push(raw: Tensor, names: Tensor) -> Tensor:
    """Push the nearest others of the whole batch away, whichever process has them."""
    return nearest_push(gather_rows(raw), gather_rows(names))


def _class_losses(learner: Learner, batch: dict[str, Tensor]) -> Losses:
    config, labels = learner.config, batch["labels"]
    wide, raw = learner.model(learner.pixels(batch["images"]))
    losses: Losses = {}
    with _single_precision(raw):
        if learner.wide_head is not None and learner.raw_head is not None:
            losses["wide"] = config.classes * learner.wide_head(wide.float(), labels)
            losses["raw"] = config.classes * learner.raw_head(raw.float(), labels)
        if config.contrast:
            losses["contrast"] = learner.contrast(gather_rows(raw.float()), gather_rows(labels))
    return losses


def _compatibility(learner: Learner, batch: dict[str, Tensor]) -> Losses:
    pixels = learner.pixels(batch["support"])
    _, student = learner.model(pixels)
    with torch.no_grad():
        _, teacher = learner.teacher(pixels)
    weight = learner.config.compatibility
    return {"compatibility": weight * compatibility_loss(student.float(), teacher.float())}


def _single_precision(tensor: Tensor) -> torch.autocast:
    """Switch autocast off: similarities and margins need more than bfloat16's 8 bits."""
    return torch.autocast(tensor.device.type, enabled=False)


def _total(parts: Losses) -> Losses:
    return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def _column(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)
