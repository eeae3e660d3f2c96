"""Our own one-stage detector: every cell of a pyramid says what it sees and how far the four sides of its box are.

After Tian et al. 2019 (FCOS, arXiv:1904.01355: distances to the sides, no anchors), Feng et al. 2021 (TOOD,
arXiv:2108.07755: which cell learns what) and Lyu et al. 2022 (RTMDet, arXiv:2212.07784: levels share their
convolutions and keep norms of their own).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.preprocessing import Preprocessing
from snellen.nn.detection.assign import Assignment, Cells, assign
from snellen.nn.detection.losses import BOX_LOSSES, SCORE_LOSSES, distribution_focal_loss
from snellen.nn.detection.neck import FeaturePyramid, Neck
from snellen.nn.detection.table import check_sides
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.network import Normalize

LOSS_WEIGHTS: Mapping[str, float] = {"class": 1.0, "box": 2.0, "distribution": 0.0}  # Feng et al. 2021

_PRIOR = 0.01  # the score of every cell at the start, so that background does not drown the rest (Lin et al. 2017)
_REACH = 2.0  # strides from a centre to each side at the start: boxes of four strides, as RetinaNet's anchors
_FARTHEST = 10.0  # of the logarithm of a distance in strides: beyond any image, and finite
_BINS = 16  # strides that a distribution of a distance reaches (Li et al. 2020)


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """What the head says, before it is boxes and scores.

    outputs  the name of each branch -> [n, m, k]
    levels   the maps of the pyramid that the branches have read, the finest first
    cells    the m places
    """

    outputs: Mapping[str, Tensor]
    levels: Sequence[Tensor]
    cells: Cells


class SharedConv(nn.Module):
    """A convolution that all levels share, with a norm of each level's own, and SiLU."""

    def __init__(self, width: int, num_levels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(num_levels))
        self.act = nn.SiLU()

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [self.act(norm(self.conv(x))) for norm, x in zip(self.norms, levels, strict=True)]

    def folded(self) -> nn.Module:
        """The same function with its norms, as they are in evaluation, in convolutions of each level's own."""
        norms = [cast(nn.BatchNorm2d, norm).eval() for norm in self.norms]
        return _ConvOfEachLevel([fuse_conv_bn_eval(copy.deepcopy(self.conv).eval(), n) for n in norms], self.act)


class _ConvOfEachLevel(nn.Module):
    def __init__(self, convs: Sequence[nn.Module], act: nn.Module) -> None:
        super().__init__()
        self.convs, self.act = nn.ModuleList(convs), act

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        return [self.act(conv(x)) for conv, x in zip(self.convs, levels, strict=True)]


class Branch(nn.Module):
    """maps [n, width, h_i, w_i] -> what their cells say, [n, m, outputs]; ``bias`` is what they say at first."""

    def __init__(
        self, width: int, outputs: int, num_levels: int, *, bias: float | Tensor = 0.0, depth: int = 2
    ) -> None:
        super().__init__()
        self.tower = nn.Sequential(*(SharedConv(width, num_levels) for _ in range(depth)))
        self.predict = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        with torch.no_grad():
            cast(Tensor, self.predict.bias).copy_(torch.as_tensor(bias))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        return torch.cat([self.predict(x).flatten(2).transpose(1, 2) for x in self.tower(levels)], 1)


