"""Several models that answer as one: the mean of their predictions.

The network of an ensemble gives raw outputs like any other, so whatever takes a model takes an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import RunError
from snellen.core.run import RunFolder
from snellen.tasks.base import create_task
from snellen.tasks.loading import LoadedModel, load_model


class EnsembleNetwork(nn.Module):
    """images [n, 3, h, w] with values 0..255 -> ``combine`` of the outputs of the ``members``."""

    def __init__(self, members: Sequence[nn.Module], combine: Callable[[Sequence[Tensor]], Tensor]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._combine = combine

    def forward(self, images: Tensor) -> Tensor:
        return self._combine([member(images) for member in self.members])


def ensemble(models: Sequence[LoadedModel]) -> LoadedModel:
    """The mean of the models' predictions (Hansen and Salamon, IEEE PAMI 12 (1990) 993), as one model.

    It decides as the models do on average, where most of them have a rule of their own (``Task.decision``).

    Raises RunError when they answer different questions, or see images at different sizes.
    """
    first = models[0]
    for model in models[1:]:
        if (model.plan.task, model.plan.classes) != (first.plan.task, first.plan.classes):
            raise RunError("the models of an ensemble must answer one question: their tasks or their classes differ")
        if _seen(model) != _seen(first):
            raise RunError("the models of an ensemble must see images alike: their input sizes or their fits differ")
    network = EnsembleNetwork([model.network for model in models], first.task.combine)
    task = create_task(first.plan.task, first.plan.classes, _decision(models)).configured(first.plan)
    return replace(first, network=network.eval(), task=task)


def _decision(models: Sequence[LoadedModel]) -> tuple[float, ...]:
    rules = [model.task.decision for model in models if model.task.decision]
    if 2 * len(rules) <= len(models):
        return ()
    return tuple(sum(numbers) / len(rules) for numbers in zip(*rules, strict=True))


def _seen(model: LoadedModel) -> object:
    """How an image is resized for it; how it is standardised is a part of its network."""
    return replace(model.plan.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def load_run(run: RunFolder, *, device: str = "auto") -> LoadedModel:
    """The model of a run, or the ensemble of a cross-validation. Raises RunError when there is none."""
    models = [load_model(Checkpoint.load(path), device=device) for path in run.models()]
    return models[0] if len(models) == 1 else ensemble(models)
