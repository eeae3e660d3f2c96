"""Small networks in plain PyTorch, as somebody writes them. Each ends in ``head``, a linear layer or a convolution."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(4, channels),
    "none": lambda channels: nn.Identity(),
}


def _conv(inputs: int, outputs: int, norm: str, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=norm == "none")
    return nn.Sequential(convolution, NORMS[norm](outputs), nn.ReLU())


def cnn(
    channels: int, outputs: int, size: int, *, norm: str = "batch", width: int = 16, dropout: float = 0.0
) -> nn.Module:
    """Three convolutions, halved in between, and the mean over places."""
    features = nn.Sequential(
        _conv(channels, width, norm),
        _conv(width, 2 * width, norm, stride=2 if size > 10 else 1),
        _conv(2 * width, 4 * width, norm, stride=2),
    )
    rest = OrderedDict(features=features, pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), dropout=nn.Dropout(dropout))
    return nn.Sequential(OrderedDict(rest, head=nn.Linear(16 * width, outputs)))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one = _conv(inputs, outputs, "batch", stride)
        self.two = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        nn.init.zeros_(self.two[1].weight)  # the usual start: a block is the identity
        self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.short(inputs) + self.two(self.one(inputs)))


def resnet(channels: int, outputs: int, size: int, **_: object) -> nn.Module:
    """A stem, two residual blocks and the mean over places."""
    features = nn.Sequential(
        _conv(channels, 16, "batch"), _Residual(16, 32, 2 if size > 10 else 1), _Residual(32, 64, 2)
    )
    rest = OrderedDict(features=features, pool=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten())
    return nn.Sequential(OrderedDict(rest, head=nn.Linear(256, outputs)))


def mlp(channels: int, outputs: int, size: int, *, dropout: float = 0.0, **_: object) -> nn.Module:
    """Two hidden layers of 96 units."""
    hidden = nn.Sequential(nn.Linear(channels * size * size, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU())
    rest = OrderedDict(flat=nn.Flatten(), features=hidden, dropout=nn.Dropout(dropout))
    return nn.Sequential(OrderedDict(rest, head=nn.Linear(96, outputs)))


class ViT(nn.Module):
    """A convolutional stem (Xiao et al. 2021), 16 tokens, places learnt, two blocks, the mean of the tokens."""

    def __init__(self, channels: int, outputs: int, size: int, width: int = 32) -> None:
        super().__init__()
        piece = size // 4
        stem = nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, piece, piece)
        self.pieces = nn.Sequential(*stem, nn.Flatten(2))
        self.places = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        layer = {"dim_feedforward": 2 * width, "dropout": 0.0, "batch_first": True, "norm_first": True}
        self.features = nn.Sequential(*(nn.TransformerEncoderLayer(width, 4, **layer) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.features(self.pieces(images).transpose(1, 2) + self.places)
        return self.head(self.norm(tokens.mean(1)))


def vit(channels: int, outputs: int, size: int, **_: object) -> nn.Module:
    return ViT(channels, outputs, size)


class UNet(nn.Module):
    """Two levels down and up again: [n, c, h, w] -> [n, k, h, w]."""

    def __init__(self, channels: int, outputs: int, norm: str = "batch", width: int = 8) -> None:
        super().__init__()
        self.top, self.middle = _conv(channels, width, norm), _conv(width, 2 * width, norm, 2)
        self.features = nn.Sequential(_conv(2 * width, 4 * width, norm, 2), _conv(4 * width, 4 * width, norm))
        self.up, self.out = _conv(6 * width, 2 * width, norm), _conv(3 * width, width, norm)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        top = self.top(images)
        middle = self.middle(top)
        up = self.up(torch.cat([nn.functional.interpolate(self.features(middle), scale_factor=2.0), middle], 1))
        return self.head(self.out(torch.cat([nn.functional.interpolate(up, scale_factor=2.0), top], 1)))


def unet(channels: int, outputs: int, size: int, *, norm: str = "batch", **_: object) -> nn.Module:
    return UNet(channels, outputs, norm)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"cnn": cnn, "resnet": resnet, "mlp": mlp, "vit": vit, "unet": unet}
