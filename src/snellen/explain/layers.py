"""What the parts of a backbone make of an image: maps, also where a network keeps them as tokens or channels-last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.geometry import Size
from snellen.explain.scene import Pixels
from snellen.nn.stages import stage_modules
from snellen.tasks.loading import LoadedModel

_LEAST_CELLS = 4  # a pooled vector is no map


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What left a part of a backbone: ``raw`` as the network goes on with it, and how that is a map.

    stage, num_stages  where in the backbone, from 1
    learns             whether the part has weights: an activation has none, and cuts off what it is given
    own                whether the backbone itself returns it, beside other maps, to a head that answers about places
    prefix             tokens before those of the patches: of a class, registers
    covers             (width, height) of the backbone's input
    """

    stage: int
    num_stages: int
    raw: Tensor
    channels_last: bool
    learns: bool
    own: bool
    prefix: int
    covers: Size

    def map(self, values: Tensor | None = None) -> Tensor:
        """``raw``, or values laid out as it is, as [n, c, h, w]."""
        x = self.raw if values is None else values
        if x.dim() == 3:
            x = x[:, self.prefix :]
            height, width = _grid(x.shape[1], self.covers) or (1, x.shape[1])
            return torch.unflatten(x.transpose(1, 2), 2, (height, width))
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    @property
    def is_map(self) -> bool:
        if self.raw.dim() == 3:
            return _grid(self.raw.shape[1] - self.prefix, self.covers) is not None
        return self.raw.dim() == 4 and self.map().shape[2:].numel() >= _LEAST_CELLS

    @property
    def where(self) -> str:
        height, width = self.map().shape[2:]
        return f"stage {self.stage} of {self.num_stages}, {width} x {height} cells"


def the_backbone(model: LoadedModel, what: str) -> nn.Module:
    """Raises ConfigError for a network without one, which says that it is needed for ``what``."""
    found = getattr(model.network, "backbone", None)
    if not isinstance(found, nn.Module):
        raise no_maps(what)
    return found


def as_batch(prepared: Sequence[Pixels], model: LoadedModel) -> Tensor:
    """Prepared images uint8 [h, w, 3] -> float32 [n, 3, h, w] where the network is."""
    stacked = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2)
    return stacked.to(torch.device(model.plan.device)).float()


@contextmanager
def recorded(backbone: nn.Module) -> Iterator[list[Layer]]:
    """Within it a forward pass fills the list with the maps that leave the stages, in the order of execution.

    Where the backbone itself returns maps (``nn.feature_maps``), these alone.
    """
    layers: list[Layer] = []
    covers: list[Size] = [(1, 1)]
    stages = stage_modules(backbone)

    def begin(module: nn.Module, arguments: Any) -> None:
        covers[0] = (arguments[0].shape[-1], arguments[0].shape[-2])

    def keep(raw: Tensor, stage: int, num: int, learns: bool, own: bool) -> None:
        layer = Layer(
            stage, num, raw, _channels_last(backbone) and not own, learns, own, _prefix(backbone, raw), covers[0]
        )
        layers.extend([layer] if layer.is_map else [])

    def end(module: nn.Module, arguments: Any, output: Any) -> None:
        maps = _listed(output)
        if maps:
            layers.clear()
        for i, each in enumerate(maps):
            keep(each, i + 1, len(maps), learns=True, own=True)

    def kept(module: nn.Module, arguments: Any, output: Any, stage: int = 0) -> Any:
        if not isinstance(output, Tensor):
            return None
        learns = any(True for _ in module.parameters())
        keep(output, stage, len(stages), learns=learns, own=False)
        return output.clone()  # what follows may write into it in place

    handles = [backbone.register_forward_pre_hook(begin), backbone.register_forward_hook(end)]
    for number, modules in enumerate(stages):
        handles += [module.register_forward_hook(partial(kept, stage=number + 1)) for module in modules]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def no_maps(what: str) -> ConfigError:
    return ConfigError(
        f"{what} needs feature maps, and this network has none that lie over the image: use how = 'occlusion', which "
        "asks nothing but answers"
    )


def _channels_last(backbone: nn.Module) -> bool:
    return str(getattr(backbone, "output_fmt", "NCHW")).upper().endswith("NHWC")


def _prefix(backbone: nn.Module, raw: Tensor) -> int:
    return int(getattr(backbone, "num_prefix_tokens", 0)) if raw.dim() == 3 else 0


def _listed(output: Any) -> Sequence[Tensor]:
    """The maps, the finest first, of what a backbone for places returns; empty for pooled features."""
    if not isinstance(output, list | tuple):
        return []
    found = [each for each in output if isinstance(each, Tensor) and each.dim() == 4]
    return [each for each in found if each.shape[1] != 3 or each is not found[0]]  # smp begins with the image itself


def _grid(num_tokens: int, covers: Size) -> tuple[int, int] | None:
    """Rows and columns of tokens in the proportions of the image; None where they fill no such grid."""
    if num_tokens < _LEAST_CELLS:
        return None
    width, height = covers
    ideal = (num_tokens * height / width) ** 0.5
    divisors = [each for each in range(1, isqrt(num_tokens) + 1) if num_tokens % each == 0]
    rows = min({*divisors, *(num_tokens // each for each in divisors)}, key=lambda each: abs(each - ideal))
    return (rows, num_tokens // rows) if abs(rows - ideal) < 1 else None
