"""From logits of the network's input to a class for each pixel of the image on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.geometry import Matrix, Size, compose, crop_resize, identity, translation
from snellen.core.sample import Frame
from snellen.nn.repeating import repeated, steps_for

_MOST_VALUES = 2**24  # logits looked at together: 64 MiB of them
_PIECE = 2**13  # pixels that a graph looks at together: their logits stay in a processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What is said of an image through one view of it, or by one of several models.

    logits  [C, h, w], of the pixels of the input
    frame   how the image became that input; None: its pixels are those of the image
    share   what it counts beside the others, above 0
    """

    logits: Tensor
    frame: Frame | None
    share: float = 1.0

    @property
    def size(self) -> Size:
        """(width, height) of the image that is answered for."""
        return (self.logits.shape[2], self.logits.shape[1]) if self.frame is None else self.frame.size


def decide(
    logits: Tensor, frame: Frame | None, favour: Tensor | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Logits [C, h, w] of one image -> the class of each pixel, uint8 [H, W], and how sure it is of each class, [C].

    frame   how the image became the input: answers are for its pixels; None: for those of the input
    favour  added to the logits [C] before the largest is taken; it does not change how sure the answer is

    How sure: the mean probability of the class over the pixels that were given to it, 0 where none was. Logits between
    the pixels of the input are interpolated bilinearly; beyond its edge (a centre crop cuts off) the nearest count.
    """
    return decide_together([Sight(logits, frame)], favour)


def decide_together(
    sights: Sequence[Sight], favour: Tensor | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """As ``decide``, by the mean of the probabilities over several sights of one image, each to its share.

    The arithmetic mean: what one of them is sure of cannot be vetoed by another, as in a geometric mean, whose few
    wrong but sure pixels would rule; and what is said of a pixel is the same as where whole images are classified.
    A few rows of the image at a time, however many sights there are.
    """
    sights = [replace(sight, logits=sight.logits.float()) for sight in sights]
    num_classes = len(sights[0].logits)
    width, height = sights[0].size
    classes = np.empty((height, width), np.uint8)
    sums, counts = np.zeros(num_classes), np.zeros(num_classes)
    rows = max(1, _MOST_VALUES // (num_classes * width))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        logs = _log_probabilities(sights, top, bottom)
        chosen = (logs if favour is None else logs + favour[:, None, None]).argmax(0)
        probability = logs.gather(0, chosen[None])[0].exp()
        classes[top:bottom] = chosen.to(torch.uint8).cpu().numpy()
        flat = chosen.flatten()
        sums += torch.bincount(flat, probability.flatten().double(), num_classes).cpu().numpy()
        counts += torch.bincount(flat, minlength=num_classes).cpu().numpy()
    return classes, (sums / np.maximum(counts, 1)).astype(np.float32)


def _log_probabilities(sights: Sequence[Sight], top: int, bottom: int) -> Tensor:
    """The logarithm of the mean probabilities at the pixels of rows ``top`` to ``bottom``, [C, bottom - top, width]."""
    logs: Tensor | None = None
    total = sum(sight.share for sight in sights)
    for sight in sights:
        whole = _is_input(sight.frame)
        piece = sight.logits[:, top:bottom] if whole else _sampled(sight.logits, sight.frame, top, bottom)
        own = piece.log_softmax(0) + math.log(sight.share / total)
        logs = own if logs is None else torch.logaddexp(logs, own)
    assert logs is not None
    return logs


Lines = tuple[Tensor, Tensor]
"""float32 [W] and [H], where the columns and rows of an image lie, in ``grid_sample``'s coordinates."""


def decide_batch(
    outputs: Sequence[Tensor], lines: Sequence[Lines], shares: Sequence[float], favour: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``decide_together`` in operations that a graph can hold: of each model its logits [n, C, h, w] for images of one
    size, its lines and its share -> uint8 [n, H, W] and float32 [n, C]. The shares are above 0 and add up to 1.

    A piece of each image at a time, however large it is: of all its pixels, only classes are kept.
    """
    outputs = [logits.float() for logits in outputs]
    (num, num_classes), device = outputs[0].shape[:2], outputs[0].device
    width, height = lines[0][0].shape[0], lines[0][1].shape[0]
    pixels = width * height
    index = torch.arange(_PIECE + 1, device=device)  # the last is where the next piece begins
    columns, rows = (torch.full((), each, device=device) for each in (width, height))

    def piece(carried: tuple[Tensor, ...], _: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        sums, counts, row, column = carried
        # Not from the pixel's number: OpenVINO takes remainders in float32, which ends at 16.7 million.
        far = column + index
        x = far % columns
        y = row + ((far - x).double() / columns).round().long()  # exact: a graph's own division of integers is not
        inside = (y[:-1] < rows).float().expand(num, -1)  # after the last pixel, the last row is looked at again
        logs = _log_probabilities_at(x[:-1], torch.minimum(y[:-1], rows - 1), outputs, lines, shares)
        chosen = (logs if favour is None else logs + favour[:, None]).argmax(1)
        probability = logs.gather(1, chosen[:, None])[:, 0].exp()
        none = logs.new_zeros(num, num_classes)
        more = [none.scatter_add(1, chosen, each) for each in (probability * inside, inside)]
        return (sums + more[0], counts + more[1], y[-1].clone(), x[-1].clone()), chosen.to(torch.uint8)

    zeros = torch.zeros(num, num_classes, dtype=torch.float64, device=device)  # float32 cannot count so many pixels
    start = torch.zeros((), dtype=torch.int64, device=device)
    steps = torch.arange(steps_for(pixels, _PIECE), device=device)
    (sums, counts, *_), pieces = repeated(piece, (zeros, zeros.clone(), start, start.clone()), steps)
    classes = pieces.transpose(0, 1).flatten(1)[:, :pixels].reshape(num, -1, width)
    return classes, (sums / counts.clamp(min=1)).float()


def _log_probabilities_at(
    column: Tensor, row: Tensor, outputs: Sequence[Tensor], lines: Sequence[Lines], shares: Sequence[float]
) -> Tensor:
    """As ``_log_probabilities``, at some pixels [p] of the images: [n, C, p]."""
    logs: Tensor | None = None
    for logits, (x, y), share in zip(outputs, lines, shares, strict=True):
        where = torch.stack([x.index_select(0, column), y.index_select(0, row)], 1)[None, None]
        every = where.expand(logits.shape[0], -1, -1, -1)
        fine = F.grid_sample(logits, every, mode="bilinear", padding_mode="border", align_corners=False)
        own = fine[:, :, 0].log_softmax(1) + math.log(share)
        logs = own if logs is None else torch.logaddexp(logs, own)
    assert logs is not None
    return logs


def to_grid(frame: Frame) -> Matrix:
    """From the image on disk to ``grid_sample``'s coordinates in the input."""
    return compose(frame.matrix, crop_resize((0, 0, *frame.input_size), (2, 2)), translation(-1, -1))


def _is_input(frame: Frame | None) -> bool:
    return frame is None or (frame.size == frame.input_size and bool(np.array_equal(frame.matrix, identity())))


def _sampled(logits: Tensor, frame: Frame | None, top: int, bottom: int) -> Tensor:
    """The logits at the pixels of rows ``top`` to ``bottom`` of the image on disk, [C, bottom - top, width]."""
    assert frame is not None
    grid = torch.from_numpy(_mapped_centres(to_grid(frame), frame.size[0], top, bottom)).to(logits.device)
    return F.grid_sample(logits[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def _mapped_centres(matrix: Matrix, width: int, top: int, bottom: int) -> NDArray[np.float32]:
    """Where ``matrix`` takes the centres of the pixels of some rows, float32 [rows, width, 2]."""
    x, y = np.arange(width) + 0.5, np.arange(top, bottom)[:, None] + 0.5
    a, b, depth = (row[0] * x + row[1] * y + row[2] for row in matrix)
    return np.stack([a / depth, b / depth], axis=-1).astype(np.float32)
