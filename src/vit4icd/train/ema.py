"""The moving average of a model's parameters; running statistics are never averaged."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["EmaWeights", "ema_decay"]


def ema_decay(update: int, decay: float) -> float:
    """Return the decay of the ``update``-th update (1-based): min(decay, (1 + t) / (10 + t)).

    Source: torch-ema 0.3 with its default warm-up, which ViT4ICD trains with.
    """
    return min(decay, (1 + update) / (10 + update))


class EmaWeights:
    """Shadow copies of a module's parameters: shadow -= (1 - decay_t) (shadow - parameter).

    Made after any weights are loaded, so that the shadow starts where the model does, and saved
    with every checkpoint (:meth:`state_dict`), so that a resumed run averages what the
    uninterrupted one would.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.shadow = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move every shadow towards the module's parameter; call once after each step."""
        self.n_updates += 1
        weight = 1.0 - ema_decay(self.n_updates, self.decay)
        parameters = dict(module.named_parameters())
        _lerp(self.shadow.values(), (parameters[name] for name in self.shadow), weight)

    def averaged_state(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the module's state with averaged parameters and its live buffers."""
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        state.update({name: shadow.clone() for name, shadow in self.shadow.items()})
        return state

    def state_dict(self) -> dict[str, object]:
        """Return what :meth:`load_state_dict` needs to go on."""
        return {"n_updates": self.n_updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a saved state; the parameter names must be the same."""
        n_updates, shadow = state["n_updates"], state["shadow"]
        assert isinstance(n_updates, int)
        assert isinstance(shadow, dict)
        assert shadow.keys() == self.shadow.keys()
        self.n_updates = n_updates
        for name, tensor in shadow.items():
            self.shadow[name].copy_(tensor)


def _lerp(shadows: Iterable[Tensor], parameters: Iterable[Tensor], weight: float) -> None:
    torch._foreach_lerp_(list(shadows), list(parameters), weight)
