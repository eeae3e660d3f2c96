"""Faster R-CNN with the layers and losses of torchvision (BSD-3), on any backbone.

Of torchvision's detectors only the inner parts are used: images are resized and standardised before. Its anchors are
moved to the centres of cells, and the layers are narrower than published, for CPUs and few images.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from snellen.core.geometry import Size
from snellen.nn.detection.adapter import (
    MOST,
    OnBackbone,
    check_powers_of_two,
    coarser,
    fp32,
    learnt,
    of_crowd,
)
from snellen.nn.detection.neck import FeaturePyramid
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

WIDTH = 128  # channels of the pyramid: half of what is published, for a quarter of the multiplications
HIDDEN = 512  # outputs of the layers that read a region; half of what is published
ANCHOR = 4.0  # sides of an anchor in strides: 32 pixels at stride 8
RATIOS = (0.5, 1.0, 2.0)
PROPOSALS = 300  # of an image that are classified; as published with a single map (Ren et al. 2015)
SAMPLED_ANCHORS, SAMPLED_PROPOSALS = 256, 128  # of an image that are learnt from (Ren et al. 2015, Girshick 2015)

_LEVELS = 5  # of a pyramid at most: strides 8 to 128 on most backbones (Lin et al. 2017)


class Levels(nn.Module):
    """maps of a backbone -> maps [n, WIDTH, h / strides[i], w / strides[i]]: our pyramid, and coarser ones after it.

    Each coarser one is the one before at half its size, by a convolution, as long as it has two cells each way.
    """

    def __init__(self, backbone: MapBackbone, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.neck = FeaturePyramid(backbone.channels, backbone.reductions, WIDTH, "fpn")
        self.strides = coarser(self.neck.strides, input_size, _LEVELS)
        more = len(self.strides) - len(self.neck.strides)
        self.shrink = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1) for _ in range(more))
        self.out_channels = WIDTH

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = self.neck(maps)
        for shrink in self.shrink:
            levels.append(shrink(F.relu(levels[-1])))
        return [level.float() for level in levels]


class CellAnchors(AnchorGenerator):  # type: ignore[misc]
    """Anchors round the centres of cells. torchvision's are round their upper left corners, and no flip is alike."""

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        corners: list[Tensor] = super().grid_anchors(grid_sizes, strides)
        return [boxes + torch.stack((x, y, x, y)) / 2 for boxes, (y, x) in zip(corners, strides, strict=True)]


