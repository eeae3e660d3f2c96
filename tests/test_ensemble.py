"""Several models answer as one: with the mean of what they say, whatever the task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snellen.core.errors import RunError
from snellen.ensemble import Ensemble, ensemble
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


def answers(loaded: LoadedModel | Ensemble, n: int) -> dict[str, np.ndarray]:
    together = Ensemble([loaded]) if isinstance(loaded, LoadedModel) else loaded
    blank = np.zeros((16, 16, 3), np.uint8)
    said = together.decide([together.prepare(blank, (16, 16)) for _ in range(n)])
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


def test_models_that_answer_other_questions_are_refused() -> None:
    outputs = torch.zeros(1, 3)
    with pytest.raises(RunError, match="their classes differ"):
        ensemble([model("classification", outputs), model("multilabel", outputs)])


@pytest.mark.parametrize("task", [name for name in TASKS if not is_dense(name)])
def test_members_that_know_the_classes_in_another_order_are_joined_by_name(task: str) -> None:
    outputs = [2 * torch.randn(20, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    rule = () if task == "regression" else (0.3, 0.4, 0.9)
    one, other = (model(task, each, rule) for each in outputs)
    order = (CLASSES[2], CLASSES[0], CLASSES[1])
    moved_rule = (rule[2], rule[0], rule[1]) if rule else ()
    plan = replace(other.plan, classes=order)
    moved = LoadedModel(Says(outputs[1][:, [2, 0, 1]]), create_task(task, order, moved_rule), plan)
    for expected, found in zip(*(answers(ensemble([one, each]), 20).values() for each in (other, moved)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert ensemble([one, moved]).task.decision == pytest.approx(rule)


def test_other_classes_are_refused_by_name() -> None:
    other = model("classification", torch.zeros(1, 3))
    other = replace(other, plan=replace(other.plan, classes=("circle", "square", "star")))
    with pytest.raises(RunError, match=r"differ \(star, triangle\)"):
        ensemble([model("classification", torch.zeros(1, 3)), other])


class Widths(nn.Module):
    """A network that tells in its first output how wide the images are that it gets."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[float(images.shape[3]), 0.0, 0.0]]).expand(len(images), 3)


def test_each_model_sees_images_at_its_own_size() -> None:
    task = create_task("regression", CLASSES)
    plans = [
        a_plan(task="regression", classes=CLASSES, preprocessing=replace(a_plan().preprocessing, input_size=(side, 16)))
        for side in (8, 24)
    ]
    together = ensemble([LoadedModel(Widths(), task, plan) for plan in plans])
    (said,) = together.decide([together.prepare(np.zeros((50, 40, 3), np.uint8), (40, 50))])
    assert said.values[0] == 16.0
    assert together.min_side == max(plan.preprocessing.decode_min_side for plan in plans)


def test_weights_say_how_much_each_model_counts_and_one_without_weight_has_no_say() -> None:
    members = [model("regression", torch.full((2, 3), value)) for value in (0.0, 4.0, 100.0)]
    together = Ensemble(members, "weighted", (0.25, 0.75, 0.0))
    np.testing.assert_allclose(answers(together, 2)["predicted"], 3.0)
    ruled = model("multilabel", torch.zeros(1, 3), (0.2, 0.8, 0.5))
    free = model("multilabel", torch.zeros(1, 3))
    assert Ensemble([ruled, free, free], "weighted", (1.0, 0.0, 0.0)).task.decision == (0.2, 0.8, 0.5)


def test_how_images_are_standardised_may_differ() -> None:
    one = model("classification", torch.zeros(1, 3))
    other = replace(one.plan.preprocessing, mean=(0.1, 0.2, 0.3))
    ensemble([one, model("classification", torch.zeros(1, 3), preprocessing=other)])
