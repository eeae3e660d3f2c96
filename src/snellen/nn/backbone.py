"""Backbones by name: the built-in two, and every model of timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from snellen.core.errors import WeightsError
from snellen.nn import pretrained as weights
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET, Provenance, timm_config

_UNTRAINED = Provenance("none: trained from scratch", "none")


def create_backbone(name: str, *, input_size: int) -> nn.Module:
    """A backbone with random weights: images [n, 3, input_size, input_size] -> pooled features [n, num_features]."""
    if name == SMALL_RESNET:
        from snellen.nn.small_resnet import SmallResNet

        return SmallResNet(input_size)
    if name == EMBEDDED_MODEL:
        from snellen.nn.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0()
    import timm

    resized: dict[str, Any] = {"img_size": input_size} if timm_config(name).fixed_input_size else {}
    backbone: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **resized)
    return backbone


def load_pretrained(backbone: nn.Module, name: str, *, file: str | None, pretrained: bool) -> Provenance:
    """Fill ``backbone`` with weights and say where they come from. Raises WeightsError."""
    if file is not None:
        return weights.load_local(backbone, Path(file))
    if not pretrained or name == SMALL_RESNET:
        return _UNTRAINED
    if name == EMBEDDED_MODEL:
        return weights.load_embedded(backbone)
    return _download(backbone, name)


def _download(backbone: nn.Module, name: str) -> Provenance:
    """timm's own weights from their hub, kept in the hub's cache."""
    import timm
    from timm.models import load_pretrained as timm_load

    config = timm_config(name)
    if not (config.hf_hub_id or config.url or config.file):
        known = timm.list_pretrained(f"{name.split('.')[0]}*")[:3]
        raise WeightsError(
            f"timm has no pretrained weights for '{name}'"
            + (f"; it has {', '.join(known)}" if known else "")
            + ": use --weights FILE or --no-pretrained"
        )
    try:
        timm_load(backbone, pretrained_cfg=backbone.pretrained_cfg, num_classes=0)  # type: ignore[arg-type]
    except Exception as error:  # the hub's client raises many kinds
        cause = str(error).strip().split("\n")[0][:150]
        raise WeightsError(
            f"cannot download the weights of '{name}' ({cause}): use --weights FILE, --no-pretrained, or --model "
            f"{EMBEDDED_MODEL}, whose weights are built in"
        ) from None
    license_name = str(config.license or "not stated by timm")
    return Provenance(f"timm's {config.hf_hub_id or config.url}", license_name)
