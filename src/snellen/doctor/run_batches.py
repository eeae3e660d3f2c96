"""The batches of a run of Snellen's own, as (inputs, targets): a training of somebody else's has them so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snellen.core.plan import Plan
from snellen.core.sample import Batch as ImageBatch
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.loader import EVALUATION_BATCH, evaluation_batches, training_batches
from snellen.doctor.case import Batch
from snellen.nn.placement import to_device
from snellen.tasks.base import Task


@dataclass(eq=False)
class Epochs:
    """Training batches; each time they are asked for, those of the next epoch."""

    images: ImageSet
    plan: Plan
    task: Task[Any]
    epoch: int = -1

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        plan = self.plan
        batches = training_batches(
            self.images, Variation.of(plan), epoch=self.epoch, batch_size=plan.batch_size, workers=plan.workers
        )
        return _pairs(batches, plan, self.task)


@dataclass(frozen=True, eq=False)
class InOrder:
    """Images as they are evaluated, always in the same order."""

    images: ImageSet
    plan: Plan
    task: Task[Any]

    def __iter__(self) -> Iterator[Batch]:
        size = max(EVALUATION_BATCH, min(self.plan.batch_size, 256))
        return _pairs(evaluation_batches(self.images, size, self.plan.workers), self.plan, self.task)


def _pairs(batches: Iterable[ImageBatch[Any]], plan: Plan, task: Task[Any]) -> Iterator[Batch]:
    for batch in batches:
        batch = to_device(batch, plan)
        targets: Any = Marked(batch)
        if asks_for_one_class(task) and batch.mixed is None:
            targets = torch.tensor([target.index for target in batch.targets], device=batch.images.device)
        yield batch.images.float(), targets


@dataclass(frozen=True, eq=False)
class Marked:
    """Targets that only their task can read."""

    batch: ImageBatch[Any]

    def __len__(self) -> int:
        return len(self.batch)


def asks_for_one_class(task: Task[Any]) -> bool:
    return task.parts_classes and task.name == "classification"


def as_batch(inputs: Tensor, targets: Any) -> ImageBatch[Any]:
    if isinstance(targets, Marked):
        return replace(targets.batch, images=inputs)
    labels = _labels(targets)
    return ImageBatch(images=inputs, targets=labels, ids=[""] * len(labels))


def _labels(targets: Tensor) -> list[Any]:
    from snellen.tasks.classification.target import Label

    return [Label(int(index)) for index in targets.tolist()]
