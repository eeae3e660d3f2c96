"""Labels that slipped by rows or belong to other images are told from a network that only overfits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from experiment_cases import findings, patient, training_data
from snellen.doctor.experiments.labels import labels_carry_nothing, labels_shifted
from snellen.doctor.experiments.reference import Patches, learnt, left_out

torch.set_num_threads(1)
LONG = {"epochs": 25, "dropout": 0.0}


def _shuffled(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]


@pytest.mark.parametrize(("shift", "seed"), [(1, 0), (-2, 1), (-1, 2)])
def test_labels_that_slipped_are_found_with_their_shift(shift: int, seed: int) -> None:
    case = patient(training_data(lambda images, labels: (images, labels.roll(shift))), seed=seed, epochs=2)
    found = findings(case, labels_shifted)["labels-shifted"]
    assert (found.certainty, found.evidence["shift"]) == ("confirmed", shift)
    assert found.evidence["accuracy"] > 0.7 > 0.4 > found.evidence["accuracy_as_given"]


def test_labels_of_other_images_are_found_once_they_are_learnt_by_heart() -> None:
    case = patient(training_data(_shuffled), seed=1, **LONG)
    found = findings(case, labels_carry_nothing, labels_shifted)
    assert list(found) == ["labels-carry-nothing"]
    evidence = found["labels-carry-nothing"].evidence
    assert evidence["training"] > 0.9 > 0.4 > max(evidence["validation"], evidence["reference"])


def test_labels_that_were_not_learnt_by_heart_are_no_evidence() -> None:
    assert not findings(patient(training_data(_shuffled), epochs=1), labels_carry_nothing)


@pytest.mark.parametrize(
    "recipe",
    [
        {"epochs": 4},
        {"kind": "mlp", "epochs": 8},
        {"noise": 0.9, "epochs": 4},
        {"wrong": 0.3, "epochs": 5},
        {"num": 60, "num_val": 128, "epochs": 10},
        {"num_val": 40, "epochs": 4},
        {"kind": "segmenter", "epochs": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(2))
def test_right_labels_are_let_be(recipe: dict[str, Any], seed: int) -> None:
    assert not findings(patient(seed=seed, **recipe), labels_carry_nothing, labels_shifted)


def test_sorted_images_are_not_taken_for_slipped_labels() -> None:
    def in_order(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        order = labels.argsort(stable=True)
        return images[order], labels[order]

    assert not findings(patient(training_data(in_order), epochs=4), labels_carry_nothing, labels_shifted)


def test_the_reference_learns_images_and_vectors_and_judges_each_without_its_label() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    images = rng.normal(size=(300, 3, 12, 12)).astype(np.float32)
    rows = rng.integers(0, 9, 300)
    for image, label, row in zip(images, labels, rows, strict=True):
        image[:, row : row + 3] += 2.0 if label else 0.0
        image[:, :, row : row + 3] += 0.0 if label else 2.0
    for pictures in (torch.from_numpy(images), torch.from_numpy(images[:, 0].mean(1) - images[:, 0].mean(2))):
        patches = Patches(pictures[:200], seed=0)
        answers = learnt(patches(pictures[:200]), labels[:200], patches(pictures[200:]), seed=0)
        assert (answers == labels[200:]).mean() > 0.85
    features = Patches(torch.from_numpy(images), seed=0)(torch.from_numpy(images))
    versions = np.stack([labels, rng.permutation(labels)], 1)
    shares = (left_out(features, versions, seed=0) == versions).mean(0)
    assert shares[0] > 0.9
    assert 0.35 < shares[1] < 0.65
