"""Backbones that give their feature maps instead of one pooled vector: what dense heads and decoders stand on.

Weights are those of the pooled backbones (nn/backbone.py): the layers behind the last map are simply not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.nn import pretrained as weights
from snellen.nn.backbone import UNTRAINED, download_timm, swap_layers
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET, Provenance, architecture, plain_net, timm_config
from snellen.nn.efficientnet_lite import EfficientNetLite0
from snellen.nn.small_resnet import SmallResNet

_LITE_MAPS = (0, 1, 2, 4, 6)  # the stages after which a map is taken: the last of each resolution
_TINY_WIDTH, _TINY_SIDE = 16, 64


class MapBackbone(nn.Module):
    """images float [n, 3, h, w], standardised -> feature maps, the finest first, [n, channels[i], h_i, w_i].

    reductions  by which factor each map is smaller than the image, rounded up: h_i = ceil(h / reductions[i])
    """

    channels: tuple[int, ...]
    reductions: tuple[int, ...]


class LiteMaps(EfficientNetLite0, MapBackbone):
    """EfficientNet-Lite0 without the layers that pool: maps at 1/2, 1/4, 1/8, 1/16 and 1/32."""

    channels = (16, 24, 40, 112, 320)
    reductions = (2, 4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        del self.conv_head, self.bn2, self.act2

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = self.act1(self.bn1(self.conv_stem(images)))
        maps = []
        for stage, blocks in enumerate(self.blocks):
            x = blocks(x)
            if stage in _LITE_MAPS:
                maps.append(x)
        return maps


class SmallMaps(SmallResNet, MapBackbone):
    """The small residual network, half as wide: maps at 1, 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__(_TINY_SIDE, _TINY_WIDTH)
        self.channels = tuple(_TINY_WIDTH << i for i in range(len(self.blocks)))
        self.reductions = tuple(1 << i for i in range(len(self.blocks)))

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = self.stem(images)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class TimmMaps(MapBackbone):
    """Any timm model that can give its features; channels-last maps and tokens are laid out as [n, c, h, w]."""

    def __init__(self, name: str, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.body = _create_timm_maps(name, input_size)
        info = self.body.feature_info
        self.channels, self.reductions = tuple(info.channels()), tuple(info.reduction())
        self._last_is_channel = str(getattr(self.body, "output_fmt", "NCHW")).upper().endswith("NHWC")

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.body(images)
        return [m.permute(0, 3, 1, 2) for m in maps] if self._last_is_channel else list(maps)


def create_map_backbone(
    name: str, *, input_size: tuple[int, int], norm: str = "auto", activation: str = "auto"
) -> MapBackbone:
    """With random weights; ``norm`` and ``activation`` as in ``nn.backbone.create_backbone``.

    Raises ConfigError for a network that has no feature maps, and for an unknown one.
    """
    if plain_net(name) is not None:
        raise ConfigError(
            f"model = '{name}' has no feature maps to look for places in: use '{EMBEDDED_MODEL}' or '{SMALL_RESNET}'"
        )
    backbone: MapBackbone
    if name == SMALL_RESNET:
        backbone = SmallMaps()
    elif name == EMBEDDED_MODEL:
        backbone = LiteMaps()
    else:
        backbone = TimmMaps(name, input_size)
    swap_layers(backbone, name, norm, activation)
    return backbone


def load_pretrained_maps(backbone: MapBackbone, name: str, *, file: str | None, pretrained: bool) -> Provenance:
    """Fill ``backbone`` with the weights of its pooled twin and say where they come from. Raises WeightsError."""
    if file is not None:
        path = Path(file)
        weights.fit_weights(backbone, _of_maps(backbone, weights.read_state_dict(path)), path)
        return Provenance(f"the local file {path.name}", "not known: as given with the file")
    if not pretrained or name == SMALL_RESNET:
        return UNTRAINED
    if name == EMBEDDED_MODEL:
        return weights.load_embedded(backbone)
    published, provenance = download_timm(name, max(getattr(backbone, "input_size", (224, 224))))
    weights.fit_weights(backbone, _of_maps(backbone, published), provenance.source)
    return provenance


def _create_timm_maps(name: str, input_size: tuple[int, int]) -> Any:
    import timm

    known = architecture(name)
    if known.library != "timm":
        raise ConfigError(f"model = '{name}' gives no feature maps here: use 'resnet18', or '{EMBEDDED_MODEL}'")
    config = timm_config(name)
    width, height = input_size
    resized: dict[str, Any] = {"img_size": (height, width)} if config.fixed_input_size else {}
    try:
        return timm.create_model(known.model, pretrained=False, features_only=True, **resized)
    except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
        told = str(error).split("\n")[0][:120]
        raise ConfigError(
            f"model = '{name}' gives no feature maps at {width} x {height} pixels ({told}): use 'resnet18', or "
            f"'{EMBEDDED_MODEL}'"
        ) from None


def _of_maps(backbone: MapBackbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a pooled network under the names that they have in ``backbone``; those it lacks are left out.

    timm puts containers that it opens under names with an underscore: ``stages.0`` becomes ``stages_0``.
    """
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    found = {}
    for own in backbone.state_dict():
        bare = own.removeprefix("body.").removeprefix("model.")
        spelt = (own, bare, re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", bare))
        given = next((name for name in spelt if prefix + name in state), None)
        if given is not None:
            found[own] = state[prefix + given]
    return found


def map_sizes(backbone: MapBackbone, input_size: tuple[int, int]) -> list[tuple[int, int]]:
    """(width, height) of each map for an image of ``input_size`` (width, height): found by one forward pass."""
    was = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    width, height = input_size
    with torch.no_grad():
        maps = backbone(next(backbone.parameters()).new_zeros(1, 3, height, width))
    for module, training in was:
        module.training = training
    return [(each.shape[3], each.shape[2]) for each in maps]