class DenseHead(nn.Module):
    """The pyramid, and by name the branches that read it: a further kind of answer is a further branch.

    score  [n, m, num_classes]: log-odds
    box    [n, m, 4]: logarithms of the distances to the left, top, right and bottom side, in strides of the cell;
           with bins [n, m, 4 (bins + 1)]: for each distance the log-probabilities of 0..bins strides, unnormalised
    """

    def __init__(self, backbone: MapBackbone, num_classes: int, *, width: int, neck: Neck, bins: int) -> None:
        super().__init__()
        self.neck = FeaturePyramid(backbone.channels, backbone.reductions, width, neck)
        levels = len(self.neck.strides)
        # A normal distribution round _REACH, or its logarithm.
        reach = -(torch.arange(bins + 1) - _REACH).square().div(2).repeat(4) if bins else math.log(_REACH)
        self.branches = nn.ModuleDict(
            {
                "score": Branch(width, num_classes, levels, bias=math.log(_PRIOR / (1 - _PRIOR))),
                "box": Branch(width, 4 * (bins + 1), levels, bias=reach),
            }
        )

    def forward(self, maps: Sequence[Tensor]) -> Raw:
        levels = self.neck(maps)
        return Raw(
            {name: branch(levels) for name, branch in self.branches.items()}, levels, cells(levels, self.neck.strides)
        )


