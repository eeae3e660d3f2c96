"""Parts of images where marks stand, the corners and the edges: which pixels they are, and images without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snellen.doctor.case import Training
from snellen.doctor.loaders import Mapped, statistics

SMALLEST = 8  # pixels of the shorter side: in smaller images an edge is no whole pixel
_CORNER, _EDGE = 1 / 4, 1 / 8  # of the side


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A rectangle: the first and the last row and column as shares of the sides."""

    name: str
    top: float
    bottom: float
    left: float
    right: float

    def mask(self, inputs: Tensor) -> Tensor:
        """bool [1, 1, h, w], for images [n, c, h, w]."""
        height, width = inputs.shape[2:]
        mask = torch.zeros(1, 1, height, width, dtype=torch.bool, device=inputs.device)
        rows = slice(round(self.top * height), round(self.bottom * height))
        columns = slice(round(self.left * width), round(self.right * width))
        mask[:, :, rows, columns] = True
        return mask


def _corner(name: str, top: float, left: float) -> Region:
    return Region(name=name, top=top, bottom=top + _CORNER, left=left, right=left + _CORNER)


_ALL = (
    _corner("upper left corner", 0, 0),
    _corner("upper right corner", 0, 1 - _CORNER),
    _corner("lower left corner", 1 - _CORNER, 0),
    _corner("lower right corner", 1 - _CORNER, 1 - _CORNER),
    Region(name="upper edge", top=0, bottom=_EDGE, left=0, right=1),
    Region(name="lower edge", top=1 - _EDGE, bottom=1, left=0, right=1),
    Region(name="left edge", top=0, bottom=1, left=0, right=_EDGE),
    Region(name="right edge", top=0, bottom=1, left=1 - _EDGE, right=1),
)
REGIONS = {region.name: region for region in _ALL}


def have_borders(inputs: object) -> bool:
    """Whether these are images [n, c, h, w] that are large enough to have a border."""
    return isinstance(inputs, Tensor) and inputs.dim() == 4 and min(inputs.shape[2:]) >= SMALLEST


def are_images(training: Training) -> bool:
    inputs, _ = next(iter(training.val))
    return have_borders(inputs)


def painted_over(training: Training, region: Region) -> Training:
    """The region has the mean colour of the training images, in training, in validation and wherever it is used."""
    paint = _brush(training, region)
    plain = None if training.plain is None else Mapped(training.plain, paint)
    return replace(training, train=Mapped(training.train, paint), val=Mapped(training.val, paint), plain=plain)


def validated_without(training: Training, region: Region) -> Training:
    """The same in validation alone."""
    return replace(training, val=Mapped(training.val, _brush(training, region)))


def _brush(training: Training, region: Region) -> Callable[[Tensor], Tensor]:
    mean, _ = statistics(training.train)

    def paint(inputs: Tensor) -> Tensor:
        return torch.where(region.mask(inputs), mean.view(1, -1, 1, 1).to(inputs), inputs)

    return paint
