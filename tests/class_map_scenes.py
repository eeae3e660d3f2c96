"""Class maps made of noise, and a task that tells them apart."""

from __future__ import annotations

import numpy as np

from snellen.tasks.segmentation.target import VOID, ClassMap
from snellen.tasks.segmentation.task import Segmentation

CLASSES = ("background", "disc", "block")
TASK = Segmentation(CLASSES)


def scene(rng: np.random.Generator, size: tuple[int, int] = (32, 24)) -> tuple[np.ndarray, ClassMap]:
    """A dark picture with a red disc and a green block, and the class of each pixel."""
    width, height = size
    picture = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
    classes = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    centres = rng.integers((6, 6), (width - 6, height - 6), (2, 2))
    classes[(x - centres[0, 0]) ** 2 + (y - centres[0, 1]) ** 2 < 25] = 1
    classes[(abs(x - centres[1, 0]) < 4) & (abs(y - centres[1, 1]) < 4)] = 2
    picture[classes == 1] = (220, 60, 40)
    picture[classes == 2] = (60, 200, 70)
    return picture, ClassMap.from_array(classes)


def random_maps(seed: int, n: int, *, void: float = 0.1, size: tuple[int, int] = (12, 9)) -> list[ClassMap]:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 3, (n, size[1], size[0])).astype(np.uint8)
    maps[rng.random(maps.shape) < void] = VOID
    return [ClassMap.from_array(each) for each in maps]


def said_of(truth: list[ClassMap], seed: int, wrong: float = 0.3) -> list[ClassMap]:
    rng = np.random.default_rng(seed)
    maps = []
    for each in truth:
        noise = rng.integers(0, 3, each.array.shape).astype(np.uint8)
        maps.append(np.where((rng.random(each.array.shape) < wrong) | (each.array == VOID), noise, each.array))
    return [ClassMap.from_array(each, np.full(3, 0.5, np.float32)) for each in maps]
