"""The networks for pixels by name, as table.py lists them."""

from __future__ import annotations

from torch import nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.backbone import swap_layers
from snellen.nn.feature_maps import create_map_backbone
from snellen.nn.segmentation.fcn import FCNHead
from snellen.nn.segmentation.segmenter import Segmenter
from snellen.nn.segmentation.segnet import SegNet
from snellen.nn.segmentation.smp_models import create_smp_segmenter
from snellen.nn.segmentation.table import ARCHITECTURES, check_fit
from snellen.nn.segmentation.unet import UNetDecoder


def create_segmenter(
    architecture: str,
    preprocessing: Preprocessing,
    model_name: str,
    num_classes: int,
    *,
    norm: str = "auto",
    activation: str = "auto",
    dropout: float = 0.0,
) -> nn.Module:
    """images uint8 or float [n, 3, h, w] with values 0..255 -> logits [n, num_classes, h, w]; weights are random.

    Its parts are ``normalize``, ``backbone`` and ``head``.

    architecture      by its name in table.py
    norm, activation  by their names in nn.norms and nn.activations, of backbone and head alike; 'auto': as published
    dropout           before the last layer, of whole channels; the decoders of 'smp' have their own

    Raises ConfigError for an unknown name, and where backbone and architecture do not fit.
    """
    check_fit(architecture, model_name)
    model: nn.Module
    if ARCHITECTURES[architecture].library == "smp":
        model = create_smp_segmenter(architecture, preprocessing, model_name, num_classes)
    elif ARCHITECTURES[architecture].needs == "a VGG":
        by_indices = architecture == "segnet"
        model = SegNet(preprocessing, model_name, num_classes, dropout, by_indices=by_indices)
    else:
        backbone = create_map_backbone(model_name, input_size=preprocessing.input_size)
        head: nn.Module
        if architecture == "fcn":
            head = FCNHead(backbone.channels, num_classes, dropout)
        else:
            head = UNetDecoder(backbone.channels, backbone.reductions, num_classes, dropout)
        model = Segmenter(preprocessing, backbone, head)
    swap_layers(model, model_name, norm, activation)
    return model