class CrowdRPN(RegionProposalNetwork):  # type: ignore[misc]
    """Anchors that are of a crowd are neither objects nor background. Targets have 'truth' besides."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Any]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, places, target in zip(labels, anchors, targets, strict=True):
            label[~_asked(places, target["truth"])] = -1.0
        return labels, boxes


class CrowdRoIHeads(RoIHeads):  # type: ignore[misc]
    """Proposals that are of a crowd are not sampled. Targets have 'truth' besides."""

    def select_training_samples(self, proposals: list[Tensor], targets: list[dict[str, Any]]) -> Any:
        pairs = zip(proposals, targets, strict=True)
        return super().select_training_samples([boxes[_asked(boxes, told["truth"])] for boxes, told in pairs], targets)


def _asked(boxes: Tensor, truth: Truth) -> Tensor:
    """bool [m]: those that are not of a crowd. One is always left, as the losses are means."""
    asked = ~of_crowd(boxes, truth)
    asked[:1] |= ~asked.any()
    return asked


class RCNNHead(nn.Module):
    """The parts of Faster R-CNN behind the backbone: the pyramid, what proposes regions, and what reads them."""

    def __init__(self, backbone: MapBackbone, input_size: tuple[int, int], num_classes: int, **more: nn.Module) -> None:
        """``more``: parts of torchvision's RoIHeads for a further kind of answer, such as mask_head."""
        super().__init__()
        self.levels = Levels(backbone, input_size)
        check_powers_of_two(self.levels.strides)  # torchvision's pooling takes steps to be such
        anchors = CellAnchors(tuple((ANCHOR * stride,) for stride in self.levels.strides), (RATIOS,) * self.depth)
        self.rpn = CrowdRPN(
            anchors,
            RPNHead(WIDTH, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=SAMPLED_ANCHORS,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 1000, "testing": 1000},
            post_nms_top_n={"training": 1000, "testing": PROPOSALS},
            nms_thresh=0.7,
        )
        self.roi_heads = CrowdRoIHeads(
            region_pool(self.depth, 7),
            TwoMLPHead(WIDTH * 7 * 7, HIDDEN),
            FastRCNNPredictor(HIDDEN, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=SAMPLED_PROPOSALS,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.0,
            nms_thresh=1.0,
            detections_per_img=MOST,
        )

    @property
    def depth(self) -> int:
        return len(self.levels.strides)


def region_pool(num_levels: int, side: int) -> MultiScaleRoIAlign:
    """Regions of the levels '0', '1', ... -> [regions, channels, side, side] (He et al. 2017, RoIAlign)."""
    return MultiScaleRoIAlign([str(level) for level in range(num_levels)], side, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """images: as torchvision wants them told; levels: the maps of the pyramid by the names '0', '1', ..."""

    images: ImageList
    levels: dict[str, Tensor]


class FasterRCNN(OnBackbone):
    """Regions are proposed, and each is then classified and its box made better.

    Ren et al. 2015 (arXiv:1506.01497) on the pyramid of Lin et al. 2017 (arXiv:1612.03144) from stride 8 on. A
    candidate is a region with the box for one class, and has a score for that class alone; there are always ``MOST``,
    the rest with boxes and scores of 0.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {"objectness": 1.0, "proposal": 1.0, "class": 1.0, "box": 1.0}
    NAMES: ClassVar[Mapping[str, str]] = {
        "loss_objectness": "objectness",
        "loss_rpn_box_reg": "proposal",
        "loss_classifier": "class",
        "loss_box_reg": "box",
    }

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        head = RCNNHead(backbone, input_size, num_classes)
        return head, head.levels.neck.multiple

    def raw(self, images: Tensor) -> Seen:
        levels = self.head.levels(self.maps(images))
        height, width = images.shape[-2:]
        told = ImageList(images, [(height, width)] * len(images))
        return Seen(told, OrderedDict((str(i), level) for i, level in enumerate(levels)))

    def targets(self, truths: Sequence[Truth]) -> list[dict[str, Any]]:
        """As torchvision wants them told: 0 is background there, so that classes begin at 1."""
        told = []
        for truth in truths:
            boxes, labels = learnt(truth)
            told.append({"boxes": boxes, "labels": labels + 1, "truth": truth})
        return told

    def terms(self, raw: Seen, truths: Sequence[Truth]) -> dict[str, Tensor]:
        head, targets = self.head, self.targets(truths)
        with fp32(raw.images.tensors), told_to_learn(head.rpn, head.roi_heads, learning=True):
            proposals, first = head.rpn(raw.images, raw.levels, targets)
            _, second = head.roi_heads(raw.levels, proposals, raw.images.image_sizes, targets)
        return {self.NAMES[name]: term for name, term in {**first, **second}.items()}

    def candidates(self, raw: Seen) -> Tensor:
        with fp32(raw.images.tensors):
            return torch.stack([self._padded(*self.pairs(*found)) for found in self.regions(raw)])

    def regions(self, raw: Seen) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each image the boxes [r, C, 4], one for each class, and the scores [r, C] of its regions."""
        head, sizes = self.head, raw.images.image_sizes
        with told_to_learn(head.rpn, head.roi_heads, learning=False):
            proposals, _ = head.rpn(raw.images, raw.levels)
        pooled = head.roi_heads.box_head(head.roi_heads.box_roi_pool(raw.levels, proposals, sizes))
        logits, deltas = head.roi_heads.box_predictor(pooled)
        boxes = head.roi_heads.box_coder.decode(deltas, proposals).unflatten(1, (logits.shape[1], -1)).flatten(2)
        counts = [len(each) for each in proposals]
        for found, scores in zip(boxes.split(counts), logits.softmax(-1).split(counts), strict=True):
            yield found[:, 1:], scores[:, 1:]

    def pairs(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of boxes [r, C, 4] and scores [r, C] the ``MOST`` best pairs of region and class: boxes, scores, labels."""
        top = scores.flatten().topk(min(MOST, scores.numel()))
        return boxes.flatten(0, 1)[top.indices], top.values, top.indices % max(1, scores.shape[1])

    def _padded(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        found = torch.cat([boxes, scores[:, None] * F.one_hot(labels, self.num_classes)], 1)
        return F.pad(found, (0, 0, 0, MOST - len(found)))


@contextmanager
def told_to_learn(*modules: nn.Module, learning: bool) -> Iterator[None]:
    """Tell torchvision's parts to compute losses, or answers. The layers within keep their modes."""
    was = [module.training for module in modules]
    try:
        for module in modules:
            module.training = learning
        yield
    finally:
        for module, training in zip(modules, was, strict=True):
            module.training = training
