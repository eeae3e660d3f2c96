"""Weighted boxes fusion as a step of a graph: many images at once, and as many objects as there are.

What ``tasks.objects.fusion`` does image by image in numpy, in operations that can be traced. Where a runtime has double
precision it decides the same to the bit; in single precision, a box that overlaps an object by just the limit, to a
millionth, may join it or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from snellen.nn.detection.boxes import iou as overlap_of
from snellen.nn.detection.suppression_graph import rows_of
from snellen.nn.repeating import Carried, repeated

_TINY = 1e-30  # keeps the mean of no boxes finite, in single precision too


def fused_together(
    found: Sequence[Mapping[str, Tensor]],
    shares: Sequence[float],
    *,
    num_images: int,
    iou: float,
    agnostic: bool,
    most: int,
) -> dict[str, Tensor]:
    """What several models have found in the same images -> what there is in them, told alike.

    found   of each model what ``suppression_graph.objects_in`` gives, at most ``most`` objects an image
    shares  of each model, above 0
    iou, agnostic, most  as ``fuse`` has them
    """
    rows, steps = _of_each_image(found, shares, num_images, most)
    rows = rows_of(rows, _in_order(*([] if agnostic else [rows[..., 5]]), -rows[..., 4]))
    sums = _clustered(rows, steps, iou, agnostic)
    count = sums[..., 5]
    scores = sums[..., 4] / count.clamp_min(1) * count.clamp_max(len(found))
    order = _in_order(-scores)
    image, place = ((rows_of(scores, order) > 0) & (steps < most)).nonzero(as_tuple=True)
    at = order[image, place]
    return {
        "boxes": _means(sums[image, at]).float(),
        "scores": scores[image, at].clamp(max=1).float(),  # shares that differ may come to more
        "labels": rows[image, at, 5].long(),
        "image_index": image,
    }


def _of_each_image(
    found: Sequence[Mapping[str, Tensor]], shares: Sequence[float], num_images: int, most: int
) -> tuple[Tensor, Tensor]:
    """float64 [n, k, 6]: of each image the box, weight (score times share) and label of all that was found, one model
    after the other, and then rows of zeros; and 0, 1, ... k - 1, with k of at least 2 (see ``repeating.steps_for``)."""
    image = torch.cat([each["image_index"] for each in found])
    total, device = image.shape[0], image.device
    columns = (
        torch.cat([each["boxes"] for each in found]).double(),
        torch.cat([share * each["scores"].double() for share, each in zip(shares, found, strict=True)])[:, None],
        torch.cat([each["labels"] for each in found]).double()[:, None],
    )
    image_by_image = (image * total + torch.arange(total, device=device)).argsort()
    rows = torch.cat(columns, 1)[image_by_image]
    rows = torch.cat([rows, rows.new_zeros((1, 6))])
    images = torch.arange(num_images, device=device)[:, None]
    start, count = (image < images).sum(1), (image == images).sum(1)
    steps = (torch.arange(most * len(found) + 2, device=device) <= count.amax(0) + 1).nonzero().squeeze(1)
    torch._check(steps.shape[0] > 1)
    return rows[torch.where(steps < count[:, None], start[:, None] + steps, total)], steps


def _in_order(*keys: Tensor) -> Tensor:
    """keys [n, k], of which an earlier one counts more -> places int64 [n, k], the smallest first and equals as they
    come. By counting: torch 2.15 has no way to ONNX for its stable sort."""
    numbers = torch.arange(keys[0].shape[1], device=keys[0].device)
    before = (numbers < numbers[:, None])[None]
    for key in reversed(keys):
        own, other = key[:, :, None], key[:, None]
        before = (other < own) | ((other == own) & before)
    return before.sum(2).argsort(1)


def _clustered(rows: Tensor, steps: Tensor, iou: float, agnostic: bool) -> Tensor:
    """rows [n, k, 6], each group in the order of its weights -> float64 [n, k, 6]: the sums of box times weight, the
    sum of weights and the number of those that joined the object which began with that row; zeros where none did."""
    # What a step looks at must not be two views of one tensor.
    boxes, weights, labels = rows[..., :4].clone(), rows[..., 4:5], rows[..., 5].clone()
    groups = torch.zeros_like(labels) if agnostic else labels
    parts = torch.cat([weights * boxes, weights, torch.ones_like(weights)], 2)

    def join(carried: Carried, number: Tensor) -> tuple[Carried, Tensor]:
        (sums,) = carried
        one = number[None]
        overlap = overlap_of(_means(sums), boxes.index_select(1, one))
        best, place = torch.where(groups == groups.index_select(1, one), overlap, 0.0).max(1)
        place = torch.where(best > iou, place, number)
        own = (steps == place[:, None])[..., None]
        return (torch.where(own, sums + parts.index_select(1, one), sums),), place

    (sums,), _ = repeated(join, (torch.zeros_like(parts),), steps)
    return sums


def _means(sums: Tensor) -> Tensor:
    """[..., 6] -> boxes [..., 4]."""
    return sums[..., :4] / sums[..., 4:5].clamp_min(_TINY)
