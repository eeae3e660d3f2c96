"""Networks that answer by a mark at a place, built by hand, so that what a map has to show is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from snellen.core.preprocessing import Fit, Preprocessing
from snellen.nn.network import Network
from snellen.tasks.base import create_task
from snellen.tasks.loading import LoadedModel
from tiny_runs import a_plan

SIDE, CELL = 32, 4  # pixels of the input, and of a cell of the only map
RED = (250, 0, 0)

Pixels = NDArray[np.uint8]


class MarkFinder(nn.Module):
    """images [n, 3, h, w] in 0..1 -> how red and how blue they are, pooled [n, 2]: 0 where nothing is."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 2, CELL, CELL)
        self.act = nn.ReLU()
        with torch.no_grad():
            red, blue = [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]
            self.look.weight.copy_(torch.tensor([red, blue])[:, :, None, None].expand(2, 3, CELL, CELL) / CELL**2)
            self.look.bias.fill_(-0.1)  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        return self.pooled(self.act(self.look(images)))

    def pooled(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


def seen_as(fit: Fit) -> Preprocessing:
    return Preprocessing(
        input_size=(SIDE, SIDE), fit=fit, crop_fraction=0.875, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )


def marked_model(
    fit: Fit = "squash",
    *,
    task: str = "classification",
    classes: tuple[str, ...] = ("nothing", "mark"),
    backbone: nn.Module | None = None,
    head: Callable[[nn.Linear], None] | None = None,
) -> LoadedModel:
    """Its second output rises with the red in the image, the first stays where it is; ``head`` may say otherwise."""
    plan = a_plan(task=task, classes=classes, preprocessing=seen_as(fit), precision="fp32", channels_last=False)
    network = Network(plan.preprocessing, backbone or MarkFinder(), len(classes))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.weight[-1, 0] = 100.0
        network.head.bias[-1] = -1.0
        if head is not None:
            head(network.head)
    return LoadedModel(network.eval(), create_task(task, classes), plan)


def photograph(box: tuple[int, int, int, int] | None, size: tuple[int, int] = (60, 44)) -> Pixels:
    """uint8 [height, width, 3]: grey of a little noise, with a red mark (x0, y0, x1, y1)."""
    grey = np.random.default_rng(0).integers(90, 110, (size[1], size[0], 1))
    pixels = np.repeat(grey, 3, axis=2).astype(np.uint8)
    if box is not None:
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = RED
    return pixels


def save_turned(path: Path, pixels: Pixels, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def middle(places: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle (x, y) of what is True in [H, W]."""
    rows, columns = np.nonzero(places)
    return float(columns.mean() + 0.5), float(rows.mean() + 0.5)
