"""Which cells answer for which object, and how well: task-aligned assignment.

Feng et al. 2021 (TOOD, arXiv:2108.07755): the cells for an object are those whose score and box, taken together, are
best already, and the target of a score is the quality of its box.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snellen.nn.detection.boxes import iou
from snellen.nn.detection.truth import Truth

BACKGROUND = -1

_TINY = torch.finfo(torch.float32).tiny  # so that an object is learnt that is neither scored nor met by any box


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The m places that answer, over all levels.

    centres  float32 [m, 2] (x, y) in pixels of the input
    strides  float32 [m]: the side of each cell in pixels
    """

    centres: Tensor
    strides: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """What each of m cells is asked to say.

    truth    int64 [m]: the object that it answers for; -1: background
    quality  float32 [m]: the target 0..1 of its score; 0 for background
    share    float32 [m]: how well it does compared with the best cell of its object, 0..1; 0 for background
    ignored  bool [m]: within a crowd, so that it is not asked
    """

    truth: Tensor
    quality: Tensor
    share: Tensor
    ignored: Tensor


@torch.no_grad()
def assign(
    boxes: Tensor, scores: Tensor, cells: Cells, truth: Truth, *, topk: int = 13, alpha: float = 1.0, beta: float = 6.0
) -> Assignment:
    """boxes float32 [m, 4] and scores [m, C] as predicted for one image -> what is asked of each cell.

    Candidates for an object are the cells whose centre is within its box, and on each level the one that its centre is
    in: no object is too small. Of them the ``topk`` with the largest score**alpha * IoU**beta are taken. A cell that
    several objects ask for goes to the one that it overlaps best, but no object is left without a cell while it has a
    candidate that is free or that another object can spare.
    """
    count = len(boxes)
    learnt = (~truth.crowd).nonzero().squeeze(1)
    owner = torch.full((count,), BACKGROUND, dtype=torch.int64, device=boxes.device)
    quality, share = boxes.new_zeros(count), boxes.new_zeros(count)
    if len(learnt):
        overlaps = iou(boxes[:, None].float(), truth.boxes[learnt])  # [m, k]
        metric = (scores[:, truth.labels[learnt]].float().pow(alpha) * overlaps.pow(beta)).clamp_min(_TINY)
        candidate = _candidates(cells, truth.boxes[learnt])
        taken = _best(metric, candidate, topk)
        place = torch.where(taken, overlaps, -1.0).max(1)  # the best overlap of each cell
        owner = torch.where(place.values >= 0, place.indices, BACKGROUND)
        _leave_none_out(owner, metric, candidate)
        quality, share = _targets(owner, metric, overlaps)
        owner = torch.where(owner >= 0, learnt[owner.clamp_min(0)], BACKGROUND)
    inside = _within(cells.centres, truth.boxes[truth.crowd])
    return Assignment(owner, quality, share, (owner < 0) & inside.any(1))


def _within(centres: Tensor, boxes: Tensor) -> Tensor:
    """centres [m, 2], boxes [k, 4] -> bool [m, k]; the upper sides are no part of a box."""
    return ((centres[:, None] >= boxes[:, :2]) & (centres[:, None] < boxes[:, 2:])).all(2)


def _candidates(cells: Cells, boxes: Tensor) -> Tensor:
    """bool [m, k]: the cell's centre is in the box, or the box's centre (moved into the image) in the cell."""
    half = cells.strides[:, None] / 2
    extent = (cells.centres + half).max(0).values
    middle = torch.minimum((boxes[:, :2] + boxes[:, 2:]).clamp_min(0) / 2, extent - 1e-3)
    offset = middle - cells.centres[:, None]  # [m, k, 2]
    at_centre = ((offset >= -half[..., None]) & (offset < half[..., None])).all(2)
    return _within(cells.centres, boxes) | at_centre


def _best(metric: Tensor, candidate: Tensor, topk: int) -> Tensor:
    """bool [m, k]: the ``topk`` best candidates of each column."""
    ranked = torch.where(candidate, metric, -1.0).topk(min(topk, len(metric)), 0).indices
    return torch.zeros_like(candidate).scatter_(0, ranked, True) & candidate


def _leave_none_out(owner: Tensor, metric: Tensor, candidate: Tensor) -> None:
    """Give each object without a cell, in ``owner`` [m], the best that is free or that its owner has others beside."""
    cells_of = torch.bincount(owner[owner >= 0], minlength=metric.shape[1])
    for k in (cells_of == 0).nonzero().squeeze(1).tolist():
        spare = (owner < 0) | (cells_of[owner.clamp_min(0)] > 1)
        rank = torch.where(candidate[:, k] & spare, metric[:, k], -1.0)
        best = int(rank.argmax())
        if rank[best] >= 0:
            if owner[best] >= 0:
                cells_of[owner[best]] -= 1
            owner[best] = k
            cells_of[k] = 1


def _targets(owner: Tensor, metric: Tensor, overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """quality and share [m]: the metric, scaled so that the best cell of an object gets its best IoU, or 1."""
    mine = torch.nn.functional.one_hot(owner.clamp_min(0), metric.shape[1]).bool() & (owner >= 0)[:, None]
    own = torch.where(mine, metric, 0.0)
    share = own / own.max(0).values.clamp_min(_TINY)
    best = torch.where(mine, overlaps, 0.0).max(0).values
    return (share * best).sum(1), share.sum(1)
