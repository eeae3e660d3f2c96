"""Masks for the dense detector: prototypes of the whole image, and for each cell how much of each its object takes.

Bolya et al. 2019 (YOLACT, arXiv:1904.02689). The mask of a candidate is sigmoid(coefficients . prototypes), cropped to
its box. Dice beside the cross-entropy: Milletari et al. 2016 (V-Net, arXiv:1606.04797), so that a small object in a
loose box is not all background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.detection.assign import Assignment
from snellen.nn.detection.dense import LOSS_WEIGHTS, Branch, DenseDetector, Raw
from snellen.nn.detection.neck import ConvNormAct
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

NUM_PROTOTYPES = 32  # Bolya et al. 2019: 32 to 64 are enough, and 32 the fastest of them
MASK_STRIDE = 4  # pixels of the input to one of a prototype, where the pyramid allows it

_MOST_LEARNT = 100  # cells of an image whose masks are learnt, those with the best boxes: each needs a whole map


class Prototypes(nn.Sequential):
    """The finest map of a pyramid [n, width, h, w], ``stride`` pixels a cell -> [n, count, h', w']: of the same size,
    or twice as fine where a cell is more than MASK_STRIDE pixels."""

    def __init__(self, width: int, count: int, stride: int) -> None:
        enlarge = 2 if stride > MASK_STRIDE else 1
        super().__init__(
            ConvNormAct(width, width, 3),
            ConvNormAct(width, width, 3),
            nn.Upsample(scale_factor=enlarge, mode="bilinear") if enlarge > 1 else nn.Identity(),
            ConvNormAct(width, width, 3),
            nn.Conv2d(width, count, 1),
        )


class DenseInstanceDetector(DenseDetector):
    """images [n, 3, h, w] with values 0..255 -> candidates float32 [n, m, 4 + C + K] and prototypes float32
    [n, K, h', w'].

    A candidate is what it is for ``DenseDetector``, and then its coefficients, -1..1. The loss has one more term,
    'mask'; truths need their masks.
    """

    usual_weights: ClassVar[Mapping[str, float]] = {**LOSS_WEIGHTS, "mask": 2.0}

    def __init__(
        self, preprocessing: Preprocessing, backbone: MapBackbone, num_classes: int, *, width: int = 64, **settings: Any
    ) -> None:
        super().__init__(preprocessing, backbone, num_classes, width=width, **settings)
        strides = self.head.neck.strides
        self.head.branches["coefficients"] = Branch(width, NUM_PROTOTYPES, len(strides))
        self.head.add_module("prototypes", Prototypes(width, NUM_PROTOTYPES, strides[0]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.candidates(self.raw(images))

    @torch.no_grad()
    def assess(  # type: ignore[override]
        self, images: Tensor, truths: Sequence[Truth]
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        raw = self.raw(images)
        return self.terms(raw, truths), self.candidates(raw)

    def raw(self, images: Tensor) -> Raw:
        """As for ``DenseDetector``, and among the outputs the prototypes [n, K, h', w']."""
        said = super().raw(images)
        return replace(
            said, outputs={**said.outputs, "prototypes": self.head.get_submodule("prototypes")(said.levels[0])}
        )

    def candidates(self, raw: Raw) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        coefficients = raw.outputs["coefficients"].float().tanh()
        return torch.cat([super().candidates(raw), coefficients], 2), raw.outputs["prototypes"].float()

    def further_terms(self, raw: Raw, truths: Sequence[Truth], asked: Sequence[Assignment]) -> dict[str, Tensor]:
        """Of the cells that answer for an object, each as much as its box does."""
        coefficients, prototypes = raw.outputs["coefficients"].float().tanh(), raw.outputs["prototypes"].float()
        losses, shares = [], []
        for i, (truth, each) in enumerate(zip(truths, asked, strict=True)):
            cells = each.share.topk(min(_MOST_LEARNT, int((each.truth >= 0).sum()))).indices
            logits = torch.einsum("pk,khw->phw", coefficients[i, cells], prototypes[i])
            losses.append(mask_loss(logits, *mask_targets(truth, each.truth[cells], logits.shape[1:])))
            shares.append(each.share[cells])
        share = torch.cat(shares)
        return {"mask": (torch.cat(losses) * share).sum() / share.sum().clamp_min(1)}


def mask_targets(truth: Truth, objects: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What masks of ``shape`` (h', w') are asked to show of ``objects`` [p], places in ``truth``.

    Two float32 [p, h', w']: which share of each cell the object covers, and whether the cell meets its box (1 or 0).
    """
    if truth.masks is None:
        raise ValueError("masks are learnt from truths with masks, and this one has none")
    height, width = shape
    scale = truth.boxes.new_tensor([truth.masks.shape[2] / width, truth.masks.shape[1] / height])
    x0, y0, x1, y1 = (truth.boxes[objects] / scale.repeat(2)).T[..., None]
    across, down = (torch.arange(length, device=objects.device) for length in (width, height))
    inside_x, inside_y = (across + 1 > x0) & (across < x1), (down + 1 > y0) & (down < y1)
    covered = F.adaptive_avg_pool2d(truth.masks.float(), (height, width))[objects]
    return covered, (inside_y[:, :, None] & inside_x[:, None]).float()


def mask_loss(logits: Tensor, covered: Tensor, inside: Tensor) -> Tensor:
    """Of p masks [p, h, w], each within its box ``inside``: cross-entropy, its mean, and 1 - Dice -> [p].

    ``covered`` may be soft: this Dice, over squares, is 1 only where both are the same.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, covered, reduction="none")
    shown, covered = logits.sigmoid() * inside, covered * inside
    overlap = 2 * (shown * covered).sum((1, 2))
    total = (shown.square() + covered.square()).sum((1, 2))
    return (entropy * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1) + 1 - overlap / total.clamp_min(1e-6)
