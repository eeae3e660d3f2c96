"""Several models answer as one: with the mean of what they say, whatever the task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snellen.core.errors import RunError
from snellen.ensemble import ensemble
from snellen.tasks.base import TASKS, create_task, is_dense
from snellen.tasks.loading import LoadedModel
from tiny_runs import a_plan

CLASSES = ("circle", "square", "triangle")
ANSWER = {"classification": "scores", "multilabel": "scores", "regression": "predicted"}


class Says(nn.Module):
    """A network that always gives the same outputs."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs[: len(images)]


def model(task: str, outputs: Tensor, decision: tuple[float, ...] = (), **changes: Any) -> LoadedModel:
    plan = a_plan(task=task, classes=CLASSES, **changes)
    return LoadedModel(Says(outputs), create_task(task, CLASSES, decision), plan)


def answers(loaded: LoadedModel, n: int) -> dict[str, np.ndarray]:
    said = loaded.task.decode(loaded.network(torch.zeros(n, 3, 16, 16)))
    return loaded.task.arrays(said, said)


@pytest.mark.parametrize("task", [name for name in TASKS if not is_dense(name)])
def test_ensemble_says_the_mean_of_its_members(task: str) -> None:
    generator = torch.Generator().manual_seed(0)
    members = [model(task, 3 * torch.randn(20, 3, generator=generator)) for _ in range(4)]
    mean = np.mean([answers(member, 20)[ANSWER[task]] for member in members], axis=0)
    np.testing.assert_allclose(answers(ensemble(members), 20)[ANSWER[task]], mean, atol=1e-6)


@pytest.mark.parametrize("task", [name for name in TASKS if not is_dense(name)])
def test_ensemble_of_one_is_that_one(task: str) -> None:
    alone = model(task, torch.randn(20, 3, generator=torch.Generator().manual_seed(1)))
    np.testing.assert_allclose(
        answers(ensemble([alone]), 20)[ANSWER[task]], answers(alone, 20)[ANSWER[task]], atol=1e-6
    )


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_members_that_are_sure_of_opposites_leave_finite_outputs(task: str) -> None:
    sure = torch.tensor([[300.0, -300.0, -300.0]])
    together = ensemble([model(task, sure), model(task, -sure)])
    outputs = together.network(torch.zeros(1, 3, 16, 16))
    assert torch.isfinite(outputs).all()
    assert answers(together, 1)["scores"][0, 0] == pytest.approx(0.5, abs=1e-6)


def test_ensemble_decides_as_most_of_its_members_do() -> None:
    outputs = torch.tensor([[0.0, 1.0, -1.0]])
    ruled = [model("multilabel", outputs, (0.2, 0.8, 0.5)), model("multilabel", outputs, (0.4, 0.9, 0.5))]
    free = model("multilabel", outputs)
    assert ensemble([*ruled, free]).task.decision == pytest.approx((0.3, 0.85, 0.5))
    assert ensemble([ruled[0], free]).task.decision == ()


@pytest.mark.parametrize("task", [name for name in TASKS if not is_dense(name)])
def test_answers_are_read_back_as_they_were(task: str) -> None:
    rule = () if task == "regression" else (0.3, 0.4, 0.9)
    said = model(task, torch.randn(20, 3, generator=torch.Generator().manual_seed(2)), rule)
    truth = model(task, torch.randn(20, 3, generator=torch.Generator().manual_seed(3)))
    predicted, true = (each.task.decode(each.network(torch.zeros(20, 3, 16, 16))) for each in (said, truth))
    arrays = said.task.arrays(predicted, true)
    again = create_task(task, CLASSES).read_arrays(arrays)
    numbers = []
    for pair in ((predicted, true), again):
        metrics = said.task.metrics()
        metrics.update(*pair)
        numbers.append({name: estimate.value for name, estimate in metrics.compute(intervals=False).items()})
    assert numbers[0] == numbers[1]


def test_models_that_cannot_answer_together_are_refused() -> None:
    outputs = torch.zeros(1, 3)
    one = model("classification", outputs)
    other = replace(one.plan.preprocessing, input_size=(32, 32))
    with pytest.raises(RunError, match="input sizes"):
        ensemble([one, model("classification", outputs, preprocessing=other)])
    with pytest.raises(RunError, match="their classes differ"):
        ensemble([one, model("multilabel", outputs)])


def test_how_images_are_standardised_may_differ() -> None:
    one = model("classification", torch.zeros(1, 3))
    other = replace(one.plan.preprocessing, mean=(0.1, 0.2, 0.3))
    ensemble([one, model("classification", torch.zeros(1, 3), preprocessing=other)])
