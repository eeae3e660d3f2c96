"""RetinaNet, FCOS and SSD with the layers and losses of torchvision (BSD-3), on any backbone.

As in torchvision_models.py, only the inner parts are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD, SSDHead

from snellen.core.geometry import Size
from snellen.nn.detection.adapter import OnBackbone, best, coarser, fp32, hushed, learnt, of_crowd
from snellen.nn.detection.boxes import iou
from snellen.nn.detection.neck import FeaturePyramid
from snellen.nn.detection.torchvision_models import ANCHOR, RATIOS, CellAnchors, Levels
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

_SSD_LEVELS = 6
_WIDTH = 128  # channels of the levels that SSD adds
_LEAST_NEGATIVES = 24  # of an image without objects: as many as beside eight matched boxes


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """outputs: by torchvision's names, each [n, m, k] in float32; anchors [m, 4]; counts: of the anchors by level."""

    outputs: dict[str, Tensor]
    anchors: Tensor
    counts: list[int]


class AnchorDetector(OnBackbone):
    """What the one-stage detectors share: each anchor says how far its box is from it, and what is in it.

    ``head`` is torchvision's detector; its own backbone is the pyramid.
    """

    NAMES: ClassVar[Mapping[str, str]] = {"classification": "class", "bbox_regression": "box", "bbox_ctrness": "centre"}

    def raw(self, images: Tensor) -> Said:
        levels = self.head.backbone(self.maps(images))
        outputs = {name: said.float() for name, said in self.head.head(levels).items()}
        anchors = self.head.anchor_generator(ImageList(images[:1], [tuple(images.shape[-2:])]), levels)[0]
        return Said(outputs, anchors, [level.shape[2] * level.shape[3] for level in levels])

    def terms(self, raw: Said, truths: Sequence[Truth]) -> dict[str, Tensor]:
        with fp32(raw.anchors):
            outputs = {**raw.outputs, "cls_logits": hushed(raw.outputs["cls_logits"], raw.anchors, truths)}
            targets = [dict(zip(("boxes", "labels"), learnt(truth), strict=True)) for truth in truths]
            told = self.costs(targets, outputs, raw)
        return {self.NAMES[name]: term for name, term in told.items()}

    def costs(self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], raw: Said) -> dict[str, Tensor]:
        told: dict[str, Tensor] = self.head.compute_loss(targets, outputs, [raw.anchors] * len(targets))
        return told

    def candidates(self, raw: Said) -> Tensor:
        with fp32(raw.anchors):
            scores = self.scores(raw.outputs)
            return best(self.boxes(raw.outputs["bbox_regression"], raw.anchors), scores)

    def boxes(self, regression: Tensor, anchors: Tensor) -> Tensor:
        """[n, m, 4] as it is said -> in pixels. torchvision takes many boxes of an anchor: here one of each image."""
        said = regression.transpose(0, 1).flatten(1)
        boxes: Tensor = self.head.box_coder.decode_single(said, anchors)
        return boxes.view(len(anchors), -1, 4).transpose(0, 1)

    def scores(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["cls_logits"].sigmoid()


class RetinaDetector(AnchorDetector):
    """RetinaNet, Lin et al. 2017 (arXiv:1708.02002): nine anchors a cell, and the focal loss against background.

    With group norms between its convolutions, as torchvision's second version: without, it hardly starts.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {"class": 1.0, "box": 1.0}

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        levels = Levels(backbone, input_size)
        sizes = tuple(tuple(ANCHOR * stride * 2 ** (i / 3) for i in range(3)) for stride in levels.strides)
        anchors = CellAnchors(sizes, (RATIOS,) * len(sizes))
        norm = partial(nn.GroupNorm, 32)
        head = RetinaNetHead(levels.out_channels, anchors.num_anchors_per_location()[0], num_classes, norm_layer=norm)
        model = RetinaNet(levels, num_classes, anchor_generator=anchors, head=head)
        return model, levels.neck.multiple


class FCOSDetector(AnchorDetector):
    """FCOS, Tian et al. 2019 (arXiv:1904.01355): no anchors; cells tell how central they are in their object."""

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {"class": 1.0, "box": 1.0, "centre": 1.0}

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        levels = Levels(backbone, input_size)
        anchors = CellAnchors(tuple((stride,) for stride in levels.strides), ((1.0,),) * len(levels.strides))
        head = FCOSHead(levels.out_channels, 1, num_classes)
        nn.init.ones_(head.regression_head.bbox_reg.bias)  # distances are behind a ReLU: none begins dead
        model = FCOS(levels, num_classes, anchor_generator=anchors, head=head)
        return model, levels.neck.multiple

    def costs(self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], raw: Said) -> dict[str, Tensor]:
        anchors = [raw.anchors] * len(targets)
        told: dict[str, Tensor] = self.head.compute_loss(targets, outputs, anchors, raw.counts)
        return told

    def boxes(self, regression: Tensor, anchors: Tensor) -> Tensor:
        found: Tensor = self.head.box_coder.decode(regression, anchors.expand_as(regression))
        return found

    def scores(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()


class BareLevels(nn.Module):
    """maps of a backbone -> those of strides 8, 16 and 32, or the last three, as they are, and coarser ones.

    Liu et al. 2016: a coarser one is made by a convolution to half the channels and one to half the size.
    """

    def __init__(self, backbone: MapBackbone, input_size: tuple[int, int], width: int = _WIDTH) -> None:
        super().__init__()
        self.entry = FeaturePyramid(backbone.channels, backbone.reductions, 1).entry
        self.strides = coarser(self.entry.strides, input_size, _SSD_LEVELS, least=1)
        more = len(self.strides) - len(self.entry.strides)
        self.channels = [*self.entry.channels, *[width] * more]
        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width // 2, 1), nn.ReLU(), nn.Conv2d(width // 2, width, 3, 2, 1), nn.ReLU())
            for inputs in self.channels[len(self.entry.strides) - 1 : -1]
        )
        self.out_channels = self.channels

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        levels = self.entry(maps)
        for shrink in self.shrink:
            levels.append(shrink(levels[-1]))
        return [level.float() for level in levels]


class SSDDetector(AnchorDetector):
    """SSD, Liu et al. 2016 (arXiv:1512.02325): boxes from the backbone's own maps, learnt against hard background.

    The paper learns three times as many places of background as of objects, those that are worst. Of an image without
    objects that is none; here it is ``_LEAST_NEGATIVES`` of each image at least.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {"class": 1.0, "box": 1.0}

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        levels = BareLevels(backbone, input_size)
        boxes = DefaultBoxGenerator([[2, 3]] * len(levels.strides), min_ratio=0.1, max_ratio=0.9)
        head = SSDHead(levels.channels, boxes.num_anchors_per_location(), num_classes + 1)
        model = SSD(levels, boxes, input_size, num_classes + 1, head=head)
        return model, max(levels.entry.strides)

    def terms(self, raw: Said, truths: Sequence[Truth]) -> dict[str, Tensor]:
        with fp32(raw.anchors):
            owners = torch.stack([self._owners(raw.anchors, truth) for truth in truths])
            asked = ~torch.stack([of_crowd(raw.anchors, truth) for truth in truths])
            labels = torch.zeros_like(owners)  # 0 is background here
            for label, owner, truth in zip(labels, owners, truths, strict=True):
                label[owner >= 0] = learnt(truth)[1][owner[owner >= 0]] + 1
            costs, counted = _hard_cross_entropy(raw.outputs["cls_logits"], labels, asked)
            objects = labels > 0
            # Without least numbers there are three places of background to an object, and this is their number.
            found = torch.maximum(objects.sum(), (counted & ~objects).sum() / 3).clamp_min(1)
            return {"class": costs[counted].sum() / found, "box": self._box_cost(raw, owners, truths) / found}

    def _owners(self, anchors: Tensor, truth: Truth) -> Tensor:
        """int64 [m]: the object that each anchor answers for; below 0: none."""
        boxes, _ = learnt(truth)
        if not len(boxes):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        owners: Tensor = self.head.proposal_matcher(iou(boxes[:, None], anchors))
        return owners

    def _box_cost(self, raw: Said, owners: Tensor, truths: Sequence[Truth]) -> Tensor:
        found = owners >= 0
        true = torch.cat([learnt(truth)[0][own[own >= 0]] for truth, own in zip(truths, owners, strict=True)])
        anchors = raw.anchors.expand(len(truths), -1, -1)[found]
        return F.smooth_l1_loss(
            raw.outputs["bbox_regression"][found], self.head.box_coder.encode_single(true, anchors), reduction="sum"
        )

    def scores(self, outputs: Mapping[str, Tensor]) -> Tensor:
        return outputs["cls_logits"].softmax(-1)[..., 1:]


def _hard_cross_entropy(logits: Tensor, labels: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Of each place [n, m] the cost, and whether it counts: all objects, and the background that costs most."""
    costs = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    objects = labels > 0
    wanted = (3 * objects.sum(1, keepdim=True)).clamp_min(_LEAST_NEGATIVES)
    rank = (
        costs.detach().masked_fill(objects | ~asked, -1.0).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    )
    return costs, objects | ((rank < wanted) & asked)
