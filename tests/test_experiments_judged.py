"""Experiments that know no more than a training's own loss: planted faults are named, healthy trainings are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from experiment_cases import findings
from judged_cases import Plant, judge_of, judged_patient
from snellen.doctor.case import Training
from snellen.doctor.experiments import judged_learning
from snellen.doctor.experiments.judged_inputs import inputs_differ_by_loss, inputs_ignored_by_loss
from snellen.doctor.experiments.judged_labels import labels_carry_nothing_by_loss, labels_shifted_by_loss
from snellen.doctor.experiments.judged_learning import (
    batch_norm_statistics_by_loss,
    cannot_overfit_by_loss,
    high_variance_by_loss,
)

ALL = (
    inputs_ignored_by_loss,
    inputs_differ_by_loss,
    batch_norm_statistics_by_loss,
    high_variance_by_loss,
    labels_shifted_by_loss,
    labels_carry_nothing_by_loss,
    cannot_overfit_by_loss,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _spoilt_statistics(training: Training) -> None:
    for norm in (module for module in training.model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean += 1.0  # type: ignore[operator]
        norm.running_var *= 9.0  # type: ignore[operator]


def _blind(training: Training) -> None:
    with torch.no_grad():
        training.model.fine[0].weight.zero_()  # type: ignore[index, union-attr]


def _dead(training: Training) -> None:
    """No weight of the head leaves zero, and nothing before it counts."""
    for parameter in training.model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        training.model.head.weight.zero_()  # type: ignore[union-attr, operator]
    training.model.head.register_forward_pre_hook(lambda module, given: (given[0] * 0,))  # type: ignore[union-attr]
    training.model.head.bias.requires_grad_(True)  # type: ignore[union-attr]


def _slow(training: Training) -> None:
    assert training.optimizer is not None
    training.scheduler = None
    for group in training.optimizer.param_groups:
        group["lr"] = 1e-7


def _val(**changed: Any) -> Plant:
    def plant(training: Training) -> None:
        judge = judge_of(training)
        for name, change in changed.items():
            tensors = getattr(judge, name)
            tensors["val"] = change(tensors["val"])

    return plant


def _shuffled(targets: torch.Tensor) -> torch.Tensor:
    return targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))]


def _with_tint(training: Training) -> None:
    """Colour tells something: figures are bright in two channels and dark in the third."""
    judge = judge_of(training)
    for side in ("train", "val"):
        judge.inputs[side][:, 2] *= -1


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (None, _spoilt_statistics, "batch-norm-statistics"),
        (None, _blind, "inputs-ignored"),
        (None, _val(targets=lambda each: each.roll(1, 0)), "labels-shifted"),
        (None, _val(targets=lambda each: each.roll(-2, 0)), "labels-shifted"),
        (None, _val(targets=_shuffled), "labels-carry-nothing"),
        (None, _val(targets=_shuffled), "high-variance"),
        (None, _val(inputs=lambda each: each * 4 + 2), "inputs-differ"),
        (_with_tint, _val(inputs=lambda each: each.flip(1)), "channels-swapped"),
    ],
    ids=["norms", "blind", "row below", "two above", "shuffled", "gap", "scale", "bgr"],
)
def test_a_planted_fault_is_found_with_its_evidence(before: Plant | None, after: Plant | None, code: str) -> None:
    checks = [check for check in ALL if check.__name__.startswith(code.replace("-", "_"))] or [inputs_differ_by_loss]
    found = findings(judged_patient(before, after), *checks)
    assert code in found
    confirmed = code in {"batch-norm-statistics", "labels-shifted", "inputs-differ", "channels-swapped"}
    assert found[code].certainty == ("confirmed" if confirmed else "observed")
    assert found[code].evidence and found[code].message.endswith(".")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "recipe",
    [{}, {"noise": 1.2, "dropout": 0.4}, {"norm": "none"}, {"num": 128, "epochs": 4}],
    ids=["usual", "hard", "plain", "short"],
)
def test_healthy_trainings_are_silent(recipe: dict[str, Any], seed: int) -> None:
    case = judged_patient(seed=seed, **recipe)
    serious = {code for code, finding in findings(case, *ALL[:-1]).items() if finding.severity != "info"}
    assert serious == set()


def test_what_helps_a_slow_training_is_told_apart_from_a_dead_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged_learning, "_STEPS", 75)  # for the sake of time
    slow = findings(judged_patient(_slow, num=128, epochs=2), cannot_overfit_by_loss)["cannot-overfit"]
    dead = findings(judged_patient(_dead, num=128, epochs=2), cannot_overfit_by_loss)["cannot-overfit"]
    assert slow.severity == "info" and "optimizer" in slow.advice
    assert dead.severity == "warning" and "network" in dead.advice


def test_experiments_leave_every_bit_of_the_training_as_it_was() -> None:
    case = judged_patient()
    assert case.training is not None
    before = {name: each.clone() for name, each in case.training.model.state_dict().items()}
    modes = [module.training for module in case.training.model.modules()]
    state = torch.get_rng_state()
    findings(case, *ALL[:-1])
    assert all(torch.equal(each, before[name]) for name, each in case.training.model.state_dict().items())
    assert [module.training for module in case.training.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_few_images_and_trainings_without_a_judge_are_not_asked() -> None:
    case = judged_patient(num=40, epochs=1)  # 20 validation images
    assert findings(case, *ALL) == {}
    assert case.training is not None
    case.training.judge = None
    assert findings(case, *ALL) == {}
