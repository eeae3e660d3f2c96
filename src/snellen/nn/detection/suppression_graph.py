"""Non-maximum suppression as a step of a graph: many images at once, and as many objects as there are.

What ``nms.select`` does image by image, in operations that can be traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snellen.nn.detection.boxes import iou as overlap_of
from snellen.nn.detection.nms import CONSIDERED, SIGMA, Suppression
from snellen.nn.placing import Placed
from snellen.nn.repeating import Carried, repeated

Suppress = Callable[[Tensor, Tensor, float, float, int], Tensor]
"""boxes float32 [n, k, 4], scores float32 [n, c, k], the IoU above which a worse box goes, the score from which one is
looked at, and how many a class of an image may keep -> int64 [m, 3]: image, class and box of those that stay."""


class Chosen(NamedTuple):
    """What stays, image by image, the best of each first.

    image      int64 [m]: which image
    candidate  int64 [m]: which of its candidates
    labels     int64 [m]
    scores     float32 [m]
    boxes      float32 [m, 4], in pixels of the input
    """

    image: Tensor
    candidate: Tensor
    labels: Tensor
    scores: Tensor
    boxes: Tensor

    def where(self, kept: Tensor) -> Chosen:
        """Those of which bool [m] ``kept`` is true."""
        index = kept.nonzero().squeeze(1)
        return Chosen(*(column[index] for column in self))


def choose(
    candidates: Tensor, *, threshold: float, iou: float, kind: Suppression, most: int, suppress: Suppress
) -> Chosen:
    """candidates [n, m, 4 + C] -> what ``nms.select`` keeps of each image."""
    num_classes = candidates.shape[2] - 4
    flat = candidates[:, :, 4:].float().flatten(1)
    scores, order = flat.topk(min(max(CONSIDERED, most), flat.shape[1]))
    index, labels = order // num_classes, order % num_classes
    boxes = rows_of(candidates[:, :, :4].float(), index)
    if kind == "soft":
        place, scores = _softly(boxes, torch.where(scores > threshold, scores, 0.0), labels, most)
        index, labels, boxes = rows_of(index, place), rows_of(labels, place), rows_of(boxes, place)
    if kind in ("none", "soft"):
        image, place = (scores[:, :most] > threshold).nonzero(as_tuple=True)
    else:
        groups = num_classes if kind == "per class" else 1
        own = labels[:, None] == torch.arange(num_classes, device=labels.device)[None, :, None]
        of_group = torch.where(own, scores[:, None], 0.0) if groups > 1 else scores[:, None]
        kept = suppress(boxes, of_group, iou, threshold, most)
        image, place = kept[:, 0], kept[:, 2]
    chosen = Chosen(image, index[image, place], labels[image, place], scores[image, place], boxes[image, place])
    return chosen if kind in ("none", "soft") else _best(chosen, candidates.shape[0], most)


def _softly(boxes: Tensor, scores: Tensor, labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """``nms.soft_nms`` of every image in a fixed number of steps: boxes [n, k, 4], scores [n, k] and labels [n, k] ->
    the places int64 [n, most] of those taken, in order, and their scores then. Those that it would not take are 0."""
    every = torch.arange(scores.shape[0], device=scores.device)

    def take(carried: Carried, number: Tensor) -> tuple[Carried, Tensor]:
        (left,) = carried
        best, first = left.max(1)
        overlap = overlap_of(boxes[every, first][:, None], boxes)
        fallen = torch.where(labels == labels[every, first][:, None], left * torch.exp(-overlap.square() / SIGMA), left)
        fallen = fallen.index_put((every, first), torch.zeros_like(best))
        return (fallen,), torch.stack([best, first.to(best.dtype)], 1)  # float32 holds such places exactly

    _, taken = repeated(take, (scores,), torch.arange(min(most, scores.shape[1]), device=scores.device))
    best, first = taken.permute(2, 1, 0)
    return first.long(), best


def rows_of(values: Tensor, places: Tensor) -> Tensor:
    """values [n, m, ...] and places [n, k] -> [n, k, ...]. Not by gather: OpenVINO 2026.4 forgets a slice before it."""
    return values[torch.arange(values.shape[0], device=values.device)[:, None], places]


def _best(chosen: Chosen, num_images: int, most: int) -> Chosen:
    """Image by image, the best first, at most ``most`` of each."""
    order = (2.0 * chosen.image.double() - chosen.scores.double()).argsort()  # scores are within 0..1
    ordered = Chosen(*(column[order] for column in chosen))
    images = torch.arange(num_images, device=order.device)
    first = (ordered.image[None] < images[:, None]).sum(1)
    rank = torch.arange(ordered.image.shape[0], device=order.device) - first[ordered.image]
    return ordered.where(rank < most)


def objects_in(chosen: Chosen, placed: Placed) -> tuple[dict[str, Tensor], Chosen]:
    """The arrays that tell of objects in the pixels of the images; those are left out of which nothing is in view."""
    boxes = placed.boxes(chosen.boxes)
    seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, chosen = boxes[seen.nonzero().squeeze(1)], chosen.where(seen)
    return {"boxes": boxes, "scores": chosen.scores, "labels": chosen.labels, "image_index": chosen.image}, chosen


def mask_logits(coefficients: Tensor, prototypes: Tensor, image: Tensor) -> Tensor:
    """What coefficients [m, K] make of the prototypes [n, K, h', w'] of their images -> float32 [m, h', w'].

    ``image`` int64 [m], in rising order. All images are asked for as many masks as the fullest has: with every object
    held against all prototypes, memory would grow with the square of the batch (16 images of 100: 2.6 GB for 160 MB).
    """
    images = torch.arange(prototypes.shape[0], device=image.device)[:, None]
    order = torch.arange(image.shape[0], device=image.device)
    first, count = (image < images).sum(1), (image == images).sum(1)
    rank = (order < count[:, None]).any(0).nonzero().squeeze(1)
    asked = (first[:, None] + rank).clamp_max(image.shape[0] - 1)
    every = torch.matmul(coefficients.float()[asked], prototypes.float().flatten(2))
    own = every[image, order - first[image]]
    return own.reshape(-1, prototypes.shape[2], prototypes.shape[3])


def suppressed(boxes: Tensor, scores: Tensor, iou: float, threshold: float, most: int) -> Tensor:
    """``Suppress`` by torchvision: the boxes of each class of each image lie
    far from all others, in double precision, so that one call tells all."""
    import torchvision  # noqa: F401  (brings the operation)

    image, label, box = (scores > threshold).nonzero(as_tuple=True)
    where = boxes[image, box].double()
    apart = 2 * torch.cat([where.abs().flatten(), where.new_zeros(1)]).amax() + 1
    group = (image * scores.shape[1] + label).double()
    kept = torch.ops.torchvision.nms(where + (group * apart)[:, None], scores[image, label, box].double(), iou)
    return torch.stack([image[kept], label[kept], box[kept]], 1)


def suppressed_in_turn(boxes: Tensor, scores: Tensor, iou: float, threshold: float, most: int) -> Tensor:
    """``Suppress`` image by image and class by class: where many are found, quicker than one call, which holds every
    box against all of the others."""
    import torchvision  # noqa: F401  (brings the operation)

    kept = []
    for image, label in (scores > threshold).any(2).nonzero().tolist():
        box = (scores[image, label] > threshold).nonzero().squeeze(1)
        best = box[torch.ops.torchvision.nms(boxes[image, box], scores[image, label, box], iou)[:most]]
        kept.append(torch.stack([torch.full_like(best, image), torch.full_like(best, label), best], 1))
    return torch.cat(kept) if kept else torch.zeros((0, 3), dtype=torch.int64, device=boxes.device)


class Suppressing:
    """A network that suppresses within. One that is to be traced is told how its runtime does."""

    suppress: Suppress = staticmethod(suppressed_in_turn)
