"""Random variants of training images, one at a time or many tiny ones at once.

Every random choice is keyed by (seed, epoch, sample id) and by nothing else, so that a run resumes without replay, any
number of workers makes the same pixels, and both ways draw the same numbers. The order is: one resampling of
everything that moves pixels, a policy's operations on colours, the colours, blur, noise, the blanked square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from snellen.core.geometry import Matrix, Size
from snellen.data.augment import Augmentation
from snellen.data.colours import draw_colours, erase, erase_batch, recolour, recolour_batch
from snellen.data.effects import add_noise, blur, draw_effects
from snellen.data.elastic import ElasticField, elastic_fields
from snellen.data.placement import Fit, geometry
from snellen.data.policies import policy_colours, policy_steps
from snellen.data.warp import Pixels, warp_batch, warp_image

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the pixels of a variant came from: the image through ``matrix`` [3, 3], then through ``field``."""

    matrix: Matrix
    field: ElasticField | None


def place(
    settings: Augmentation, seed: int, epoch: int, sample_id: str, in_size: Size, size: Size, *, fit: Fit = "crop"
) -> Placed:
    """How an image of ``in_size`` is brought to ``size``: what moves its annotations as well."""
    key = (seed, epoch, [sample_id])
    matrix = geometry(settings, *key, in_size, size, fit=fit)[0]
    return Placed(matrix, elastic_fields(settings.elastic, *key, size)[0] if settings.elastic else None)


def vary(
    settings: Augmentation, seed: int, epoch: int, sample_id: str, image: Pixels, size: Size, *, fit: Fit = "crop"
) -> Pixels:
    """image uint8 [H, W, 3] -> its variant uint8 [height, width, 3] of ``size``."""
    placed = place(settings, seed, epoch, sample_id, (image.shape[1], image.shape[0]), size, fit=fit)
    return repaint(settings, seed, epoch, sample_id, warp_image(image, placed.matrix, size, field=placed.field))


def repaint(settings: Augmentation, seed: int, epoch: int, sample_id: str, image: Pixels) -> Pixels:
    """Everything that moves no pixel: a policy's operations, the colours, blur, noise, the blanked square."""
    key = (seed, epoch, [sample_id])
    image = policy_colours(policy_steps(settings, *key)[0], image)
    colours = draw_colours(*key)[0]
    image = recolour(settings, colours, image)
    if settings.blur or settings.noise:
        effects = draw_effects(*key)[0]
        image = add_noise(settings, effects, blur(settings, effects, image), seed, epoch, sample_id)
    return erase(settings, colours, image)


def vary_batch(
    settings: Augmentation,
    seed: int,
    epoch: int,
    sample_ids: Sequence[str],
    images: torch.Tensor,
    size: Size,
    *,
    fit: Fit = "crop",
) -> torch.Tensor:
    """images uint8 [B, 3, H, W] of one size -> variants uint8 [B, 3, height, width]: as ``vary``, to rounding."""
    key = (seed, epoch, sample_ids)
    matrices = geometry(settings, *key, (images.shape[3], images.shape[2]), size, fit=fit)
    fields = elastic_fields(settings.elastic, *key, size) if settings.elastic else None
    images = warp_batch(images, matrices, size, fields=fields)
    if settings.policy != "none":
        steps = policy_steps(settings, *key)
        images = _one_by_one(images, lambda i, image: policy_colours(steps[i], image))
    colours = draw_colours(*key)
    images = recolour_batch(settings, colours, images)
    if settings.blur or settings.noise:
        effects = draw_effects(*key)

        def spoil(i: int, image: Pixels) -> Pixels:
            return add_noise(settings, effects[i], blur(settings, effects[i], image), seed, epoch, sample_ids[i])

        images = _one_by_one(images, spoil)
    return erase_batch(settings, colours, images)


def _one_by_one(images: torch.Tensor, change: Callable[[int, Pixels], Pixels]) -> torch.Tensor:
    """``change(i, image)`` for each image of a batch, for what has no way of its own to be done to many at once."""
    import torch

    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
    changed = np.stack([change(i, image) for i, image in enumerate(pixels)])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).to(images.device)
