"""Feature pyramids: maps of several scales, each of which has seen the others.

Top-down: Lin et al. 2017 (FPN, arXiv:1612.03144). Bottom-up after it: Liu et al. 2018 (PANet, arXiv:1803.01534).
From the maps of a plain vision transformer, which are all of one scale: Li et al. 2022 (ViTDet, arXiv:2203.16527).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.errors import ConfigError

Neck = Literal["pan", "fpn"]

_STRIDES = (8, 16, 32)
_LEVELS = len(_STRIDES)


class ConvNormAct(nn.Sequential):
    """Convolution of the same size (of half of it for stride 2), batch norm, SiLU.

    Plain ones: on a CPU the depthwise-separable 5 x 5 of RTMDet takes 1.8 times as long to train in bf16, and no less
    in fp32, for a third of the weights.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
        )


class FeaturePyramid(nn.Module):
    """maps of a backbone -> maps [n, width, h / strides[i], w / strides[i]], the finest first.

    The levels are those of strides 8, 16 and 32 where the backbone has them, else its last three. Maps that are all of
    one stride s become a pyramid of s / 2, s and 2 s out of the last. Sizes have to be whole: see ``multiple``.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], width: int, kind: Neck = "pan") -> None:
        super().__init__()
        if kind not in ("pan", "fpn"):
            raise ConfigError(f"neck = '{kind}' is not known: use 'pan' or 'fpn'")
        self.entry: _Pick | _Resample
        if len(reductions) > 1 and len(set(reductions)) == 1:
            self.entry = _Resample(channels[-1], reductions[-1])
        else:
            self.entry = _Pick(channels, reductions)
        self.strides = self.entry.strides
        steps = len(self.strides) - 1
        self.lateral = nn.ModuleList(ConvNormAct(inputs, width) for inputs in self.entry.channels)
        self.smooth_down = nn.ModuleList(ConvNormAct(width, width, 3) for _ in range(steps))
        if kind == "pan":
            self.shrink = nn.ModuleList(ConvNormAct(width, width, 3, stride=2) for _ in range(steps))
            self.smooth_up = nn.ModuleList(ConvNormAct(width, width, 3) for _ in range(steps))
        else:
            self.shrink = self.smooth_up = nn.ModuleList()

    @property
    def multiple(self) -> int:
        """Width and height of an image have to be multiples of this, for a cell to be ``stride`` pixels everywhere."""
        return max(self.strides)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.lateral, self.entry(maps), strict=True)]
        for i in reversed(range(len(self.smooth_down))):
            levels[i] = self.smooth_down[i](levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[-2:]))
        for i, (shrink, smooth) in enumerate(zip(self.shrink, self.smooth_up, strict=True)):
            levels[i + 1] = smooth(levels[i + 1] + shrink(levels[i]))
        return levels


class _Pick(nn.Module):
    """The maps of strides 8, 16 and 32, or the last three."""

    def __init__(self, channels: Sequence[int], reductions: Sequence[int]) -> None:
        super().__init__()
        known = all(stride in reductions for stride in _STRIDES)
        self.places = [reductions.index(stride) for stride in _STRIDES] if known else [*range(len(channels))][-_LEVELS:]
        self.strides = tuple(reductions[i] for i in self.places)
        self.channels = tuple(channels[i] for i in self.places)
        if any(2 * fine != coarse for fine, coarse in zip(self.strides, self.strides[1:], strict=False)):
            raise ConfigError(
                f"the backbone's maps are 1/{', 1/'.join(map(str, self.strides))} of the image: a pyramid needs "
                "steps of 2; use 'tf_efficientnet_lite0' or 'resnet18'"
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [maps[i] for i in self.places]


class _Resample(nn.Module):
    """A pyramid out of one map: twice as fine by a transposed convolution, as it is, and half as fine by maxima."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.strides = (reduction // 2, reduction, 2 * reduction)
        self.channels = (channels // 2, channels, channels)
        self.enlarge = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        last = maps[-1]
        return [self.enlarge(last), last, F.max_pool2d(last, 2)]
