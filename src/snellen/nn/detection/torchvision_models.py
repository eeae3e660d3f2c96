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
from snellen.nn.detection.regions import CONSIDERED, SAME_REGION, SAMPLES, of_classes, propose, read_regions
from snellen.nn.detection.suppression_graph import Suppressing, rows_of
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

WIDTH = 128  # channels of the pyramid: half of what is published, for a quarter of the multiplications
HIDDEN = 512  # outputs of the layers that read a region; half of what is published
ANCHOR = 4.0  # sides of an anchor in strides: 32 pixels at stride 8
RATIOS = (0.5, 1.0, 2.0)
PROPOSALS = 300  # of an image that are classified; as published with a single map (Ren et al. 2015)
SAMPLED_ANCHORS, SAMPLED_PROPOSALS = 256, 128  # of an image that are learnt from (Ren et al. 2015, Girshick 2015)

_POOLED = 7  # cells of a region each way
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
        self.proposals = PROPOSALS
        check_powers_of_two(self.levels.strides)  # torchvision's pooling takes steps to be such
        anchors = CellAnchors(tuple((ANCHOR * stride,) for stride in self.levels.strides), (RATIOS,) * self.depth)
        self.rpn = CrowdRPN(
            anchors,
            RPNHead(WIDTH, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=SAMPLED_ANCHORS,
            positive_fraction=0.5,
            pre_nms_top_n={"training": CONSIDERED, "testing": CONSIDERED},
            post_nms_top_n={"training": 1000, "testing": PROPOSALS},
            nms_thresh=SAME_REGION,
        )
        self.roi_heads = CrowdRoIHeads(
            region_pool(self.depth, _POOLED),
            TwoMLPHead(WIDTH * _POOLED**2, HIDDEN),
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
    return MultiScaleRoIAlign([str(level) for level in range(num_levels)], side, SAMPLES)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """images [n, 3, h, w]; levels: the maps of the pyramid by the names '0', '1', ..."""

    images: Tensor
    levels: dict[str, Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def told(self) -> ImageList:
        """The images as torchvision wants them told."""
        return ImageList(self.images, [self.size] * len(self.images))


class FasterRCNN(OnBackbone, Suppressing):
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
        return Seen(images, OrderedDict((str(i), level) for i, level in enumerate(levels)))

    def targets(self, truths: Sequence[Truth]) -> list[dict[str, Any]]:
        """As torchvision wants them told: 0 is background there, so that classes begin at 1."""
        told = []
        for truth in truths:
            boxes, labels = learnt(truth)
            told.append({"boxes": boxes, "labels": labels + 1, "truth": truth})
        return told

    def terms(self, raw: Seen, truths: Sequence[Truth]) -> dict[str, Tensor]:
        head, targets, images = self.head, self.targets(truths), raw.told
        with fp32(raw.images), told_to_learn(head.rpn, head.roi_heads):
            proposals, first = head.rpn(images, raw.levels, targets)
            _, second = head.roi_heads(raw.levels, proposals, images.image_sizes, targets)
        return {self.NAMES[name]: term for name, term in {**first, **second}.items()}

    def candidates(self, raw: Seen) -> Tensor:
        with fp32(raw.images):
            boxes, scores, labels = self.pairs(*self.regions(raw))
            found = torch.cat([boxes, of_classes(scores, labels, self.num_classes)], 2)
            return F.pad(found, (0, 0, 0, MOST - found.shape[1]))

    def regions(self, raw: Seen) -> tuple[Tensor, Tensor]:
        """Of the r regions of each image the boxes [n, r, C, 4], one for each class, and the scores [n, r, C]; both are
        0 for regions that are missing."""
        heads, levels = self.head.roi_heads, list(raw.levels.values())
        proposals, likely = propose(self.head.rpn, levels, raw.images, self.head.proposals, self.suppress)
        regions = proposals.flatten(0, 1)
        images = torch.arange(proposals.shape[0], device=regions.device)[:, None].expand_as(likely).flatten()
        read = heads.box_head(read_regions(levels, raw.size[0], regions, images, _POOLED))
        logits, deltas = heads.box_predictor(read)
        boxes = heads.box_coder.decode_single(deltas, regions).unflatten(1, (-1, 4))[:, 1:]
        scores = logits.softmax(-1)[:, 1:] * (likely.flatten() > 0)[:, None]
        return boxes.unflatten(0, likely.shape), scores.unflatten(0, likely.shape)

    def pairs(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of boxes [n, r, C, 4] and scores [n, r, C] the ``MOST`` best pairs of region and class, the best first:
        boxes [n, k, 4], scores [n, k], labels [n, k]."""
        flat = scores.flatten(1)
        top = flat.topk(min(MOST, flat.shape[1]))
        return rows_of(boxes.flatten(1, 2), top.indices), top.values, top.indices % max(1, scores.shape[2])


@contextmanager
def told_to_learn(*modules: nn.Module) -> Iterator[None]:
    """Tell torchvision's parts to compute losses. The layers within keep their modes."""
    was = [module.training for module in modules]
    try:
        for module in modules:
            module.training = True
        yield
    finally:
        for module, training in zip(modules, was, strict=True):
            module.training = training
