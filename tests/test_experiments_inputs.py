"""Validation prepared otherwise, channels in reverse, classes numbered otherwise, inputs that are not used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from experiment_cases import Plant, Remapped, constant_rate, findings, on_validation, patient, training_data
from snellen.doctor.case import Answers, Case, Training
from snellen.doctor.experiments.augmentation import augmentation_changes_classes
from snellen.doctor.experiments.class_map import class_map_permuted
from snellen.doctor.experiments.inputs import inputs_differ, inputs_ignored

torch.set_num_threads(1)
SEEDS = range(1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["cnn", "segmenter", "regression"])
def test_validation_in_other_units_is_told_as_another_preparation(kind: str, seed: int) -> None:
    case = patient(on_validation(lambda images: images * 40 + 100), seed=seed, kind=kind, epochs=5)
    found = findings(case, inputs_differ)["inputs-differ"]
    assert (found.certainty, found.treatment) == ("confirmed", {"change": "plain validation"})
    assert found.evidence["beyond_nature"]
    assert found.evidence["after"] > found.evidence["before"]


def test_what_light_may_have_done_is_not_called_a_preparation() -> None:
    case = patient(on_validation(lambda images: images * 0.5 - 0.25), epochs=6, num_val=600)
    found = findings(case, inputs_differ)
    assert all(not each.evidence["beyond_nature"] and "light" in each.message for each in found.values())
    assert "inputs-differ" in found


def _by_colour(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class 0 and 1 stand out in the first channel, 2 and 3 in the last."""
    coloured = images.clone()
    coloured[labels < 2, 0] += 1.0
    coloured[labels >= 2, 2] += 1.0
    return coloured, labels


def _coloured(*, swapped: bool) -> Plant:
    def plant(training: Training) -> None:
        training_data(_by_colour)(training)
        images, labels = _by_colour(*training.val.dataset.tensors)  # type: ignore[attr-defined]
        training.val = [(images.flip(1) if swapped else images, labels)]

    return plant


@pytest.mark.parametrize("seed", SEEDS)
def test_channels_in_reverse_are_told_from_other_differences(seed: int) -> None:
    case = patient(_coloured(swapped=True), seed=seed, epochs=5)
    found = findings(case, inputs_differ)
    assert list(found) == ["channels-swapped"]
    assert found["channels-swapped"].treatment == {"change": "channels reversed"}
    assert not findings(patient(_coloured(swapped=False), seed=seed, epochs=5), inputs_differ)


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_numbered_otherwise_are_named(seed: int) -> None:
    case = patient(on_validation(targets=lambda labels: (labels + 1) % 4), seed=seed, epochs=6)
    found = findings(case, class_map_permuted)["class-map-permuted"]
    assert found.certainty == "confirmed"
    assert found.evidence["renamed"] == {
        "upright": "across",
        "square": "upright",
        "cross": "square",
        "across": "cross",
    }
    assert found.evidence["after"] > 0.7 > 0.3 > found.evidence["before"]


def test_two_swapped_classes_of_many_are_found_in_written_answers_alone() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 20, 2000)
    predicted = np.where(rng.random(2000) < 0.7, truth, rng.integers(0, 20, 2000))
    renamed = np.arange(20)
    renamed[[3, 11]] = 11, 3
    case = Case(answers={"test": Answers(probabilities=np.eye(20)[predicted], truth=renamed[truth])})
    found = findings(case, class_map_permuted)["class-map-permuted"]
    assert found.evidence["renamed"] == {"class 3": "class 11", "class 11": "class 3"}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["random", "one answer", "two alike", "rare class only", "few"])
def test_bad_models_are_not_taken_for_other_numbers(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = (40, 20) if kind == "few" else (400, 2 if kind == "rare class only" else 5)
    truth = rng.integers(0, k, n)
    predicted = rng.integers(0, k, n)
    if kind == "one answer":
        predicted[:] = 3
    elif kind == "two alike":
        predicted = np.where(truth < 2, rng.integers(0, 2, n), truth)
    elif kind == "rare class only":
        truth, predicted = (rng.random(n) < 0.1).astype(np.int64), np.ones(n, np.int64)
    answers = {"val": Answers(probabilities=np.eye(k)[predicted], truth=truth.astype(np.int64))}
    assert not findings(Case(answers=answers), class_map_permuted)


def _blind(training: Training) -> None:
    seeing = training.model.forward
    training.model.forward = lambda images: seeing(images * 0)


@pytest.mark.parametrize("plant", [_blind, constant_rate(1e-7)], ids=["zeroed", "not trained"])
def test_a_model_that_does_without_its_inputs_is_seen(plant: Plant) -> None:
    found = findings(patient(plant, epochs=2), inputs_ignored)["inputs-ignored"]
    assert found.certainty == "observed"
    assert found.evidence["loss"] > 0.95 * found.evidence["loss_without_images"]


def _erased(training: Training) -> None:
    """Nine of ten training images of the first class lose what they show, once the model has learnt without that."""
    plain = training.train

    def erase(images: Tensor) -> Tensor:
        return torch.where(torch.rand(len(images), 1, 1, 1) < 0.9, images.mean((2, 3), keepdim=True), images)

    training.train = Remapped(plain, erase)


def test_classes_that_augmentation_takes_away_are_seen() -> None:
    case = patient(epochs=6)
    assert case.training is not None
    assert not findings(case, augmentation_changes_classes)
    _erased(case.training)
    found = findings(Case(training=case.training), augmentation_changes_classes)["augmentation-changes-classes"]
    assert found.certainty == "observed"
    assert all(plain >= 0.9 > 0.5 > lost for plain, lost in found.evidence["recall_plain_and_augmented"].values())


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 6},
        {"kind": "mlp", "epochs": 6},
        {"kind": "segmenter", "epochs": 2},
        {"kind": "regression", "scheduler": "none", "epochs": 5},
        {"dropout": 0.5, "epochs": 4},
        {"num_val": 40, "epochs": 5},
        {"wrong": 0.3, "epochs": 6},
        {"shift": 3, "epochs": 6},
        {"optimizer": "sgd", "norm": "group", "epochs": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [1])
def test_healthy_trainings_are_let_be(recipe: dict[str, Any], seed: int) -> None:
    case = patient(seed=seed, **recipe)
    assert not findings(case, class_map_permuted, inputs_differ, inputs_ignored, augmentation_changes_classes)


def test_validation_in_another_order_each_time_is_compared_image_by_image() -> None:
    case = patient(epochs=4)
    training = case.training
    assert training is not None
    images, labels = training.val.dataset.tensors  # type: ignore[attr-defined]
    training.val = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images * 40 + 100, labels), 32, shuffle=True
    )
    found = findings(Case(training=training), inputs_differ)["inputs-differ"]
    assert found.evidence["after"] > 0.7
