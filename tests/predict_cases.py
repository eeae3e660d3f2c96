"""Images to predict, and what answers for them without a network: what it says follows from the pixels alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.predict.predictor import Predictor
from snellen.tasks.base import TASKS, create_task
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.detection.target import Boxes
from snellen.tasks.instances.object_mask import ObjectMask
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.regression.target import Values
from snellen.tasks.segmentation.target import ClassMap

CLASSES = ("cat", "dög", "=bird")
NAMES = tuple(TASKS)
BATCH = 4


def _shares(pixels: np.ndarray) -> np.ndarray:
    """How much of each colour an image has, float32 [3]."""
    sums = pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64) + 1
    return np.asarray(sums / sums.sum(), np.float32)


def _label(pixels: np.ndarray) -> Label:
    shares = _shares(pixels)
    return Label(int(shares.argmax()), shares)


def _labels(pixels: np.ndarray) -> LabelSet:
    shares = _shares(pixels)
    return LabelSet(shares > 0.3, shares)


def _values(pixels: np.ndarray) -> Values:
    return Values(100 * _shares(pixels))


def _rows(pixels: np.ndarray) -> dict[str, Any]:
    """Two objects that are shown and one that is not, since its score is low; none where the image is black."""
    height, width = pixels.shape[:2]
    num = 3 if pixels.any() else 0
    boxes = np.array([[1, 2, width, height - 1], [0, 0, 4.5, 3.25], [0, 0, 2, 2]], np.float32)
    scores = np.array([0.5 + _shares(pixels)[0] / 2, 0.4, 0.1], np.float32)
    return {"boxes": boxes[:num], "labels": np.array([2, 0, 1])[:num], "scores": scores[:num]}


def _boxes(pixels: np.ndarray) -> Boxes:
    return Boxes.predicted((pixels.shape[1], pixels.shape[0]), **_rows(pixels))


def _instances(pixels: np.ndarray) -> InstanceSet:
    rows = _rows(pixels)
    size = (pixels.shape[1], pixels.shape[0])
    masks = [ObjectMask.of_box(tuple(box), size) for box in rows["boxes"].tolist()]
    return InstanceSet.predicted(size, masks, **rows)


def class_map(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W]: which colour is the strongest."""
    return pixels.argmax(axis=2).astype(np.uint8)


def _map(pixels: np.ndarray) -> ClassMap:
    return ClassMap.from_array(class_map(pixels), _shares(pixels))


_SAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "classification": _label,
    "multilabel": _labels,
    "regression": _values,
    "detection": _boxes,
    "segmentation": _map,
    "instances": _instances,
}


class Eyes:
    """An ``Answering`` for any task; it counts the images that it was shown."""

    preprocessing = Preprocessing(input_size=(8, 8), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    min_side = None
    batch = BATCH

    def __init__(self, task: str) -> None:
        self.task = create_task(task, CLASSES)
        self.seen: list[int] = []

    def prepare(self, pixels: np.ndarray, size: Size) -> np.ndarray:
        assert size == (pixels.shape[1], pixels.shape[0])
        return pixels

    def decide(self, seen: Sequence[np.ndarray]) -> list[Any]:
        """What is said depends on what else is in the batch, in the last digits, as it does with networks."""
        self.seen.append(len(seen))
        told = [_SAYS[self.task.name](pixels) for pixels in seen]
        if self.task.name != "classification":
            return told
        return [replace(each, scores=each.scores + np.float32(1e-6 * len(told))) for each in told]


def predictor(task: str) -> Predictor:
    return Predictor(Eyes(task))


def save_photos(folder: Path, num: int = 11, *, broken: Sequence[int] = (2, 7)) -> Path:
    """Tiny images of different sizes and colours in folders; the first is black, and some cannot be read."""
    rng = np.random.default_rng(0)
    for i in range(num):
        path = folder / f"{'ab'[i % 2]}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(1, 256, (12 + i, 20 - i % 5, 3)).astype(np.uint8) * (i > 0)
        if i in broken:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(pixels).save(path)
    return folder


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, with a hash of its bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
