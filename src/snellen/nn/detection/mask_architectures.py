"""The detectors that give masks, by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.plan import Plan
from snellen.nn.detection.loss_names import USUAL_LOSS, chosen_losses
from snellen.nn.feature_maps import create_map_backbone

ARCHITECTURES = ("dense", "mask-rcnn")


def create_instance_detector(plan: Plan, num_classes: int) -> nn.Module:
    """The network that ``plan`` names, its weights still random. Raises ConfigError.

    images uint8 or float [n, 3, h, w] with values 0..255 -> candidates float32 [n, m, 4 + num_classes + K] and
    prototypes float32 [n, K, h', w']; the mask of a candidate is sigmoid(coefficients . prototypes) within its box.
    """
    name = plan.architecture or "dense"
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture = '{name}' gives no masks{did_you_mean(name, ARCHITECTURES)}")
    backbone = create_map_backbone(
        plan.model, input_size=plan.preprocessing.input_size, norm=plan.norm, activation=plan.activation
    )
    settings: dict[str, Any] = {"loss_weights": dict(plan.loss_weights)} if plan.loss_weights else {}
    if name == "dense":
        losses: dict[str, Any] = dict(chosen_losses(plan.loss))
        from snellen.nn.detection.masks import DenseInstanceDetector

        return DenseInstanceDetector(plan.preprocessing, backbone, num_classes, **losses, **settings)
    if plan.loss not in ("auto", USUAL_LOSS):
        raise ConfigError(f"loss = '{plan.loss}' is for architecture = 'dense': '{name}' brings its own; leave it out")
    from snellen.nn.detection.mask_rcnn import MaskRCNN

    return MaskRCNN(plan.preprocessing, backbone, num_classes, **settings)
