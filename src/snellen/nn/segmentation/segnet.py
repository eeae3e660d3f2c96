"""SegNet: a VGG and its mirror image, which puts values back where max pooling took them from.

Badrinarayanan et al. 2015 (arXiv:1511.00561). The encoder has the layers, and the names, of the VGGs with batch norm
of timm and torchvision, so that their weights fit. Unpooling by indices is what the paper is about, and what few
runtimes can do: without indices each value is repeated over its square.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.network import Normalize

# Convolutions before each pooling.
_REPEATS: Mapping[str, tuple[int, ...]] = {
    "vgg11_bn": (1, 1, 2, 2, 2),
    "vgg13_bn": (2, 2, 2, 2, 2),
    "vgg16_bn": (2, 2, 3, 3, 3),
    "vgg19_bn": (2, 2, 4, 4, 4),
}
_WIDTHS = (64, 128, 256, 512, 512)

Pooled = tuple[Tensor, torch.Size]  # where each largest value stood, and the size of the map before


class VGGEncoder(nn.Module):
    """images float [n, 3, h, w], standardised -> the last map, at 1/32, and how each pooling came to its values."""

    def __init__(self, name: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, count in zip(_WIDTHS, _REPEATS[name], strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2, return_indices=True))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Pooled]]:
        x, pooled = images, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                size = x.shape
                x, indices = layer(x)
                pooled.append((indices, size))
            else:
                x = layer(x)
        return x, pooled


class SegNetDecoder(nn.Module):
    """What VGGEncoder gives -> logits [n, num_classes, h, w] at the size of the image."""

    def __init__(self, name: str, num_classes: int, dropout: float = 0.0, *, by_indices: bool) -> None:
        super().__init__()
        self.by_indices = by_indices
        outputs = (_WIDTHS[0], *_WIDTHS[:-1])
        self.steps = nn.ModuleList(
            nn.Sequential(*_convolutions(width, narrower, count))
            for width, narrower, count in reversed(list(zip(_WIDTHS, outputs, _REPEATS[name], strict=True)))
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(_WIDTHS[0], num_classes, 3, padding=1)

    def forward(self, encoded: tuple[Tensor, list[Pooled]]) -> Tensor:
        x, pooled = encoded
        for step, (indices, size) in zip(self.steps, reversed(pooled), strict=True):
            x = step(self._unpooled(x, indices, size))
        logits: Tensor = self.classify(self.dropout(x))
        return logits

    def _unpooled(self, x: Tensor, indices: Tensor, size: torch.Size) -> Tensor:
        if self.by_indices:
            return F.max_unpool2d(x, indices, [2, 2], output_size=list(size[-2:]))
        return F.interpolate(x, size[-2:], mode="nearest")


class SegNet(nn.Module):
    """images uint8 or float [n, 3, h, w] with values 0..255 -> logits [n, C, h, w]; sides of 32 pixels or more."""

    def __init__(
        self, preprocessing: Preprocessing, name: str, num_classes: int, dropout: float = 0.0, *, by_indices: bool
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing.mean, preprocessing.std)
        self.backbone = VGGEncoder(name)
        self.head = SegNetDecoder(name, num_classes, dropout, by_indices=by_indices)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(self.normalize(images)))
        return logits


def _convolutions(inputs: int, outputs: int, count: int) -> list[nn.Module]:
    """The convolutions of a stage backwards: the last one narrows."""
    layers: list[nn.Module] = []
    for i in range(count):
        width = outputs if i == count - 1 else inputs
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return layers