class DenseDetector(nn.Module):
    """images uint8 or float [n, 3, h, w] with values 0..255 -> candidates float32 [n, m, 4 + num_classes].

    A candidate is a box (x0, y0, x1, y1) in pixels of the input, then a score 0..1 for each class. Many of them are of
    one object: ``nms.select`` tells which to keep. h and w have to be multiples of the coarsest stride, mostly 32:
    ConfigError otherwise.

    loss_weights  factors on the terms of the loss; those that are not named keep what they have by default. With
                  'distribution' above 0 a distance is a distribution over 0..16 strides, and no side is farther
    box_loss      a name of ``losses.BOX_LOSSES``; boxes are given to it in strides of their cell
    score_loss    a name of ``losses.SCORE_LOSSES``
    """

    needs_nms = True
    usual_weights: ClassVar[Mapping[str, float]] = LOSS_WEIGHTS

    def __init__(
        self,
        preprocessing: Preprocessing,
        backbone: MapBackbone,
        num_classes: int,
        *,
        loss_weights: Mapping[str, float] | None = None,
        width: int = 64,
        neck: Neck = "pan",
        box_loss: str = "giou",
        score_loss: str = "quality-focal",
    ) -> None:
        super().__init__()
        for name, known in (
            (box_loss, BOX_LOSSES),
            (score_loss, SCORE_LOSSES),
            *((n, self.usual_weights) for n in loss_weights or ()),
        ):
            if name not in known:
                raise ConfigError(f"a detector has no loss '{name}'{did_you_mean(name, known)}")
        self.normalize = Normalize(preprocessing.mean, preprocessing.std)
        self.backbone = backbone
        self.num_classes = num_classes
        self.loss_weights = {**self.usual_weights, **(loss_weights or {})}
        bins = _BINS if self.loss_weights["distribution"] else 0
        self.head = DenseHead(backbone, num_classes, width=width, neck=neck, bins=bins)
        self.box_loss, self.score_loss = BOX_LOSSES[box_loss], SCORE_LOSSES[score_loss]

    def forward(self, images: Tensor) -> Tensor:
        return self.candidates(self.raw(images))

    def losses(self, images: Tensor, truths: Sequence[Truth]) -> dict[str, Tensor]:
        """The terms of the training loss, weighted: 'class', 'box' and, where it counts, 'distribution'.

        float32 scalars, whatever the arithmetic.
        """
        return self.terms(self.raw(images), truths)

    @torch.no_grad()
    def assess(self, images: Tensor, truths: Sequence[Truth]) -> tuple[dict[str, Tensor], Tensor]:
        """``losses`` and ``forward`` out of one pass, in the mode that the network is in."""
        raw = self.raw(images)
        return self.terms(raw, truths), self.candidates(raw)

    def raw(self, images: Tensor) -> Raw:
        check_sides((images.shape[-1], images.shape[-2]), self.head.neck.multiple)
        said: Raw = self.head(self.backbone(self.normalize(images)))
        return said

    def candidates(self, raw: Raw) -> Tensor:
        return torch.cat([decode(raw.outputs["box"], raw.cells), raw.outputs["score"].float().sigmoid()], 2)

    def terms(self, raw: Raw, truths: Sequence[Truth]) -> dict[str, Tensor]:
        """The weighted terms of ``losses`` for what the head has said."""
        logits = raw.outputs["score"]
        truths = [truth.to(logits.device) for truth in truths]
        with torch.autocast(logits.device.type, enabled=False):
            boxes, scores = decode(raw.outputs["box"], raw.cells), logits.float().sigmoid()
            asked = [assign(box, score, raw.cells, of) for box, score, of in zip(boxes, scores, truths, strict=True)]
            terms = {"class": self._class_term(logits, truths, asked), **self._box_terms(raw, boxes, truths, asked)}
            terms |= self.further_terms(raw, truths, asked)
        return {name: self.loss_weights[name] * term for name, term in terms.items()}

    def further_terms(self, raw: Raw, truths: Sequence[Truth], asked: Sequence[Assignment]) -> dict[str, Tensor]:
        """The terms of branches that a detector has beside scores and boxes, not yet weighted; here none."""
        return {}

    def _class_term(self, logits: Tensor, truths: Sequence[Truth], asked: Sequence[Assignment]) -> Tensor:
        targets = torch.zeros_like(logits, dtype=torch.float32)
        for target, truth, each in zip(targets, truths, asked, strict=True):
            found = each.truth >= 0
            target[found, truth.labels[each.truth[found]]] = each.quality[found]
        counted = ~torch.stack([each.ignored for each in asked])
        return (self.score_loss(logits, targets) * counted[..., None]).sum() / targets.sum().clamp_min(1)

    def _box_terms(
        self, raw: Raw, boxes: Tensor, truths: Sequence[Truth], asked: Sequence[Assignment]
    ) -> dict[str, Tensor]:
        """Of the cells that answer for an object. Without any they are 0, and still have a graph."""
        found = torch.stack([each.truth >= 0 for each in asked])
        share = torch.stack([each.share for each in asked])[found]
        share = share / share.sum().clamp_min(1)
        true = torch.cat([truth.boxes[each.truth[each.truth >= 0]] for truth, each in zip(truths, asked, strict=True)])
        cell = found.nonzero()[:, 1]
        stride, centre = raw.cells.strides[cell, None], raw.cells.centres[cell]
        terms = {"box": (self.box_loss(boxes[found] / stride, true / stride) * share).sum()}
        if self.loss_weights["distribution"]:
            logits = torch.unflatten(raw.outputs["box"][found], -1, (4, -1))
            distances = torch.cat([centre - true[:, :2], true[:, 2:] - centre], 1) / stride
            terms["distribution"] = (distribution_focal_loss(logits, distances).mean(1) * share).sum()
        return terms


def cells(levels: Sequence[Tensor], strides: Sequence[int]) -> Cells:
    """The cells of maps [n, width, h_i, w_i], row by row, the first level first: the order of a branch's answers."""
    centres, sides = [], []
    for level, stride in zip(levels, strides, strict=True):
        y, x = ((torch.arange(side, device=level.device) + 0.5) * stride for side in level.shape[-2:])
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        centres.append(grid)
        sides.append(torch.full_like(grid[:, 0], stride))
    return Cells(torch.cat(centres), torch.cat(sides))


def decode(raw: Tensor, cells: Cells) -> Tensor:
    """What a head says of boxes, as ``DenseHead`` has it, [n, m, ...] -> float32 [n, m, 4] in pixels of the input."""
    if raw.shape[-1] == 4:
        distances = raw.float().clamp_max(_FARTHEST).exp()
    else:
        chance = torch.unflatten(raw.float(), -1, (4, -1)).softmax(-1)
        distances = (chance * torch.arange(chance.shape[-1], device=chance.device)).sum(-1)
    distances = distances * cells.strides[:, None]
    return torch.cat([cells.centres - distances[..., :2], cells.centres + distances[..., 2:]], -1)
