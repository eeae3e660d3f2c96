"""What was learnt at all, whether the network could, and whether fine-tuning took away what was known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from doctor_cases import learn, tiny_training
from experiment_cases import constant_rate, findings, network, patient
from snellen.doctor.case import Case, History, Training
from snellen.doctor.experiments import table
from snellen.doctor.experiments.fine_tuning import fine_tuning_hurts
from snellen.doctor.experiments.learning import (
    high_variance,
    not_learning,
    validation_above_training_explained,
)
from snellen.doctor.experiments.measure import measurements
from snellen.doctor.experiments.overfit import cannot_overfit

torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["cnn", "segmenter", "regression"])
def test_a_model_that_learnt_nothing_is_seen(kind: str) -> None:
    found = findings(patient(constant_rate(1e-7), kind=kind, epochs=1), not_learning)["not-learning"]
    assert found.certainty == "observed"
    assert found.evidence["share_learnt"] < 0.1


def test_a_model_before_its_training_is_no_patient() -> None:
    assert not findings(Case(training=tiny_training()), not_learning)


def _one_filter() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 1, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 4))


def test_a_network_that_cannot_learn_is_told_from_a_training_that_does_not() -> None:
    found = findings(patient(network(_one_filter), epochs=2), cannot_overfit)
    assert (found["cannot-overfit"].certainty, found["network-unfit"].certainty) == ("observed", "confirmed")
    assert found["network-unfit"].evidence["lead"] > 0.3


def test_a_rate_that_is_far_too_low_points_at_the_optimizer() -> None:
    found = findings(patient(constant_rate(1e-7), epochs=1), cannot_overfit)
    assert list(found) == ["cannot-overfit"]
    assert found["cannot-overfit"].severity == "info"
    assert "optimizer" in found["cannot-overfit"].advice


def test_weights_that_hold_learning_up_are_told_from_the_network() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(432, 32), nn.ReLU(), nn.Linear(32, 4))
        nn.init.constant_(model[1].bias, -100.0)  # type: ignore[arg-type]
        return model

    found = findings(patient(network(make), epochs=1), cannot_overfit)
    assert list(found) == ["cannot-overfit"]
    assert "weights that it begins with" in found["cannot-overfit"].advice


def test_a_wide_gap_is_told_with_its_lower_bound() -> None:
    found = findings(patient(kind="mlp", noise=1.5, epochs=8), high_variance)["high-variance"]
    assert 0.1 < found.evidence["gap_at_least"] < found.evidence["training"] - found.evidence["validation"]


def test_validation_above_training_is_explained_by_judging_both_alike() -> None:
    case = patient(epochs=6)
    history = History(
        epochs=np.array([1.0, 2.0]), train_scores=np.array([0.4, 0.7]), val_scores=np.array([0.5, 0.9]), best_epoch=2
    )
    code = "validation-above-training-explained"
    assert findings(Case(training=case.training, history=history), validation_above_training_explained)[code]
    same = History(epochs=history.epochs, train_scores=history.val_scores, val_scores=history.val_scores)
    assert not findings(Case(training=case.training, history=same), validation_above_training_explained)


def _fine_tuned(rate: float, seed: int) -> Training:
    """Weights that were learnt on other images of the same kind, tuned on few."""
    before = learn(tiny_training(seed=100 + seed, num=512, epochs=4))
    weights = {name: each.clone() for name, each in before.model.state_dict().items()}
    base = tiny_training(seed=seed, num=96, num_val=400, epochs=3, rate=rate)

    def with_weights(training: Training) -> Training:
        training.model.load_state_dict(weights)
        training.pretrained = weights
        return training

    build = base.build
    assert build is not None
    base.build = lambda other: with_weights(build(other))
    return learn(with_weights(base))


@pytest.mark.parametrize("seed", range(2))
def test_fine_tuning_that_loses_what_was_known_is_found(seed: int) -> None:
    found = findings(Case(training=_fine_tuned(0.3, seed)), fine_tuning_hurts)["fine-tuning-hurts"]
    assert (found.certainty, found.treatment) == ("confirmed", {"change": "body rate/10"})
    assert found.evidence["probe_before"] > found.evidence["model"] + 0.1


@pytest.mark.parametrize("seed", range(2))
def test_fine_tuning_that_helps_is_let_be(seed: int) -> None:
    assert not findings(Case(training=_fine_tuned(1e-3, seed)), fine_tuning_hurts)


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 4},
        {"kind": "segmenter"},
        {"kind": "regression", "epochs": 4},
        {"kind": "regression", "scheduler": "none", "epochs": 5, "seed": 1},
        {"optimizer": "sgd", "dropout": 0.5, "epochs": 6},
        {"wrong": 0.3, "epochs": 6},
    ],
    ids=str,
)
def test_no_experiment_raises_a_warning_over_a_healthy_training(recipe: dict[str, Any]) -> None:
    found = findings(patient(**recipe), *table.EXPERIMENTS)
    assert all(each.severity == "info" for each in found.values()), found


def test_experiments_are_silent_where_the_question_does_not_fit() -> None:
    training = tiny_training(epochs=1)
    training.question = "other"
    assert not findings(Case(training=learn(training)), *table.EXPERIMENTS)
    assert not findings(Case(), *table.EXPERIMENTS)
    mixed = tiny_training(epochs=1)
    mixed.val = [(images, nn.functional.one_hot(labels, 4).float()) for images, labels in mixed.val]
    assert not findings(Case(training=mixed), high_variance)


def test_a_model_that_learns_on_is_measured_anew() -> None:
    case = patient(epochs=1, scheduler="none")
    assert case.training is not None
    first = measurements(case, "classification")
    assert measurements(case, "classification") is first
    learn(case.training, epochs=1)
    assert measurements(case, "classification") is not first
