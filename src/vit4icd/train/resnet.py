"""ResNet-50 with WaveBlock; its parameter names are torchvision's. No pooling, no head."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ResNet", "wave_block"]

_KEEP_SHARE, _OUTSIDE_FACTOR = 0.3, 1.5


class ResNet(nn.Module):
    """Images ``[image, 3, size, size]`` -> feature maps ``[image, dim, size/16, size/16]``.

    Bottleneck blocks; the last layer keeps its stride of 2 only with ``last_stride`` 2. While
    training, ``waves`` applies :func:`wave_block` after layers 2 and 3. ``width`` and ``depths``
    give ResNet-50 by default. Source: He et al. 2016, as ViT4ICD modifies it.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        last_stride: int = 1,
        waves: bool = False,
    ) -> None:
        super().__init__()
        self.waves = waves
        self.dim = 32 * width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(width, width, depths[0], 1)
        self.layer2 = _layer(4 * width, 2 * width, depths[1], 2)
        self.layer3 = _layer(8 * width, 4 * width, depths[2], 2)
        self.layer4 = _layer(16 * width, 8 * width, depths[3], last_stride)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image dim rows columns"]:
        """Return the last feature map of each image."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        maps = self._waved(self.layer2(self.layer1(maps)))
        return self.layer4(self._waved(self.layer3(maps)))

    def _waved(self, maps: Tensor) -> Tensor:
        if not (self.waves and self.training):
            return maps
        free = maps.shape[2] - _block_rows(maps.shape[2])
        return wave_block(maps, int(torch.randint(free + 1, ())))


def wave_block(
    maps: Float[Tensor, "image channel row column"], start: int
) -> Float[Tensor, "image channel row column"]:
    """Multiply all rows by 1.5 but a block of 30 % of them from ``start`` on.

    The block has round(0.3 rows) rows, half to even. Source: Wang et al. 2022 (WaveBlock), with the
    numbers of ViT4ICD's teacher.
    """
    rows = maps.shape[2]
    factor = maps.new_full((rows, 1), _OUTSIDE_FACTOR)
    factor[start : start + _block_rows(rows)] = 1.0
    return maps * factor


def _block_rows(rows: int) -> int:
    return round(_KEEP_SHARE * rows)


def _layer(n_in: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(n_in, width, stride)
    return nn.Sequential(first, *(_Bottleneck(4 * width, width, 1) for _ in range(depth - 1)))


class _Bottleneck(nn.Module):
    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = 4 * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, maps: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(maps)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        skip = maps if self.downsample is None else self.downsample(maps)
        return self.relu(out + skip)
