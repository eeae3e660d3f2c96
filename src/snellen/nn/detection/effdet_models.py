"""EfficientDet with the layers and losses of effdet (Apache-2.0; the extra 'effdet'), on any backbone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from snellen.core.geometry import Size
from snellen.nn.detection.adapter import OnBackbone, best, check_powers_of_two, coarser, fp32, learnt, of_crowd
from snellen.nn.detection.neck import FeaturePyramid
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # it scripts its losses as it is imported
    from effdet.anchors import AnchorLabeler, Anchors, decode_box_outputs
    from effdet.config import get_efficientdet_config
    from effdet.efficientdet import BiFpn, HeadNet, _init_weight
    from effdet.loss import DetectionLoss

SIZE = "efficientdet_d0"  # widths and depths behind the backbone: the smallest that is published
LEVELS = 5

_LARGEST = math.log(1000 / 16)  # of the logarithm of a box's side in sides of its anchor, as torchvision: finite
_MOMENTUM = 0.1  # of batch norms; the 0.01 that is published follows slowly, for runs of hundreds of epochs


class EfficientDetHead(nn.Module):
    """maps of a backbone -> log-odds and boxes of each level, [n, anchors * C, h_i, w_i] and [n, anchors * 4, ...]."""

    def __init__(self, backbone: MapBackbone, input_size: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.entry = FeaturePyramid(backbone.channels, backbone.reductions, 1).entry
        strides = coarser(self.entry.strides, input_size, LEVELS)
        check_powers_of_two(strides)
        self.config = _config(strides, input_size, num_classes)
        seen = zip(self.entry.channels, self.entry.strides, strict=True)
        self.fpn = BiFpn(self.config, [{"num_chs": channels, "reduction": stride} for channels, stride in seen])
        self.class_net = HeadNet(self.config, num_outputs=num_classes)
        self.box_net = HeadNet(self.config, num_outputs=4)
        for name, module in self.named_modules():
            if not name.startswith("entry"):
                _init_weight(module, name)
        self.anchors = Anchors.from_config(self.config)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        levels = self.fpn(list(self.entry(maps)))
        scores, boxes = self.class_net(levels), self.box_net(levels)
        return [each.float() for each in scores], [each.float() for each in boxes]


def _config(strides: Sequence[int], input_size: tuple[int, int], num_classes: int) -> Any:
    config = get_efficientdet_config(SIZE)
    config.num_classes, config.image_size = num_classes, input_size[::-1]
    config.min_level, config.max_level = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
    config.num_levels = len(strides)
    config.norm_kwargs.momentum = _MOMENTUM
    return config


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Of each level log-odds [n, anchors * C, h_i, w_i] and boxes [n, anchors * 4, h_i, w_i], as effdet has them."""

    scores: list[Tensor]
    boxes: list[Tensor]


class EfficientDetector(OnBackbone):
    """EfficientDet, Tan et al. 2020 (arXiv:1911.09070), behind the backbone as its D0.

    It takes images of the size that it is made for, and of no other.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {"class": 1.0, "box": 50.0}

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        head = EfficientDetHead(backbone, input_size, num_classes)
        return head, max(head.entry.strides)

    @property
    def anchors(self) -> Tensor:
        """[m, 4] (x0, y0, x1, y1); effdet has y first."""
        boxes: Tensor = self.head.anchors.boxes
        return boxes[:, [1, 0, 3, 2]]

    def raw(self, images: Tensor) -> Said:
        return Said(*self.head(self.maps(images)))

    def terms(self, raw: Said, truths: Sequence[Truth]) -> dict[str, Tensor]:
        with fp32(raw.scores[0]):
            labels, boxes, counts = self._targets(truths)
            _, class_loss, box_loss = DetectionLoss(self.head.config)(raw.scores, raw.boxes, labels, boxes, counts)
        return {"class": class_loss, "box": box_loss}

    def _targets(self, truths: Sequence[Truth]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """What each anchor is asked for: classes begin at 1 there, and -2 is not asked."""
        told = [learnt(truth) for truth in truths]
        labeler = AnchorLabeler(self.head.anchors, self.num_classes)
        labels, boxes, counts = labeler.batch_label_anchors(
            [each[:, [1, 0, 3, 2]] for each, _ in told], [each + 1 for _, each in told]
        )
        silent = torch.stack([of_crowd(self.anchors, truth) for truth in truths])
        parts = torch.split(silent, [label[0].numel() for label in labels], 1)
        asked = [label.masked_fill(part.view_as(label), -2) for label, part in zip(labels, parts, strict=True)]
        return asked, boxes, counts

    def candidates(self, raw: Said) -> Tensor:
        with fp32(raw.scores[0]):
            scores, codes = _flat(raw.scores, self.num_classes), _flat(raw.boxes, 4)
            codes = torch.cat([codes[..., :2], codes[..., 2:].clamp_max(_LARGEST)], -1).permute(1, 2, 0)
            boxes = decode_box_outputs(codes, self.head.anchors.boxes[..., None], output_xyxy=True).permute(2, 0, 1)
            return best(boxes, scores.sigmoid())


def _flat(levels: Sequence[Tensor], outputs: int) -> Tensor:
    """[n, anchors * outputs, h_i, w_i] -> [n, m, outputs], in the order of the anchors."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(each.shape[0], -1, outputs) for each in levels], 1)
