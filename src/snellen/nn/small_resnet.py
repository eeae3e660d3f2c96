"""A residual network sized to tiny images: digits, icons, thumbnails. Trains from scratch on two cores in a minute."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """He et al., Deep Residual Learning, 2015 (arXiv:1512.03385), the basic block; halves the sides when it widens."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        # Zero at the start, so that each block begins as the identity (Goyal et al., 2017, arXiv:1706.02677).
        nn.init.zeros_(self.bn2.weight)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))) + self.shortcut(x))
        return y


class SmallResNet(nn.Module):
    """images float [n, 3, side, side], standardised -> pooled features [n, num_features].

    As many stages as it takes to bring the side down to 4 pixels; the width doubles with each.
    """

    def __init__(self, side: int, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[nn.Module] = [ResidualBlock(width, width, 1)]
        while side > 4:
            blocks.append(ResidualBlock(width, 2 * width, 2))
            width, side = 2 * width, (side + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.blocks(self.stem(images)), 1).flatten(1)
