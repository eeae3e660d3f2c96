"""Networks that see without having learnt, the same wherever a thing is and however it lies, and what they look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snellen.core.geometry import Size
from snellen.tasks.base import create_task
from snellen.tasks.loading import LoadedModel
from tiny_runs import a_plan

COLOURS = ("red", "green", "blue")


class Regions(nn.Module):
    """images [n, 3, h, w] -> candidates: the connected regions of each strong colour, the larger the surer."""

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images)[0]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Candidates [n, 8, 7], and where each of them is [n, 8, h, w]: 12, elsewhere -12."""
        from scipy.ndimage import find_objects, label

        found = torch.zeros(len(images), 8, 7)
        where = torch.full((len(images), 8, *images.shape[2:]), -12.0)
        for i, image in enumerate(images.float().numpy()):
            regions = []
            for colour in range(3):
                areas, count = label((image.argmax(0) == colour) & (image.max(0) > 160) & (image.min(0) < 90))
                boxes = find_objects(areas)
                regions += [(colour, areas == k + 1, boxes[k]) for k in range(count)]
            regions.sort(key=lambda each: -each[1].sum())
            for k, (colour, pixels, (down, across)) in enumerate(regions[:8]):
                found[i, k, :4] = torch.tensor([across.start, down.start, across.stop, down.stop])
                found[i, k, 4 + colour] = 0.5 + min(0.4, float(pixels.mean()))
                where[i, k][torch.from_numpy(pixels)] = 12.0
        return found, where


class RegionsWithMasks(Regions):
    """And their pixels: a prototype for each."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        found, where = self.look(images)
        return torch.cat([found, torch.eye(8).expand(len(found), 8, 8)], 2), where


class Shades(nn.Module):
    """images [n, 3, h, w] -> logits of three classes: how red, green and blue each pixel is."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() / 20


class Corner(nn.Module):
    """images [n, 3, h, w] -> [n, 3]: how bright the top left quarter is in each colour."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return images[:, :, : height // 2, : width // 2].float().mean((2, 3)) / 100


NETWORKS: dict[str, type[nn.Module]] = {
    "classification": Corner,
    "detection": Regions,
    "segmentation": Shades,
    "instances": RegionsWithMasks,
}


def model_of(
    task: str, network: nn.Module | None = None, *, hflip: float = 0.0, reason: str = "", **changes: Any
) -> LoadedModel:
    plan = a_plan()
    preprocessing = replace(
        plan.preprocessing, **{"input_size": (64, 48), "fit": "squash", "crop_fraction": 1.0, **changes}
    )
    reasons = {**plan.reasons, "augmentation": reason} if reason else plan.reasons
    plan = replace(plan, task=task, preprocessing=preprocessing, augmentation={"hflip": hflip}, reasons=reasons)
    return LoadedModel(network or NETWORKS[task](), create_task(task, COLOURS).configured(plan), plan)


def a_picture(size: Size = (64, 48), seed: int = 0) -> np.ndarray:
    """Things of strong colours on grey, none of them the same mirrored or turned."""
    width, height = size
    pixels = np.full((height, width, 3), 120, np.uint8)
    things = [(0.1, 0.1, 0.35, 0.3, 0), (0.6, 0.15, 0.75, 0.6, 1), (0.2, 0.55, 0.5, 0.85, 2), (0.82, 0.7, 0.95, 0.9, 0)]
    for x0, y0, x1, y1, colour in things:
        thing = np.array([20, 20, 20], np.uint8)
        thing[colour] = 230
        left, top, right, bottom = (round(at * side) for at, side in zip((x0, y0, x1, y1), (*size, *size), strict=True))
        pixels[top:bottom, left:right] = thing
        pixels[bottom - (bottom - top) // 3 : bottom, right - (right - left) // 2 : right] = 120  # a corner is missing
    return pixels
