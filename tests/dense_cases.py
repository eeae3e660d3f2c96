"""What the contract suite must be told of each task that answers about places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from snellen.core.sample import Frame
from snellen.tasks.detection.target import Boxes
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.segmentation.target import ClassMap

SURE = 12.0  # a logit that leaves no doubt


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the suite must be told of a task.

    perfect    targets in pixels of the input, and how many classes -> the outputs of a network without mistakes
    agreement  of pixels uint8 [h, w, 3] and a target in them: how much of it lies on what has its colour, 0..1
    learnt     the headline from which the scenes count as learnt
    chance     what guessing gives, at most
    settings   of the training run
    """

    perfect: Callable[[Sequence[Any], int, Sequence[Frame]], Any]
    agreement: Callable[[np.ndarray, Any], float]
    learnt: float
    chance: float
    settings: dict[str, Any]


def _candidates(targets: Sequence[Boxes | InstanceSet], num_classes: int, frames: Sequence[Frame]) -> torch.Tensor:
    most = max(1, *(len(each) for each in targets))
    found = torch.zeros(len(targets), most, 4 + num_classes)
    for i, each in enumerate(targets):
        found[i, : len(each), :4] = torch.from_numpy(each.boxes)
        found[i, torch.arange(len(each)), 4 + torch.from_numpy(each.labels)] = 1.0
    return found


def _logits(targets: Sequence[ClassMap], num_classes: int, frames: Sequence[Frame]) -> torch.Tensor:
    maps = torch.from_numpy(np.stack([each.array for each in targets]).astype(np.int64))
    return SURE * torch.nn.functional.one_hot(maps.clamp(max=num_classes - 1), num_classes).permute(0, 3, 1, 2).float()


def _masks(targets: Sequence[InstanceSet], num_classes: int, frames: Sequence[Frame]) -> tuple[torch.Tensor, ...]:
    """A prototype for each object, of the input's size, and a coefficient of 1 on it."""
    width, height = targets[0].size
    most = max(1, *(len(each) for each in targets))
    prototypes = torch.full((len(targets), most, height, width), -SURE)
    coefficients = torch.zeros(len(targets), most, most)
    for i, each in enumerate(targets):
        for k, mask in enumerate(each.masks):
            prototypes[i, k][torch.from_numpy(mask.within((0, 0, width, height)).copy())] = SURE
            coefficients[i, k, k] = 1.0
    return torch.cat([_candidates(targets, num_classes, frames), coefficients], 2), prototypes


def _in_masks(pixels: np.ndarray, target: InstanceSet) -> float:
    """The share of the objects most of whose pixels have the colour of their class."""
    seen = []
    for mask, label in zip(target.masks, target.labels, strict=True):
        own = pixels[mask.within((0, 0, *target.size))]
        seen.append(float((own.argmax(axis=1) == label).mean()) > 0.7)
    return float(np.mean(seen)) if seen else 1.0


def _in_boxes(pixels: np.ndarray, target: Boxes) -> float:
    """The share of the boxes whose middle has the colour of their class."""
    middles = ((target.boxes[:, :2] + target.boxes[:, 2:]) / 2).astype(int)
    seen = [int(pixels[y, x].argmax()) == label for (x, y), label in zip(middles, target.labels, strict=True)]
    return float(np.mean(seen)) if seen else 1.0


def _in_maps(pixels: np.ndarray, target: ClassMap) -> float:
    """The share of the pixels of shapes that have the colour of their class; what is dark is background."""
    classes = target.array
    shown = np.where(pixels.max(axis=2) < 110, 0, 1 + pixels.argmax(axis=2))
    judged = classes != 255
    return float((shown == classes)[judged].mean())


_SETTINGS = {"model": "small-resnet", "input_size": 64, "batch_size": 8, "lr": 0.004, "body_lr": 0.004, "patience": 99}

CASES = {
    "detection": Case(
        perfect=_candidates,
        agreement=_in_boxes,
        learnt=0.5,
        chance=0.0,
        settings={**_SETTINGS, "epochs": 7},
    ),
    "segmentation": Case(
        perfect=_logits,
        agreement=_in_maps,
        learnt=0.7,
        chance=0.3,
        settings={**_SETTINGS, "epochs": 3, "lr": 0.006, "body_lr": 0.006},
    ),
    "instances": Case(
        perfect=_masks,
        agreement=_in_masks,
        learnt=0.4,
        chance=0.0,
        settings={**_SETTINGS, "epochs": 7},
    ),
}


def same(one: Any, other: Any, tolerance: float = 0.01) -> bool:
    """Whether two targets say the same of the same image, whatever their scores."""
    if isinstance(one, ClassMap):
        return one.size == other.size and bool(np.array_equal(one.array, other.array))
    if isinstance(one, InstanceSet):
        return one.size == other.size and _same_masks(one, other)
    left_out = ("scores", "area", "crowd", "difficult")
    names = [field.name for field in fields(one) if field.name not in left_out]
    return all(_close(getattr(one, name), getattr(other, name), tolerance) for name in names)


def _same_masks(one: InstanceSet, other: InstanceSet) -> bool:
    return np.array_equal(one.labels, other.labels) and one.masks == other.masks


def _close(one: Any, other: Any, tolerance: float) -> bool:
    one, other = np.asarray(one, float), np.asarray(other, float)
    return one.shape == other.shape and bool(np.allclose(one, other, atol=tolerance))
