"""What a backbone's channels make of one image, from the first stages to the last (Zeiler and Fergus 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from snellen.core.geometry import Size
from snellen.data.store import prepare
from snellen.explain.explanation import Explanation
from snellen.explain.layers import Layer, as_batch, no_maps, recorded, the_backbone
from snellen.explain.scene import Pixels
from snellen.tasks.loading import LoadedModel

if TYPE_CHECKING:
    from PIL import Image

DEPTHS = 4  # stages that are shown, from the first to the last
_CHANNELS = 8  # of each
_WHAT = "how = 'features'"


def channels_of(model: LoadedModel, pixels: Pixels, *, size: Size | None = None, path: str = "") -> Explanation:
    """A picture of the channels that answer most to one image, at a few depths.
    pixels, size  as in ``grad_cam.grad_cam_of``. Raises ConfigError for a network without feature maps.
    """
    prepared = prepare(pixels, model.plan.preprocessing, size)
    backbone = the_backbone(model, _WHAT)
    with torch.inference_mode(), recorded(backbone) as layers:
        model.network.eval()(as_batch([prepared], model))
    chosen = spread_out(last_of_each(layers))
    if not chosen:
        raise no_maps(_WHAT)
    rows = [strongest(layer.map()[0].float().cpu()) for layer in chosen]
    names = [layer.where for layer in chosen]
    captions = [[f"channel {channel}" for channel, _ in row] for row in rows]
    maps = [[values for _, values in row] for row in rows]

    def draw() -> Image.Image:
        from snellen.draw.channels import draw_channels

        return draw_channels(prepared, names, maps, captions)

    return Explanation(path=path, how="features", of="channels", size=size, _draw=draw)


def last_of_each(layers: Sequence[Layer]) -> list[Layer]:
    """The last map of each stage, before an activation that would make everything strong the same (ReLU6)."""
    return list({layer.stage: layer for layer in layers if layer.learns}.values())


def spread_out(layers: Sequence[Layer], count: int = DEPTHS) -> list[Layer]:
    """So many of them, with the first and the last."""
    places = np.linspace(0, len(layers) - 1, min(count, len(layers))).round().astype(int)
    return [layers[place] for place in dict.fromkeys(places.tolist())]


def strongest(maps: Tensor, count: int = _CHANNELS) -> list[tuple[int, np.ndarray]]:
    """maps [c, h, w] -> the channels that rise farthest above their own median, and what they show, float32 [h, w] from
    0 (the median or less) to 1 (the largest)."""
    flat = maps.flatten(1)
    above = flat - flat.median(1, keepdim=True).values
    rise = above.amax(1)
    chosen = rise.topk(min(count, len(rise))).indices.tolist()
    shown = above.clamp_min(0) / rise.clamp_min(1e-12)[:, None]
    return [(channel, shown[channel].reshape(maps.shape[1:]).numpy()) for channel in chosen]
