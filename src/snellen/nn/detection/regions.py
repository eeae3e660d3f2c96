"""The regions of Faster R-CNN where nothing is learnt: proposed, thinned out and read for all images at once.

What torchvision does image by image, with as many regions as each happens to have. Here each image has the same number,
the last of them empty, so that it can be traced for any number of images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, roi_align
from torchvision.ops.poolers import initLevelMapper

from snellen.nn.detection.suppression_graph import Suppress, rows_of

CONSIDERED = 1000  # proposals of a level that are held against each other
SAME_REGION = 0.7  # IoU from which two proposals of a level are taken for one
SAMPLES = 2  # of a cell of a region, each way

_LEAST_SIDE = 1e-3  # pixels: what is smaller is no region
_CANONICAL = (224, 4)  # a region of 224 pixels is read from stride 16 (Lin et al. 2017, arXiv:1612.03144)


def propose(rpn: Any, levels: Sequence[Tensor], images: Tensor, most: int, suppress: Suppress) -> tuple[Tensor, Tensor]:
    """Maps [n, c, h, w] -> the ``most`` best regions of each image, the best first: boxes float32 [n, r, 4] and scores
    [n, r], both 0 where there are fewer. Where anchors are fewer than ``most``, r is their number."""
    objectness, deltas = rpn.head(levels)
    size = (images.shape[2], images.shape[3])
    anchors = rpn.anchor_generator(ImageList(images[:1], [size]), levels)[0]
    counts = [each.shape[1] * each.shape[2] * each.shape[3] for each in objectness]
    flat, moves = concat_box_prediction_layers(objectness, deltas)
    chosen, level = _best_of_levels(flat.reshape(-1, len(anchors)), counts)
    moved = rows_of(moves.reshape(-1, len(anchors), 4), chosen)
    boxes = rpn.box_coder.decode_single(moved.flatten(0, 1), anchors[chosen.flatten()]).view_as(moved)
    boxes = clip_boxes_to_image(boxes, size)
    scores = rows_of(flat.reshape(-1, len(anchors)), chosen).sigmoid()
    scores = torch.where(((boxes[..., 2:] - boxes[..., :2]) >= _LEAST_SIDE).all(-1), scores, 0.0)
    boxes, scores, _ = thinned_out(boxes, scores, level.expand_as(chosen), len(levels), SAME_REGION, most, suppress)
    return boxes, scores


def _best_of_levels(scores: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """scores [n, m], level after level -> the places [n, k] of the best of each, and the level [k] of each."""
    places, level, begin = [], [], 0
    for i, count in enumerate(counts):
        taken = min(CONSIDERED, count)
        places.append(scores[:, begin : begin + count].topk(taken).indices + begin)
        level.append(torch.full((taken,), i, device=scores.device))
        begin += count
    return torch.cat(places, 1), torch.cat(level)


def thinned_out(
    boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, iou: float, most: int, suppress: Suppress
) -> tuple[Tensor, Tensor, Tensor]:
    """boxes [n, k, 4], scores 0..1 [n, k] and groups [n, k] -> the same, the best ``most`` of those that are kept.

    One is kept unless it has a score of 0, or a kept one of its group overlaps it by more than ``iou``. Where fewer
    are, the rest have boxes and scores of 0.
    """
    each = torch.arange(num_groups, device=groups.device)[:, None]
    kept = suppress(boxes, torch.where(groups[:, None] == each, scores[:, None], 0.0), iou, 0.0, most)
    image, place = kept[:, 0], kept[:, 2]
    left = torch.zeros_like(scores).index_put((image, place), scores[image, place])
    top = left.topk(min(most, scores.shape[1]))
    shown = (top.values > 0)[..., None]
    return torch.where(shown, rows_of(boxes, top.indices), 0.0), top.values, rows_of(groups, top.indices)


def read_regions(levels: Sequence[Tensor], height: int, boxes: Tensor, images: Tensor, side: int) -> Tensor:
    """boxes [m, 4] in pixels of the input, and in which image [m] each is -> [m, channels, side, side].

    levels  [n, channels, h, w]; height: of the input, in pixels. Each region is read from the level that fits its size
            (Lin et al. 2017), by RoIAlign (He et al. 2017, arXiv:1703.06870).
    """
    scales = [2.0 ** round(math.log2(level.shape[2] / height)) for level in levels]
    rois = torch.cat([images[:, None].to(boxes.dtype), boxes], 1)
    first, last = (int(-math.log2(scale)) for scale in (scales[0], scales[-1]))
    at = initLevelMapper(first, last, *_CANONICAL)([boxes])
    read = boxes.new_zeros(boxes.shape[0], levels[0].shape[1], side, side)
    for i, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        own = (at == i).nonzero().squeeze(1)
        read.index_put_((own,), roi_align(level, rois[own], side, scale, SAMPLES))
    return read


def of_classes(scores: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """scores [n, k] of one class each -> [n, k, C], 0 for all others."""
    return torch.where(labels[..., None] == torch.arange(num_classes, device=labels.device), scores[..., None], 0.0)
