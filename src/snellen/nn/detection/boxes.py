"""How much boxes (x0, y0, x1, y1) overlap. Shapes broadcast: [m, 1, 4] with [k, 4] gives every pair, [m, k]."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-7  # keeps quotients of empty boxes finite


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; 0 for a box whose sides are the wrong way round."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and of union."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    sides = (high - low).clamp_min(0)
    shared = sides[..., 0] * sides[..., 1]
    return shared, area(a) + area(b) - shared


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, 0..1; of two empty boxes 0."""
    shared, union = overlap(a, b)
    return shared / union.clamp_min(EPS)


def hull(a: Tensor, b: Tensor) -> Tensor:
    """The smallest boxes round both."""
    return torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1)
