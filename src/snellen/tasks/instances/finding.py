"""What a network says, as objects in the pixels of the image on disk: the mask that each takes of the prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.geometry import Matrix, clip_boxes, compose, invert, map_boxes, squash
from snellen.core.sample import Frame
from snellen.tasks.instances.object_mask import NOTHING, ObjectMask
from snellen.tasks.instances.target import InstanceSet

if TYPE_CHECKING:
    from torch import Tensor

    from snellen.nn.detection.nms import Suppression

FLOOR = 0.05  # scores below it are never looked at (He et al. 2017, arXiv:1703.06870)
MOST = 100  # objects found in an image: as many of a class as COCO looks at
_STRIP = 1024  # columns at a time: log-odds of one object on 10,000 x 10,000 pixels would take 400 MB

Floats = NDArray[np.float32]


def find(
    candidates: Tensor, prototypes: Tensor, num_classes: int, frame: Frame, *, kind: Suppression, iou: float
) -> InstanceSet:
    """candidates [m, 4 + C + K] and prototypes [K, h', w'] of one image -> its objects, the best first.

    Overlapping boxes are thinned out (``nms.select``). The mask of one that is left is where its coefficients and the
    prototypes make more than 0, which is a probability of a half, within its box; an object without a pixel is none.
    """
    import torch

    from snellen.nn.detection.nms import select

    chosen = select(candidates[:, : 4 + num_classes], threshold=FLOOR, iou=iou, kind=kind, most=MOST)
    coefficients = candidates[chosen.candidate, 4 + num_classes :].float()
    with torch.autocast(prototypes.device.type, enabled=False):
        logits = torch.einsum("nk,khw->nhw", coefficients, prototypes.float()).cpu().numpy()
    boxes, _ = clip_boxes(map_boxes(invert(frame.matrix), chosen.boxes.cpu().numpy()), frame.size)
    scores = chosen.scores.cpu().numpy().astype(np.float32)
    return _with_masks(boxes, chosen.labels.cpu().numpy(), scores, logits, frame)


def placed_masks(answers: Mapping[str, NDArray[Any]], frame: Frame) -> InstanceSet:
    """The objects of one image from what a graph told of them: see ``Instances.graph_answers``."""
    boxes = answers["boxes"].astype(np.float64)
    return _with_masks(boxes, answers["labels"], answers["scores"], answers["mask_logits"], frame)


def _with_masks(
    boxes: NDArray[np.float64], labels: NDArray[np.int64], scores: Floats, logits: Floats, frame: Frame
) -> InstanceSet:
    """boxes [m, 4] in pixels of the image and logits [m, h', w'] over the input -> the objects that have a pixel."""
    masks = [mask_in(each, box, frame) for each, box in zip(logits, boxes, strict=True)]
    seen = np.array([mask.width > 0 for mask in masks], np.bool_)
    shown = [mask for mask in masks if mask.width > 0]
    return InstanceSet.predicted(frame.size, shown, boxes[seen].astype(np.float32), labels[seen], scores[seen])


def mask_in(logits: Floats, box: NDArray[np.float64], frame: Frame) -> ObjectMask:
    """logits [h', w'] over the whole input -> the pixels of the image, within ``box`` (in its pixels), above 0.

    Between the centres of the cells log-odds are interpolated, which keeps an edge where they cross 0: probabilities
    would be flat on either side of it.
    """
    x0, y0, x1, y1 = np.clip(np.ceil(box - 0.5), 0, [*frame.size, *frame.size]).astype(int).tolist()
    if x0 >= x1 or y0 >= y1:
        return NOTHING
    to_cells = compose(frame.matrix, squash(frame.input_size, (logits.shape[1], logits.shape[0])))
    if abs(to_cells[0, 0]) < abs(to_cells[0, 1]):  # the rows of the image became the columns of the input
        logits, to_cells = logits.T, to_cells[[1, 0, 2]]
    rows = _interpolated(logits, _places(to_cells, 1, y0, y1)).T
    columns = _places(to_cells, 0, x0, x1)
    strips = [_interpolated(rows, columns[start : start + _STRIP]) > 0 for start in range(0, len(columns), _STRIP)]
    return ObjectMask.of(np.concatenate(strips).T, x0, y0)


def _places(to_cells: Matrix, axis: int, start: int, stop: int) -> NDArray[np.float64]:
    """Where the centres of pixels start..stop lie among the cells: frames turn an image by quarters only."""
    scale, offset = to_cells[axis, axis] / to_cells[2, 2], to_cells[axis, 2] / to_cells[2, 2]
    return np.asarray(scale * (np.arange(start, stop) + 0.5) + offset)


def _interpolated(values: Floats, places: NDArray[np.float64]) -> Floats:
    """values [n, k] at the centres of n cells -> [len(places), k]; beyond the outer centres, theirs."""
    at = np.clip(places - 0.5, 0, len(values) - 1)
    below = np.floor(at).astype(int)
    share = (at - below).astype(np.float32)[:, None]
    above = np.minimum(below + 1, len(values) - 1)
    return np.asarray(values[below] * (1 - share) + values[above] * share)
