"""Training images blended with each other: MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from snellen.core.geometry import Size
from snellen.core.sample import Batch, Mixed
from snellen.core.seeds import keyed_generator, keyed_permutation

if TYPE_CHECKING:
    import torch

TargetT = TypeVar("TargetT")
Region = tuple[int, int, int, int]  # x0, y0, x1, y1


class Overlays(Protocol):
    """What a task whose targets lie in places knows of them."""

    def overlay(self, own: Any, other: Any, region: Region) -> Any: ...


def mix(
    batch: Batch[TargetT],
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    seed: int,
    epoch: int,
    step: int,
    places: Overlays | None = None,
) -> Batch[TargetT]:
    """Each image of the batch with another one of it blended, or pasted, into it.

    mixup, cutmix  the alpha of Beta(alpha, alpha), from which the share that an image keeps is drawn, one for the whole
                   batch; 0 is off. With both on, a fair draw decides which of them a batch gets.
    places         of targets that lie in places: where a box is pasted, its objects or classes come along

    Everything follows from (seed, epoch, step). Pixels stay uint8 [n, 3, H, W]. A batch of one image stays as it is.
    """
    alphas = {name: alpha for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0.0}
    if not alphas or len(batch) < 2:
        return batch
    rng = keyed_generator("mix", seed, epoch, step)
    name = list(alphas)[int(rng.integers(len(alphas)))]
    share = float(rng.beta(alphas[name], alphas[name]))
    partner = keyed_permutation(len(batch), "partners", seed, epoch, step)
    partners = [batch.targets[i] for i in partner]
    if name == "mixup":
        images = _blend(batch.images, batch.images[partner], share)
        return replace(batch, images=images, mixed=Mixed(partners=partners, share=share))
    height, width = batch.images.shape[2:]
    region = _box(share, (width, height), rng)
    images = _paste(batch.images, batch.images[partner], region)
    if places is not None:
        targets = [places.overlay(own, other, region) for own, other in zip(batch.targets, partners, strict=True)]
        return replace(batch, images=images, targets=targets)
    left, top, right, bottom = region
    share = 1.0 - (right - left) * (bottom - top) / (width * height)
    return replace(batch, images=images, mixed=Mixed(partners=partners, share=share))


def _blend(own: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    import torch

    return torch.lerp(other.float(), own.float(), share).round_().to(own.dtype)


def _paste(own: torch.Tensor, other: torch.Tensor, region: Region) -> torch.Tensor:
    left, top, right, bottom = region
    images = own.clone()
    images[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return images


def _box(share: float, size: Size, rng: np.random.Generator) -> Region:
    """(left, top, right, bottom) that covers 1 - share of the image, or less where it is cut at the edge: a box of the
    image's own proportions, its middle anywhere."""
    half = np.array(size) * sqrt(1.0 - share) / 2
    middle = rng.random(2) * size
    corners = np.concatenate([middle - half, middle + half])
    left, top, right, bottom = np.clip(np.rint(corners), 0, [*size, *size]).astype(int).tolist()
    return left, top, right, bottom
