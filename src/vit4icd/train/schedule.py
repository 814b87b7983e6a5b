"""The learning rate over a stage: warm-up, plateau, cosine; it knows no optimiser."""

import math
from dataclasses import dataclass

from vit4icd.errors import ConfigError

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A stage's length and its learning rate, which is constant inside an epoch.

    With e the 0-based epoch, w warm-up epochs, h the epoch where the decay starts and n epochs::

        factor(e) = 0.01 + 0.99 e / w                      e < w
                    1                                      w <= e < h
                    0.5 (1 + cos(pi (e - h) / (n - h)))    h <= e

    ViT4ICD trains with n = 25, h = 10 (stages 1 and 2a) and n = 10, h = 5 (2b and 3), w = 5.
    """

    n_epochs: int
    steps_per_epoch: int
    learning_rate: float
    warmup_epochs: int = 5
    decay_from_epoch: int

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_epochs <= self.decay_from_epoch <= self.n_epochs:
            raise ConfigError(
                f"a schedule needs 0 <= warm-up ({self.warmup_epochs}) <= decay from "
                f"({self.decay_from_epoch}) <= epochs ({self.n_epochs})"
            )
        if self.steps_per_epoch < 1 or self.learning_rate <= 0:
            raise ConfigError("steps_per_epoch and learning_rate must be positive")

    @property
    def n_steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return self.n_epochs * self.steps_per_epoch

    def factor(self, epoch: int) -> float:
        """Return the share of the learning rate that the 0-based epoch trains with."""
        if epoch < self.warmup_epochs:
            return 0.01 + 0.99 * epoch / self.warmup_epochs
        if epoch < self.decay_from_epoch:
            return 1.0
        progress = (epoch - self.decay_from_epoch) / (self.n_epochs - self.decay_from_epoch)
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the 0-based step."""
        return self.learning_rate * self.factor(step // self.steps_per_epoch)
