"""From logits of the network's input to a class for each pixel of the image on disk."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.geometry import Matrix, compose, crop_resize, identity, translation
from snellen.core.sample import Frame

_MOST_VALUES = 2**24  # logits looked at together: 64 MiB of them


def decide(
    logits: Tensor, frame: Frame | None, favour: Tensor | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Logits [C, h, w] of one image -> the class of each pixel, uint8 [H, W], and how sure it is of each class, [C].

    frame   how the image became the input: answers are for its pixels; None: for those of the input
    favour  added to the logits [C] before the largest is taken; it does not change how sure the answer is

    How sure: the mean probability of the class over the pixels that were given to it, 0 where none was. Logits between
    the pixels of the input are interpolated bilinearly; beyond its edge (a centre crop cuts off) the nearest count.
    """
    logits = logits.float()
    num_classes, in_height, in_width = logits.shape
    width, height = (in_width, in_height) if frame is None else frame.size
    classes = np.empty((height, width), np.uint8)
    sums, counts = np.zeros(num_classes), np.zeros(num_classes)
    rows = max(1, _MOST_VALUES // (num_classes * width))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        piece = logits[:, top:bottom] if _is_input(frame) else _sampled(logits, frame, top, bottom)
        chosen = (piece if favour is None else piece + favour[:, None, None]).argmax(0)
        probability = (piece.gather(0, chosen[None])[0] - piece.logsumexp(0)).exp()
        classes[top:bottom] = chosen.to(torch.uint8).cpu().numpy()
        flat = chosen.flatten()
        sums += torch.bincount(flat, probability.flatten().double(), num_classes).cpu().numpy()
        counts += torch.bincount(flat, minlength=num_classes).cpu().numpy()
    return classes, (sums / np.maximum(counts, 1)).astype(np.float32)


def _is_input(frame: Frame | None) -> bool:
    return frame is None or (frame.size == frame.input_size and bool(np.array_equal(frame.matrix, identity())))


def _sampled(logits: Tensor, frame: Frame | None, top: int, bottom: int) -> Tensor:
    """The logits at the pixels of rows ``top`` to ``bottom`` of the image on disk, [C, bottom - top, width]."""
    assert frame is not None
    to_grid = compose(frame.matrix, crop_resize((0, 0, *frame.input_size), (2, 2)), translation(-1, -1))
    grid = torch.from_numpy(_mapped_centres(to_grid, frame.size[0], top, bottom)).to(logits.device)
    return F.grid_sample(logits[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def _mapped_centres(matrix: Matrix, width: int, top: int, bottom: int) -> NDArray[np.float32]:
    """Where ``matrix`` takes the centres of the pixels of some rows, float32 [rows, width, 2]."""
    x, y = np.arange(width) + 0.5, np.arange(top, bottom)[:, None] + 0.5
    a, b, depth = (row[0] * x + row[1] * y + row[2] for row in matrix)
    return np.stack([a / depth, b / depth], axis=-1).astype(np.float32)
