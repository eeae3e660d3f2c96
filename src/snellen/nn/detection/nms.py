"""Which of many candidates to keep: non-maximum suppression, greedy or soft.

In numpy: the steps are many, small and in turn, so that torch would spend its time on starting them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Suppression = Literal["per class", "agnostic", "soft", "none"]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CONSIDERED = 3000  # of an image's best scores: a score below them cannot be among the few that are kept, or hardly

SIGMA = 0.5  # of soft suppression: two boxes of an IoU of 0.6 leave the worse one half of its score


class Selection(NamedTuple):
    """What was found in an image, the best first; equal scores in the order of the candidates.

    boxes      float32 [k, 4]
    scores     float32 [k]
    labels     int64 [k]
    candidate  int64 [k]: which candidate each is
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    candidate: Tensor


def select(
    candidates: Tensor, *, threshold: float, iou: float = 0.6, kind: Suppression = "per class", most: int = 300
) -> Selection:
    """candidates [m, 4 + C] of one image -> at most ``most``, each with a score above ``threshold``.

    A candidate with scores for several classes above it is found once for each of them.

    kind  'per class'  what overlaps a better one of its class by more than ``iou`` is left out
          'agnostic'   the same whatever the classes
          'soft'       scores fall with the overlap instead: see ``soft_nms``; ``iou`` is not used
          'none'       for detectors that name each object once
    """
    flat = candidates[:, 4:].float().flatten()
    above = (flat > threshold).nonzero().squeeze(1)
    order = above[flat[above].sort(descending=True, stable=True).indices[: max(CONSIDERED, most)]]
    num_classes = candidates.shape[1] - 4
    index, labels = order // max(num_classes, 1), order % max(num_classes, 1)
    boxes, scores = candidates[index, :4].float(), flat[order]
    places, groups = boxes.detach().cpu().numpy(), labels.cpu().numpy()
    if kind == "soft":
        picked, fallen = soft_nms(places, scores.detach().cpu().numpy(), groups, threshold=threshold, most=most)
        scores = torch.from_numpy(fallen).to(scores.device)
    elif kind == "none":
        picked = np.arange(len(order))[:most]
    else:
        picked = greedy_nms(places, groups if kind == "per class" else np.zeros_like(groups), iou=iou, most=most)
    kept = torch.from_numpy(picked).to(order.device)
    return Selection(boxes[kept], scores if kind == "soft" else scores[kept], labels[kept], index[kept])


def greedy_nms(boxes: Floats, groups: Ints, *, iou: float, most: int) -> Ints:
    """boxes [k, 4], the best first, and the group [k] of each -> places int64 of those to keep, in order.

    One is kept unless a kept one of its group overlaps it by more than ``iou``.
    """
    kept: list[int] = []
    rest, sides = np.arange(len(boxes)), _sides(boxes)
    while rest.size and len(kept) < most:
        kept.append(rest[0])
        clash = (_iou(sides[:, 0], sides) > iou) & (groups[rest] == groups[rest[0]])
        clash[0] = True
        rest, sides = rest[~clash], sides[:, ~clash]
    return np.array(kept, np.int64)


def soft_nms(boxes: Floats, scores: Floats, groups: Ints, *, threshold: float, most: int) -> tuple[Ints, Floats]:
    """boxes [k, 4], scores [k] and the group [k] of each -> places int64 of those to keep, best first, and
    their scores.

    Whenever one is taken, the scores of the others of its group are multiplied by exp(-IoU**2 / SIGMA); it ends when
    none is above ``threshold`` (Bodla et al. 2017, arXiv:1704.04503, with the Gaussian penalty).
    """
    kept: list[int] = []
    told: list[float] = []
    sides, scores = _sides(boxes), scores.copy()
    while len(kept) < min(most, len(boxes)):
        first = int(scores.argmax())
        if not scores[first] > threshold:
            break
        kept.append(first)
        told.append(scores[first])
        fall = np.exp(-np.square(_iou(sides[:, first], sides)) / SIGMA)
        scores *= np.where(groups == groups[first], fall, 1)
        scores[first] = -np.inf
    return np.array(kept, np.int64), np.array(told, np.float32)


def _sides(boxes: Floats) -> Floats:
    """x0, y0, x1, y1 and the area, each [k]: rows are faster to compute with than columns."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    return np.stack([*boxes.T, width * height])


def _iou(one: Floats, many: Floats) -> Floats:
    """[5] with [5, k] -> [k]."""
    width = np.minimum(one[2], many[2]) - np.maximum(one[0], many[0])
    height = np.minimum(one[3], many[3]) - np.maximum(one[1], many[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = one[4] + many[4] - shared
    ratio: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio
