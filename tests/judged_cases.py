"""Tiny trainings of class maps that are judged by their loss alone, as those of boxes and masks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from doctor_cases import learn, planted, tiny_training
from snellen.core.estimate import Estimate
from snellen.doctor.case import Batch, Case, History, Training
from snellen.doctor.judge import Judged, Moved, Side
from snellen.doctor.modes import in_evaluation

Plant = Callable[[Training], None]


class ShareOfPixels:
    """The mean over images of the share of right pixels."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, predicted: Sequence[object], truth: Sequence[object]) -> None:
        pairs = zip(predicted, truth, strict=True)
        self.values += [float(np.mean(np.asarray(one) == np.asarray(other))) for one, other in pairs]

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str] | None = None, seed: int = 0
    ) -> dict[str, Estimate]:
        return {"mean_iou": Estimate(value=float(np.mean(self.values)), n=len(self.values))}

    def resampled(self, *, groups: Sequence[str] | None = None, seed: int = 0) -> Mapping[str, np.ndarray]:
        rows = np.random.default_rng(seed).integers(0, len(self.values), (200, len(self.values)))
        return {"mean_iou": np.array(self.values)[rows].mean(1)}


@dataclass(eq=False)
class MapJudge:
    """A judge of tensors. inputs, targets: by side; plants may replace them."""

    model: nn.Module
    inputs: dict[Side, Tensor]
    targets: dict[Side, Tensor]
    metric: str = field(default="mean_iou", init=False)

    def count(self, side: Side) -> int:
        return len(self.inputs[side])

    def images(self, side: Side, rows: Sequence[int]) -> Batch:
        return self.inputs[side][list(rows)], self.targets[side][list(rows)]

    def judged(
        self, side: Side, rows: Sequence[int], *, moved: Moved | None = None, marks: Sequence[int] | None = None
    ) -> Judged:
        metrics, losses = ShareOfPixels(), []
        with in_evaluation(self.model), torch.no_grad():
            for row, mark in zip(rows, rows if marks is None else marks, strict=True):
                inputs = self.inputs[side][row : row + 1]
                outputs = self.model(inputs if moved is None else moved(inputs))
                target = self.targets[side][mark : mark + 1]
                losses.append(float(nn.functional.cross_entropy(outputs, target)))
                metrics.update([outputs.argmax(1)[0].numpy()], [target[0].numpy()])
        return Judged(losses=np.array(losses), metric=self.metric, metrics=metrics)


def judged_training(*, seed: int = 0, **recipe: Any) -> Training:
    """A training of class maps whose question is not told, and a judge beside it."""
    return _judged(tiny_training("segmenter", seed=seed, **recipe))


def _judged(training: Training) -> Training:
    build = training.build
    assert build is not None and training.plain is not None
    sides: dict[Side, Any] = {"train": training.plain, "val": training.val}
    tensors = {side: loader.dataset.tensors for side, loader in sides.items()}
    judge = MapJudge(
        training.model,
        {side: both[0] for side, both in tensors.items()},
        {side: both[1] for side, both in tensors.items()},
    )
    loss = training.loss
    return replace(
        training,
        question="other",
        judge=judge,
        run_loss=lambda model, inputs, targets: loss(model(inputs), targets),
        build=lambda seed: _judged(build(seed)),
    )


def judge_of(training: Training) -> MapJudge:
    assert isinstance(training.judge, MapJudge)
    return training.judge


_LEARNT: dict[Any, Mapping[str, Tensor]] = {}


def judged_patient(before: Plant | None = None, after: Plant | None = None, *, seed: int = 0, **recipe: Any) -> Case:
    """A training that has run. before, after: what was done to it before or after it learnt.

    What was learnt is kept, for those that differ only in what was done afterwards.
    """
    training = judged_training(seed=seed, **recipe)
    if before is not None:
        planted(training, before)
    asked = (before, seed, *sorted(recipe.items()))
    if asked not in _LEARNT:
        learn(training)
        _LEARNT[asked] = {name: each.clone() for name, each in training.model.state_dict().items()}
    training.model.load_state_dict(_LEARNT[asked])
    if after is not None:
        after(training)
    return Case(training=training, history=History(steps=np.ones(1)), seed=seed)
