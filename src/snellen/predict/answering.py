"""What answers for images: a network in this process, what was exported from one, or several views of either.

``Predictor`` reads files and knows only this; what a model is made of is known here, and nowhere after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.core.sample import Batch, Frame
from snellen.data.loader import EVALUATION_BATCH, stack
from snellen.data.store import frame_of, prepare
from snellen.tasks.base import Task
from snellen.tasks.loading import LoadedModel


class Answering(Protocol):
    """Pixels of images -> the task's predictions, told in the pixels of the images on disk.

    preprocessing  how it sees an image
    min_side       as in ``data.image.decode``: below it a JPEG's detail counts; None: every pixel is needed
    batch          how many images are worth answering together
    """

    @property
    def task(self) -> Task[Any]: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def min_side(self) -> int | None: ...

    @property
    def batch(self) -> int: ...

    def prepare(self, pixels: np.ndarray, size: Size) -> Any:
        """uint8 [H, W, 3], of an image that is (width, height) on disk -> what ``decide`` takes. From any thread."""
        ...

    def decide(self, seen: Sequence[Any]) -> Sequence[Any]:
        """What ``prepare`` gave for some images -> a target of the task for each."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image as the network gets it, uint8 [h, w, 3], and how it came to be so."""

    pixels: np.ndarray
    frame: Frame


class NetworkAnswering:
    """A network in this process."""

    batch = EVALUATION_BATCH

    def __init__(self, model: LoadedModel) -> None:
        from snellen.nn.folding import for_inference

        self.task, self.plan = model.task, model.plan
        self.network = for_inference(model.network)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.plan.preprocessing

    @property
    def min_side(self) -> int:
        return self.preprocessing.decode_min_side

    def prepare(self, pixels: np.ndarray, size: Size) -> Seen:
        return Seen(prepare(pixels, self.preprocessing, size), frame_of(size, self.preprocessing))

    def decide(self, seen: Sequence[Seen]) -> Sequence[Any]:
        if not seen:
            return []
        frames = [each.frame for each in seen] if self.task.dense else ()
        return self.task.decode(self.outputs([each.pixels for each in seen]), frames)

    def outputs(self, images: Sequence[np.ndarray]) -> Any:
        """Prepared images uint8 [h, w, 3] -> the network's raw outputs."""
        import torch

        from snellen.nn.placement import to_device
        from snellen.nn.precision import arithmetic

        batch: Batch[Any] = to_device(Batch(images=stack(images), targets=(), ids=()), self.plan)
        with torch.inference_mode(), arithmetic(torch.device(self.plan.device), self.plan.precision):
            return self.network(batch.images)
