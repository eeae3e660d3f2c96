"""Training images blended with each other: MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from snellen.core.geometry import Size
from snellen.core.sample import Batch, Mixed
from snellen.core.seeds import keyed_generator, keyed_permutation

if TYPE_CHECKING:
    import torch

TargetT = TypeVar("TargetT")


def mix(
    batch: Batch[TargetT], *, mixup: float = 0.0, cutmix: float = 0.0, seed: int, epoch: int, step: int
) -> Batch[TargetT]:
    """Each image of the batch with another one of it blended, or pasted, into it.

    mixup, cutmix  the alpha of Beta(alpha, alpha), from which the share that an image keeps is drawn, one for the whole
                   batch; 0 is off. With both on, a fair draw decides which of them a batch gets.

    Everything follows from (seed, epoch, step). Pixels stay uint8 [n, 3, H, W]. A batch of one image stays as it is.
    """
    alphas = {name: alpha for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0.0}
    if not alphas or len(batch) < 2:
        return batch
    rng = keyed_generator("mix", seed, epoch, step)
    name = list(alphas)[int(rng.integers(len(alphas)))]
    share = float(rng.beta(alphas[name], alphas[name]))
    partner = keyed_permutation(len(batch), "partners", seed, epoch, step)
    images, share = _WAYS[name](batch.images, batch.images[partner], share, rng)
    return replace(batch, images=images, mixed=Mixed(partners=[batch.targets[i] for i in partner], share=share))


def _blend(
    own: torch.Tensor, other: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    import torch

    return torch.lerp(other.float(), own.float(), share).round_().to(own.dtype), share


def _paste(
    own: torch.Tensor, other: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """A box of the image's own proportions, its middle anywhere; the share is that of the pixels that are left."""
    height, width = own.shape[2:]
    left, top, right, bottom = _box(share, (width, height), rng)
    images = own.clone()
    images[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return images, 1.0 - (right - left) * (bottom - top) / (width * height)


def _box(share: float, size: Size, rng: np.random.Generator) -> list[int]:
    """(left, top, right, bottom) that covers 1 - share of the image, or less where it is cut at the edge."""
    half = np.array(size) * sqrt(1.0 - share) / 2
    middle = rng.random(2) * size
    corners = np.concatenate([middle - half, middle + half])
    return [int(edge) for edge in np.clip(np.rint(corners), 0, [*size, *size])]


_WAYS: Mapping[str, Callable[[torch.Tensor, torch.Tensor, float, np.random.Generator], tuple[torch.Tensor, float]]] = (
    MappingProxyType({"mixup": _blend, "cutmix": _paste})
)
