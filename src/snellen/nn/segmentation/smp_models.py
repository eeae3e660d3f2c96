"""The decoders of segmentation-models-pytorch (MIT; the extra 'seg') on any backbone of timm that suits them."""

from __future__ import annotations

import re
import warnings
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.catalog import architecture as backbone_entry
from snellen.nn.catalog import timm_config
from snellen.nn.network import Normalize
from snellen.nn.segmentation.segmenter import resized
from snellen.nn.segmentation.table import ARCHITECTURES, misfit

_GRID = 32  # pixels: decoders take sides of whole steps of the coarsest map
_CANNOT_BUILD = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
_PAN_LEAST = 128  # pixels: PAN pools its map at 1/16 three times


class SmpSegmenter(nn.Module):
    """images uint8 or float [n, 3, h, w] with values 0..255 -> logits [n, C, h, w]; any h and w.

    backbone     the library's encoder; the network of timm is its ``model``
    head         its decoder, and what makes that into logits
    grid, least  images are padded to sides of whole steps of ``grid`` pixels, and of ``least`` pixels or more
    """

    def __init__(self, preprocessing: Preprocessing, model: Any, grid: int, least: int) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing.mean, preprocessing.std)
        self.backbone = model.encoder
        self.head = nn.ModuleDict({"decoder": model.decoder, "classify": model.segmentation_head})
        self.grid, self.least = grid, least

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        across, down = (_padded(side, self.grid, self.least) - side for side in (width, height))
        x = F.pad(self.normalize(images), (0, across, 0, down))  # 0 is the mean colour
        found = self.backbone(x)
        decode, classify = self.head["decoder"], self.head["classify"]
        decoded = decode(*found) if isinstance(found, tuple) else decode(found)  # a ViT has tokens beside its maps
        return resized(classify(decoded), x)[:, :, :height, :width]


def create_smp_segmenter(
    architecture: str, preprocessing: Preprocessing, model_name: str, num_classes: int
) -> SmpSegmenter:
    """With random weights. Raises ConfigError where the extra is missing, or the two do not fit."""
    smp = _library(architecture)
    grid, least = _grid(model_name), _PAN_LEAST if architecture == "pan" else 0
    width, height = (_padded(side, grid, least) for side in preprocessing.input_size)
    settings: dict[str, Any] = {"img_size": (height, width)} if timm_config(model_name).fixed_input_size else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ViTs without a class token, which DPT can do without
            model = smp.create_model(
                ARCHITECTURES[architecture].model,
                encoder_name=f"tu-{backbone_entry(model_name).model}",
                encoder_weights=None,
                classes=num_classes,
                **settings,
            )
    except _CANNOT_BUILD as error:
        raise misfit(architecture, model_name, str(error).split("\n")[0][:120]) from None
    return SmpSegmenter(preprocessing, model, grid, least)


def _grid(model_name: str) -> int:
    """Two patches of a ViT, as DPT halves its map of patches; else the step of the coarsest map."""
    patch = re.search(r"patch(\d+)", backbone_entry(model_name).model)
    return 2 * int(patch[1]) if patch and int(patch[1]) > 8 else _GRID


def _padded(side: int, grid: int, least: int) -> int:
    return max(-(-side // grid) * grid, least)


def _library(architecture: str) -> ModuleType:
    try:
        import segmentation_models_pytorch
    except ImportError:
        raise ConfigError(
            f"architecture = '{architecture}' needs segmentation-models-pytorch: pip install 'snellen[seg]', or use "
            "'unet', which comes with Snellen"
        ) from None
    module: ModuleType = segmentation_models_pytorch
    return module
