"""A backbone's maps and a head that makes them into a class for each pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.network import Normalize


class Segmenter(nn.Module):
    """images uint8 or float [n, 3, h, w] with values 0..255 -> logits [n, C, h, w]. Exportable as it is.

    backbone  images, standardised -> feature maps, the finest first (nn.feature_maps.MapBackbone)
    head      these maps -> logits [n, C, h', w'], as fine as the head makes them
    """

    def __init__(self, preprocessing: Preprocessing, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing.mean, preprocessing.std)
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(self.normalize(images)))
        return resized(logits, images)


def resized(maps: Tensor, like: Tensor) -> Tensor:
    """``maps`` at the height and width of ``like``, bilinear: edge to edge, as pixels cover areas."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def conv_norm_act(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that keeps the size, with its batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
