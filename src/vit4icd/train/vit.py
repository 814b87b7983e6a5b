"""The vision transformer; its parameter names are timm's. It has no head and pools nothing."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vit4icd.errors import ConfigError

__all__ = ["VisionTransformer", "resize_position"]


class VisionTransformer(nn.Module):
    """Images ``[image, 3, size, size]`` -> class tokens after the final norm ``[image, dim]``.

    With ``patches`` it gives the patches' tokens instead, as a map ``[image, dim, row, column]``.
    The first ``n_frozen`` blocks, and what lies below them, keep the weights that they start from.
    Pre-norm blocks with GELU, an MLP of four times the width, biases in q, k and v, LayerNorm
    epsilon 1e-6, stochastic depth growing linearly to ``drop_path``. Source: Dosovitskiy et al.
    2021; the names and the initialisation are those of timm 0.4.12, which DeiT weights use.

    Raises:
        ConfigError: an image size that the patch size does not divide.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int = 16,
        dim: int,
        depth: int,
        n_heads: int,
        drop_path: float = 0.0,
        patches: bool = False,
        n_frozen: int = 0,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ConfigError(f"image size {image_size} is not a multiple of {patch_size}")
        self.dim, self.patches = dim, patches
        self.patch_embed = _PatchEmbed(patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        n_patches = (image_size // patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + n_patches, dim))
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(_Block(dim, n_heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if n_frozen:
            self.patch_embed.requires_grad_(False)
            self.blocks[:n_frozen].requires_grad_(False)
            self.cls_token.requires_grad_(False)
            self.pos_embed.requires_grad_(False)

    def forward(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image dim *map"]:
        """Return the class token of each image, or the map of its patches."""
        patches = self.patch_embed(pixels)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)
        tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        if not self.patches:
            return self.norm(tokens[:, 0])
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        return self.norm(tokens[:, 1:]).transpose(1, 2).unflatten(2, (side, side))


def resize_position(
    position: Float[Tensor, "1 tokens dim"], n_patches: int
) -> Float[Tensor, "1 new_tokens dim"]:
    """Return position embeddings for another number of patches (bicubic over the square grid)."""
    token, grid = position[:, :1], position[:, 1:]
    old, new = round(grid.shape[1] ** 0.5), round(n_patches**0.5)
    if old == new:
        return position
    grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([token, grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], dim=1)


class _PatchEmbed(nn.Module):
    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, dim: int, n_heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, n_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _Mlp(dim)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._dropped(self.attn(self.norm1(tokens)))
        return tokens + self._dropped(self.mlp(self.norm2(tokens)))

    def _dropped(self, residual: Tensor) -> Tensor:
        """Leave the residual out for some images while training (Huang et al. 2016)."""
        if not (self.training and self.drop_path):
            return residual
        keep = 1 - self.drop_path
        mask = residual.new_empty(len(residual), 1, 1).bernoulli_(keep)
        return residual * mask / keep


class _Attention(nn.Module):
    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        n_images, n_tokens, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(n_images, n_tokens, 3, self.n_heads, dim // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [image, head, token, dim / head]
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(n_images, n_tokens, dim))


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
