"""The judge of a run of Snellen's own, whatever its task is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from snellen.core.plan import Plan
from snellen.core.sample import Batch as ImageBatch
from snellen.core.sample import Frame
from snellen.data.image_sets import ImageSet
from snellen.data.loader import EVALUATION_BATCH, evaluation_batches
from snellen.doctor.case import Batch
from snellen.doctor.judge import Judged, Moved, Side
from snellen.doctor.modes import in_evaluation
from snellen.doctor.run_batches import Marked
from snellen.nn.placement import to_device
from snellen.nn.precision import arithmetic
from snellen.tasks.base import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class RunJudge:
    """As ``Judge``. sides: image sets, with 'train' and 'val' among them."""

    model: nn.Module
    task: Task[Any]
    plan: Plan
    sides: Mapping[str, ImageSet]

    @property
    def metric(self) -> str:
        return self.task.headline

    def count(self, side: Side) -> int:
        return len(self.sides[side])

    def images(self, side: Side, rows: Sequence[int]) -> Batch:
        batches = list(self._batches(side, rows))
        images = torch.cat([batch.images for batch in batches]).float()
        whole = ImageBatch(
            images=images,
            targets=[target for batch in batches for target in batch.targets],
            ids=[image_id for batch in batches for image_id in batch.ids],
            frames=[frame for batch in batches for frame in batch.frames],
        )
        return images, Marked(whole)

    def judged(
        self, side: Side, rows: Sequence[int], *, moved: Moved | None = None, marks: Sequence[int] | None = None
    ) -> Judged:
        others = None if marks is None else (each.targets[0] for each in self._singles(side, marks))
        losses: list[float] = []
        metrics = self.task.metrics()
        device = torch.device(self.plan.device)
        with in_evaluation(self.model), torch.no_grad(), arithmetic(device, self.plan.precision):
            for single in self._singles(side, rows):
                single = single if others is None else replace(single, targets=[next(others)])
                single = single if moved is None else replace(single, images=moved(single.images).clamp(0, 255))
                terms, predicted = self.task.assess(self.model, _in_its_input(single), self.plan)
                losses.append(sum(float(term) for term in terms.values()))
                metrics.update(predicted, single.targets)
        return Judged(losses=np.array(losses), metric=self.metric, metrics=metrics)

    def _batches(self, side: Side, rows: Sequence[int]) -> Iterator[ImageBatch[Any]]:
        images = self.sides[side]
        chosen = replace(images, records=[images.records[i] for i in rows], targets=[images.targets[i] for i in rows])
        for batch in evaluation_batches(chosen, EVALUATION_BATCH, self.plan.workers):
            yield to_device(batch, self.plan)

    def _singles(self, side: Side, rows: Sequence[int]) -> Iterator[ImageBatch[Any]]:
        for batch in self._batches(side, rows):
            for i in range(len(batch)):
                yield replace(
                    batch,
                    images=batch.images[i : i + 1].float(),
                    targets=[batch.targets[i]],
                    ids=[batch.ids[i]],
                    frames=batch.frames[i : i + 1],
                )


def _in_its_input(single: ImageBatch[Any]) -> ImageBatch[Any]:
    """Answers in the pixels of the input, where the targets of a batch are."""
    if not single.frames:
        return single
    height, width = single.images.shape[-2:]
    return replace(single, frames=[Frame(size=(width, height), matrix=np.eye(3), input_size=(width, height))])
