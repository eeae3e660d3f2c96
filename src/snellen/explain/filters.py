"""What a network looks for: the filters of its first layer, and the places in photographs that excite a channel most.

Real patches instead of synthesised pictures, which show what an optimiser found and not what the network met (Zeiler
and Fergus 2014, arXiv:1311.2901; Zhou et al. 2015, arXiv:1412.6856).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snellen.core.errors import DataError, ImageError
from snellen.core.geometry import Size
from snellen.data.store import prepare
from snellen.explain.channels import last_of_each, spread_out
from snellen.explain.explanation import Explanation
from snellen.explain.layers import Layer, as_batch, no_maps, recorded, the_backbone
from snellen.explain.scene import Pixels
from snellen.predict.images import SourceImage
from snellen.tasks.loading import LoadedModel

if TYPE_CHECKING:
    from PIL import Image

Floats = NDArray[np.float32]

_BATCH = 16
_WHAT = "how = 'filters'"
_CHANNELS, _PATCHES = 6, 8  # shown of each depth, and of each channel
_MASS = 0.5  # of the slope lies within the patch that is shown: with 0.9 it is the whole image, late in a network
_LEAST_PATCH = 16  # pixels of the input


def filters_of(model: LoadedModel) -> Explanation | None:
    """The weights of the first layer as colour tiles; None where the first layer does not look at pixels in colour."""
    weights = _first_weights(the_backbone(model, _WHAT), model.plan.preprocessing.input_size)
    if weights is None:
        return None
    number, height, width = weights.shape[:3]

    def draw() -> Image.Image:
        from snellen.draw.channels import draw_filters

        title = f"{number} filters of the first layer, {width} x {height} pixels; grey is 0"
        return draw_filters(weights, title)

    return Explanation(path="", how="filters", of="first layer", _draw=draw)


def patches_of(model: LoadedModel, images: Iterable[SourceImage]) -> list[Explanation]:
    """For a few depths the patches of ``images`` that excite some channels most: those whose best image lies farthest
    above the others.

    Images that cannot be read are passed over. Raises ConfigError for a network without feature maps, DataError where
    no image can be read.
    """
    backbone = the_backbone(model, _WHAT)
    depths: list[_Depth] = []
    read = _prepared(model, images)
    while batch := list(islice(read, _BATCH)):
        with torch.inference_mode(), recorded(backbone) as layers:
            model.network.eval()(as_batch([pixels for _, pixels in batch], model))
        chosen = spread_out(last_of_each(layers))[1:]  # the first stage's channels are told by the filters
        if not chosen:
            raise no_maps(_WHAT)
        depths = depths or [_Depth(layer.where, layer.stage) for layer in chosen]
        for depth, layer in zip(depths, chosen, strict=True):
            depth.add(layer, [image for image, _ in batch])
    if not depths:
        raise DataError("none of the images can be read: give other ones")
    return [_picture(model, backbone, depth) for depth in depths]


@dataclass(slots=True)
class _Depth:
    """For every image and channel of one stage the largest activation [c], and where, in shares of the map [c, 2]."""

    where: str
    stage: int
    images: list[SourceImage] = field(default_factory=list)
    peaks: list[Tensor] = field(default_factory=list)
    places: list[Tensor] = field(default_factory=list)

    def add(self, layer: Layer, images: Sequence[SourceImage]) -> None:
        maps = layer.map().float().cpu()
        columns, rows = maps.shape[3], maps.shape[2]
        peaks, at = maps.flatten(2).max(2)
        self.images += images
        self.peaks += list(peaks)
        self.places += list(torch.stack([(at % columns + 0.5) / columns, (at // columns + 0.5) / rows], -1))

    def selective(self) -> list[int]:
        """The channels whose best images lie farthest above the typical one, in standard deviations."""
        peaks = torch.stack(self.peaks)
        best = peaks.topk(min(_PATCHES, len(peaks)), 0).values.mean(0)
        spread = peaks.std(0, unbiased=False)
        rise = torch.where(
            spread > 1e-6, (best - peaks.median(0).values) / spread.clamp_min(1e-6), spread.new_zeros(())
        )
        return [int(each) for each in rise.topk(min(_CHANNELS, len(rise))).indices]

    def best_images(self, channel: int) -> list[int]:
        peaks = torch.stack(self.peaks)[:, channel]
        return [int(each) for each in peaks.topk(min(_PATCHES, len(peaks))).indices]


def _picture(model: LoadedModel, backbone: nn.Module, depth: _Depth) -> Explanation:
    channels = depth.selective()
    rows = []
    side = None
    for channel in channels:
        patches = []
        for i in depth.best_images(channel):
            [(_, pixels)] = _prepared(model, [depth.images[i]])
            place = (float(depth.places[i][channel, 0]), float(depth.places[i][channel, 1]))
            side = side or _seen_side(model, backbone, depth.stage, channel, pixels)
            patches.append(_cut(pixels, place, side))
        rows.append(patches)
    names = [f"{depth.where}: what excites channel {channel} most" for channel in channels]

    def draw() -> Image.Image:
        from snellen.draw.channels import draw_patches

        return draw_patches(rows, names)

    return Explanation(path="", how="filters", of=f"stage {depth.stage}", _draw=draw)


def _seen_side(model: LoadedModel, backbone: nn.Module, stage: int, channel: int, pixels: Pixels) -> int:
    """Pixels of the input's side that the largest activation of a channel really hangs on: the effective receptive
    field (Luo et al. 2016, arXiv:1701.04128), which is far smaller than what could reach it."""
    images = as_batch([pixels], model)
    with torch.inference_mode(False), torch.enable_grad(), recorded(backbone) as layers:
        images = images.clone().requires_grad_()
        model.network.eval()(images)
        layer = next(each for each in last_of_each(layers) if each.stage == stage)
        maps = layer.map()[0, channel]
        [slope] = torch.autograd.grad(maps.flatten()[maps.argmax()], [images])
    strength = slope[0].abs().sum(0).cpu().numpy()
    at = np.unravel_index(int(strength.argmax()), strength.shape)
    rows, columns = np.indices(strength.shape)
    distance = np.maximum(np.abs(rows - at[0]), np.abs(columns - at[1]))
    mass = np.bincount(distance.ravel(), strength.ravel()).cumsum()
    half = int(np.searchsorted(mass, _MASS * float(mass[-1])))
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    return max(_LEAST_PATCH, min(2 * half + 1, height, width))


def _cut(pixels: Pixels, place: tuple[float, float], side: int) -> Pixels:
    """The square round a place (x, y) in shares of the input, moved within it where it would leave it."""
    height, width = pixels.shape[:2]
    side = min(side, width, height)
    left = min(max(0, round(place[0] * width - side / 2)), width - side)
    top = min(max(0, round(place[1] * height - side / 2)), height - side)
    return pixels[top : top + side, left : left + side]


def _prepared(model: LoadedModel, images: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, Pixels]]:
    preprocessing = model.plan.preprocessing
    for image in images:
        try:
            size, pixels = image.read(preprocessing.decode_min_side)
        except ImageError:
            continue
        yield image, prepare(pixels, preprocessing, size)


def _first_weights(backbone: nn.Module, input_size: Size) -> Floats | None:
    """float32 [k, h, w, 3] of the first layer that holds weights; of a linear layer, one that reads all pixels."""
    width, height = input_size
    first = next((each for each in backbone.modules() if isinstance(each, nn.Conv2d | nn.Linear)), None)
    if isinstance(first, nn.Linear) and first.in_features == 3 * width * height:
        weights = torch.unflatten(first.weight.detach(), 1, (3, height, width))
    elif isinstance(first, nn.Conv2d) and first.in_channels == 3:
        weights = first.weight.detach()
    else:
        return None
    return np.asarray(weights.permute(0, 2, 3, 1).float().cpu().numpy(), np.float32)
