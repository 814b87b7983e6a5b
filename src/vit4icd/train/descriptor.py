"""The descriptor model: backbone, pooling, projection, L2; it loads and saves nothing."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vit4icd.errors import ConfigError, FormatError
from vit4icd.train.efficientnet import EfficientNetLite0
from vit4icd.train.resnet import ResNet
from vit4icd.train.vit import VisionTransformer

__all__ = [
    "Architecture",
    "BackboneName",
    "DescriptorModel",
    "GeM",
    "Levels",
    "build",
    "with_levels",
]

BackboneName = Literal[
    "vit_tiny",
    "vit_small",
    "vit_small_14",
    "vit_base",
    "vit_test",
    "resnet50",
    "resnet_test",
    "efficientnet_lite0",
]

_VITS: dict[str, dict[str, int]] = {  # the sizes of DeiT (Touvron et al. 2021)
    "vit_tiny": {"dim": 192, "depth": 12, "n_heads": 3},
    "vit_small": {"dim": 384, "depth": 12, "n_heads": 6},
    # the first eight blocks of DINOv2's ViT-S/14 (Oquab et al. 2023)
    "vit_small_14": {"dim": 384, "depth": 8, "n_heads": 6, "patch_size": 14},
    "vit_base": {"dim": 768, "depth": 12, "n_heads": 12},
    "vit_test": {"dim": 48, "depth": 3, "n_heads": 3},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """What a descriptor model is made of, enough to build it.

    Raises:
        ConfigError: an unknown backbone, an image size that its patches do not divide, or a ViT's
            choice that a CNN does not have.
    """

    name: BackboneName
    image_size: int = 224
    dim: int = 512
    drop_path: float = 0.0
    """Stochastic depth of a ViT while it trains."""
    wave_block: bool = False
    """WaveBlock in a ResNet while it trains."""
    last_stride: int = 1
    """Stride of a ResNet's last layer; 1 keeps its map at a sixteenth of the image."""
    pooling: Literal["token", "patches", "levels"] = "token"
    """A ViT's class token or the GeM of its patches; a CNN's last map, or two levels of maps."""
    n_frozen: int = 0
    """First blocks of a ViT, with its patch and position embeddings, that are not trained."""

    def __post_init__(self) -> None:
        if self.name not in get_args(BackboneName):
            raise ConfigError(f"there is no backbone {self.name!r}")
        depth = _VITS.get(self.name, {}).get("depth", 0)
        poolings = {"token", "patches"} if depth else {"token"}
        if self.name == "efficientnet_lite0":
            poolings.add("levels")
        if self.pooling not in poolings:
            raise ConfigError(f"{self.name} has no pooling {self.pooling!r}")
        if not 0 <= self.n_frozen <= depth:
            raise ConfigError(f"{self.name} has {depth} blocks to freeze, not {self.n_frozen}")
        patch = self._patch_size
        if self.image_size % patch or self.image_size < patch or self.dim < 1:
            raise ConfigError(
                f"image_size must be a multiple of {patch} and dim positive, not {self.image_size} "
                f"and {self.dim}"
            )

    @property
    def n_patches(self) -> int:
        """Places of the network's map, or patches of a ViT."""
        return (self.image_size // self._patch_size) ** 2

    @property
    def _patch_size(self) -> int:
        return _VITS.get(self.name, {}).get("patch_size", 16)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Architecture":
        """Read what :meth:`to_json` gave.

        Raises:
            FormatError: unknown fields.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise FormatError(f"not a description of a network: {error}") from error


class DescriptorModel(nn.Module):
    """Images -> (wide, raw): the feature of the first head, and the descriptor before L2.

    For a CNN, wide = BN(GeM(maps)) and raw = BN(linear(wide)), the biases of both norms held at
    zero; for a ViT, wide is the class token (or its patches pooled, positive and negative parts
    apart) and raw = linear(wide). Source: ViT4ICD. Of two levels of maps, their GeM stand side by
    side; ``wide_parts`` tells how many numbers each gives.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.dim = architecture.dim
        self.backbone = _backbone(architecture)
        self.is_vit = architecture.name in _VITS
        self.pool = _pool(architecture)
        self.wide_parts: tuple[int, ...] = (self.backbone.dim,)
        if isinstance(self.pool, SignedGeM):
            self.wide_parts = (2 * self.backbone.dim,)
        elif isinstance(self.pool, Levels):
            self.wide_parts = self.backbone.level_dims
        self.wide_dim = sum(self.wide_parts)
        self.neck: nn.Module = nn.Identity() if self.is_vit else _centred_norm(self.wide_dim)
        self.projection = nn.Linear(self.wide_dim, self.dim)
        self.projection_norm: nn.Module = nn.Identity() if self.is_vit else _centred_norm(self.dim)

    def forward(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> tuple[Float[Tensor, "image wide"], Float[Tensor, "image dim"]]:
        """Return the wide feature and the descriptor before normalisation."""
        has_levels = isinstance(self.pool, Levels)
        maps = self.backbone.levels(pixels) if has_levels else self.backbone(pixels)
        wide = self.neck(self.pool(maps))
        return wide, self.projection_norm(self.projection(wide))

    def describe(self, pixels: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image dim"]:
        """Return L2-normalised descriptors."""
        return F.normalize(self(pixels)[1].float())


class GeM(nn.Module):
    """Generalised-mean pooling with one learnable exponent: (mean max(x, 1e-6)^p)^(1/p)."""

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))

    def forward(
        self, maps: Float[Tensor, "image channel row column"]
    ) -> Float[Tensor, "image channel"]:
        """Pool each channel over the map."""
        return _gem(maps, self.p)


class SignedGeM(GeM):
    """GeM of the positive and of the negative part of each channel, for maps of either sign."""

    def forward(
        self, maps: Float[Tensor, "image channel row column"]
    ) -> Float[Tensor, "image two_channels"]:
        """Pool each channel over the map twice."""
        return super().forward(torch.cat([maps, -maps], dim=1))


class Levels(nn.Module):
    """GeM of a network's last map and of a finer one side by side, both with the exponent 3.

    Finer maps know less of what a picture shows and more of how it looks. The exponent is not
    learnt: cubes are cheap, other powers of so fine a map take a tenth of the network's time.
    Source of the idea: Hariharan et al. 2015 (hypercolumns); the choice of maps: decision 14.
    """

    def forward(self, levels: tuple[Tensor, Tensor]) -> Float[Tensor, "image channels"]:
        """Pool each channel of both maps."""
        return torch.cat([_gem(maps, 3.0) for maps in levels], dim=1)


def _gem(
    maps: Float[Tensor, "image channel row column"], p: Tensor | float
) -> Float[Tensor, "image channel"]:
    return maps.float().clamp(min=1e-6).pow(p).mean(dim=(2, 3)).pow(1.0 / p)


def build(architecture: Architecture) -> DescriptorModel:
    """Build the model with fresh weights from the global generator."""
    return DescriptorModel(architecture)


def with_levels(model: DescriptorModel) -> DescriptorModel:
    """Return an EfficientNet that describes by two levels of its maps; its projection is untrained.

    Raises:
        ConfigError: another network, which has no finer map to give.
    """
    other = build(replace(model.architecture, pooling="levels"))
    other.backbone.load_state_dict(model.backbone.state_dict())
    return other.train(model.training)


def _backbone(architecture: Architecture) -> Any:
    if architecture.name in _VITS:
        return VisionTransformer(
            image_size=architecture.image_size,
            drop_path=architecture.drop_path,
            patches=architecture.pooling == "patches",
            n_frozen=architecture.n_frozen,
            **_VITS[architecture.name],
        )
    if architecture.name == "efficientnet_lite0":
        return EfficientNetLite0()
    sizes: dict[str, Any] = {}
    if architecture.name == "resnet_test":
        sizes = {"depths": (1, 1, 1, 1), "width": 4}
    return ResNet(last_stride=architecture.last_stride, waves=architecture.wave_block, **sizes)


def _pool(architecture: Architecture) -> nn.Module:
    if architecture.name not in _VITS:
        return Levels() if architecture.pooling == "levels" else GeM()
    return SignedGeM() if architecture.pooling == "patches" else nn.Identity()


def _centred_norm(n_channels: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(n_channels)
    norm.bias.requires_grad_(False)
    return norm
