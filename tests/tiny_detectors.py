"""Detectors small enough for tests, on backbones of a few convolutions, and what to show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.catalog import SMALL_RESNET
from snellen.nn.detection import architectures
from snellen.nn.detection.architectures import create_detector
from snellen.nn.detection.loss_names import USUAL_LOSS
from snellen.nn.detection.table import ARCHITECTURES
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from tiny_runs import a_plan

NAMES = tuple(name for name, known in ARCHITECTURES.items() if not known.own_backbone)
NUM_CLASSES, SIDE = 3, 64
PREPROCESSING = Preprocessing(
    input_size=(SIDE, SIDE), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3
)
SMALLER: dict[str, dict[str, object]] = {  # than usual, for the time that tests take
    "mask_rcnn": {"WIDTH": 32, "_WIDTH": 8, "FOUND": 12},  # before the module that it takes a width from
    "torchvision_models": {"WIDTH": 32, "HIDDEN": 64, "PROPOSALS": 40, "SAMPLED_PROPOSALS": 32},
    "effdet_models": {"LEVELS": 3},
    "transformers_models": {"WIDTH": 32, "HIDDEN": 64, "LAYERS": 2, "HEADS": 4, "QUERIES": 30, "DENOISING": 20},
}
OBJECTS = Truth.of_boxes(torch.tensor([[34.0, 4, 60, 24], [6, 28, 30, 62]]), torch.tensor([0, 2]))
ALL_CROWD = Truth(torch.tensor([[0.0, 0, SIDE, SIDE]]), torch.tensor([1]), torch.tensor([True]))


class Plain(MapBackbone):
    """Maps of 4, 8 and 16 pixels by a convolution each: quick, and the same in training and evaluation."""

    channels = (8, 16, 24)
    reductions = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2), nn.Conv2d(16, 24, 2, 2)])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for conv in self.convs:
            maps.append(torch.relu(conv(maps[-1] if maps else images)))
        return maps


class Patches(MapBackbone):
    """As a plain vision transformer: all maps are of one scale."""

    channels = (8, 8)

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.reductions = (patch, patch)
        self.convs = nn.ModuleList(nn.Conv2d(3, 8, patch, patch) for _ in self.reductions)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [conv(images) for conv in self.convs]


def make_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors that are made from now on are as narrow as SMALLER has it."""
    for module, sizes in SMALLER.items():
        for name, size in sizes.items():
            monkeypatch.setattr(import_module(f"snellen.nn.detection.{module}"), name, size)


def a_detector(
    name: str,
    backbone: Callable[[], MapBackbone] | None = None,
    seed: int = 0,
    preprocessing: Preprocessing = PREPROCESSING,
    **changes: Any,
) -> Any:
    """As a plan with ``changes`` names it, on ``backbone`` instead of that of the plan."""
    torch.manual_seed(seed)
    plan = a_plan(
        model=SMALL_RESNET,
        architecture=name,
        loss=USUAL_LOSS,
        preprocessing=preprocessing,
        norm="auto",
        activation="auto",
        **changes,
    )
    with pytest.MonkeyPatch.context() as patch:
        if backbone is not None:
            patch.setattr(architectures, "create_map_backbone", lambda *args, **settings: backbone())
        return create_detector(plan, NUM_CLASSES)


def noise(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def scenes() -> tuple[Tensor, list[Truth]]:
    """Two images with an object each, of the first class and of the last, in a colour of its own."""
    images = noise() // 4
    images[0, 0, 4:24, 34:60] = 250
    images[1, 2, 28:62, 6:30] = 250
    return images, [Truth.of_boxes(OBJECTS.boxes[i, None], OBJECTS.labels[i, None]) for i in range(2)]


def total_of(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def one_step(detector: Any, optimizer: torch.optim.Optimizer, images: Tensor, truths: Sequence[Truth]) -> float:
    total = total_of(detector.losses(images, truths))
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
    optimizer.step()
    return float(total.detach())
