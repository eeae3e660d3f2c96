"""The detectors by name, as table.py lists them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn

from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.nn.catalog import Provenance
from snellen.nn.detection.dense import DenseDetector
from snellen.nn.detection.loss_names import USUAL_LOSS, chosen_losses
from snellen.nn.detection.table import check
from snellen.nn.feature_maps import create_map_backbone, load_pretrained_maps

_HERE = "snellen.nn.detection"
_CLASSES = {  # in which module, so that no library is loaded that is not used
    "faster-rcnn": ("torchvision_models", "FasterRCNN"),
    "ssd": ("torchvision_one_stage", "SSDDetector"),
    "retinanet": ("torchvision_one_stage", "RetinaDetector"),
    "fcos": ("torchvision_one_stage", "FCOSDetector"),
    "efficientdet": ("effdet_models", "EfficientDetector"),
    "rt-detr": ("transformers_models", "RTDetector"),
    "d-fine": ("transformers_models", "DFineDetector"),
}


def create_detector(plan: Plan, num_classes: int) -> nn.Module:
    """The network that ``plan`` names, its weights still random. Raises ConfigError.

    images uint8 or float [n, 3, h, w] with values 0..255 -> candidates float32 [n, m, 4 + num_classes]; see
    ``dense.DenseDetector`` for the contract that all keep.
    """
    name = plan.architecture or "dense"
    check(name, published=bool(plan.published))
    if name != "dense" and plan.loss not in ("auto", USUAL_LOSS):
        raise ConfigError(f"loss = '{plan.loss}' is for architecture = 'dense': '{name}' brings its own; leave it out")
    if plan.published:
        from snellen.nn.detection.published_models import create_published

        return create_published(plan, num_classes)
    backbone = create_map_backbone(
        plan.model, input_size=plan.preprocessing.input_size, norm=plan.norm, activation=plan.activation
    )
    settings: dict[str, Any] = {"loss_weights": dict(plan.loss_weights)} if plan.loss_weights else {}
    if name == "dense":
        losses: dict[str, Any] = dict(chosen_losses(plan.loss))
        return DenseDetector(plan.preprocessing, backbone, num_classes, **losses, **settings)
    module, kind = _CLASSES[name]
    detector: nn.Module = getattr(import_module(f"{_HERE}.{module}"), kind)(
        plan.preprocessing, backbone, num_classes, **settings
    )
    return detector


def load_detector(model: nn.Module, plan: Plan, classes: Sequence[str]) -> Provenance:
    """Fill ``model`` with the weights that ``plan`` names: the backbone, or all of a detector that is published whole.

    Raises ConfigError, WeightsError.
    """
    if plan.published:
        from snellen.nn.detection.published_models import load_published

        return load_published(model, plan, classes)
    backbone: Any = model.get_submodule("backbone")
    return load_pretrained_maps(backbone, plan.model, file=plan.weights, pretrained=plan.pretrained)
