"""Mask R-CNN with the layers and losses of torchvision (BSD-3): Faster R-CNN, and a mask for each region that it keeps.

He et al. 2017 (arXiv:1703.06870). It answers as the dense detector with prototypes does: each object's mask is a
prototype of its own, and its coefficients say which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import clip_boxes_to_image

from snellen.core.geometry import Size
from snellen.nn.detection.adapter import fp32
from snellen.nn.detection.masks import MASK_STRIDE
from snellen.nn.detection.regions import of_classes, read_regions, thinned_out
from snellen.nn.detection.torchvision_models import WIDTH, FasterRCNN, Seen, region_pool
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

FOUND = 100  # objects of an image that get a mask (He et al. 2017)

_FLOOR = 0.05  # scores below it get no mask (He et al. 2017)
_SAME = 0.5  # IoU from which two boxes of a class are taken for one object, before masks are made
_POOLED = 14  # cells of a region each way; its mask has twice as many
_WIDTH = 64  # channels of the layers that read a region: a quarter of what is published, as they are most of the work


class MaskRCNN(FasterRCNN):
    """images [n, 3, h, w] with values 0..255 -> candidates float32 [n, 100, 4 + C + 100] and prototypes float32
    [n, 100, h / 4, w / 4].

    A candidate is a box with a score for one class, and coefficients of 0 but for its own prototype, which has the
    log-odds of its mask. Those that were not found have boxes and scores of 0. Truths need their masks.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {**FasterRCNN.LOSS_WEIGHTS, "mask": 1.0}
    NAMES: ClassVar[Mapping[str, str]] = {**FasterRCNN.NAMES, "loss_mask": "mask"}
    needs_nms = False

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        head: Any
        head, multiple = super().build(backbone, input_size, num_classes, weights)
        regions = head.roi_heads
        regions.mask_roi_pool = region_pool(head.depth, _POOLED)
        regions.mask_head = MaskRCNNHeads(WIDTH, (_WIDTH,) * 4, 1)
        regions.mask_predictor = MaskRCNNPredictor(_WIDTH, _WIDTH, num_classes + 1)
        nn.init.normal_(regions.mask_predictor.mask_fcn_logits.weight, std=0.01)
        return head, multiple

    def targets(self, truths: Sequence[Truth]) -> list[dict[str, Any]]:
        told = super().targets(truths)
        for target, truth in zip(told, truths, strict=True):
            if truth.masks is None:
                raise ValueError("masks are learnt from truths with masks, and this one has none")
            target["masks"] = truth.masks[~truth.crowd]
        return told

    def candidates(self, raw: Seen) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        with fp32(raw.images):
            boxes, scores, labels = self._kept(*self.pairs(*self.regions(raw)), raw)
            told = torch.cat([boxes, of_classes(scores, labels, self.num_classes)], 2)
            told = F.pad(told, (0, 0, 0, FOUND - told.shape[1]))
            each_its_own = torch.eye(FOUND, device=boxes.device).expand(told.shape[0], -1, -1)
            return torch.cat([told, each_its_own], 2), self._prototypes(raw, boxes, scores, labels)

    def _kept(self, boxes: Tensor, scores: Tensor, labels: Tensor, raw: Seen) -> tuple[Tensor, Tensor, Tensor]:
        boxes = clip_boxes_to_image(boxes, raw.size)
        likely = torch.where(scores > _FLOOR, scores, 0.0)
        return thinned_out(boxes, likely, labels, self.num_classes, _SAME, FOUND, self.suppress)

    def _prototypes(self, raw: Seen, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """[n, 100, h', w']: the log-odds of the masks of those objects that were found, and 0 for the rest."""
        image, place = (scores > 0).nonzero(as_tuple=True)
        found = boxes[image, place]
        height, width = (side // MASK_STRIDE for side in raw.size)
        maps = spread(self._logits(raw, found, labels[image, place], image), found / MASK_STRIDE, (height, width))
        return maps.new_zeros(raw.images.shape[0], FOUND, height, width).index_put_((image, place), maps)

    def _logits(self, raw: Seen, boxes: Tensor, labels: Tensor, image: Tensor) -> Tensor:
        """The log-odds [k, 28, 28] of masks within their boxes [k, 4] and of their class."""
        regions = self.head.roi_heads
        pooled = read_regions(list(raw.levels.values()), raw.size[0], boxes, image, _POOLED)
        said: Tensor = regions.mask_predictor(regions.mask_head(pooled))
        return said[torch.arange(said.shape[0], device=said.device), labels + 1]


def spread(logits: Tensor, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """logits [k, s, s], each of a box [k, 4], in cells of a map -> [k, h, w] of the whole map.

    Interpolated between their centres; outside of a box it goes on as at its edge.
    """
    height, width = shape
    low, sides = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-3)[:, None]
    across, down = (torch.arange(length, device=boxes.device) + 0.5 for length in (width, height))
    x = 2 * (across - low[..., 0]) / sides[..., 0] - 1  # [k, w]
    y = 2 * (down - low[..., 1]) / sides[..., 1] - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    return F.grid_sample(logits[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
