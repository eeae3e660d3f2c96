"""Batch norms whose statistics are stale are told from all else that makes validation worse than training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiment_cases import findings, momentum, patient
from snellen.doctor.experiments.batch_norms import batch_norm_statistics

torch.set_num_threads(1)


@pytest.mark.parametrize(("value", "seed"), [(0.0, 0), (0.001, 1), (0.0, 3)])
def test_statistics_that_never_follow_are_found_and_the_cure_is_named(value: float, seed: int) -> None:
    found = findings(patient(momentum(value), seed=seed, epochs=4), batch_norm_statistics)["batch-norm-statistics"]
    assert (found.severity, found.certainty, found.evidence["pace"]) == ("serious", "confirmed", "odd")
    assert found.evidence["after"] > found.evidence["before"] + 0.1
    assert found.treatment == {"change": "re-estimated norms"}


def test_regression_is_judged_by_its_errors() -> None:
    case = patient(momentum(0.0), kind="regression", epochs=5)
    found = findings(case, batch_norm_statistics)["batch-norm-statistics"]
    assert found.evidence["after"] > found.evidence["before"]
    assert "mean squared error" in found.message


def test_a_training_of_eight_steps_is_told_as_short_and_is_no_warning() -> None:
    found = findings(patient(epochs=1), batch_norm_statistics)
    assert all(each.severity == "info" and each.evidence["pace"] == "short" for each in found.values())


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 5},
        {"kind": "mlp", "epochs": 6},
        {"kind": "segmenter"},
        {"kind": "regression", "epochs": 6},
        {"dropout": 0.5, "epochs": 6},
        {"batch": 4, "num": 128, "epochs": 2},
        {"optimizer": "sgd", "epochs": 6},
        {"num_val": 40, "epochs": 6},
        {"shift": 2, "epochs": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0])
def test_healthy_batch_norms_are_let_be(recipe: dict[str, Any], seed: int) -> None:
    found = findings(patient(seed=seed, **recipe), batch_norm_statistics)
    assert all(each.severity == "info" for each in found.values()), found


def test_nets_without_batch_norms_are_not_asked() -> None:
    assert not findings(patient(norm="group", epochs=2), batch_norm_statistics)


def test_the_training_and_the_momenta_stay_as_they_were() -> None:
    case = patient(momentum(0.001), epochs=2)
    training = case.training
    assert training is not None
    before = {name: each.clone() for name, each in training.model.state_dict().items()}
    modes = [module.training for module in training.model.modules()]
    state = torch.get_rng_state()
    list(batch_norm_statistics(case))
    assert all(torch.equal(before[name], each) for name, each in training.model.state_dict().items())
    assert modes == [module.training for module in training.model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert {getattr(module, "momentum", 0.001) for module in training.model.modules()} == {0.001}
