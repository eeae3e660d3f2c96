"""Training labels judged by those of validation: faults that only training has are confirmed and named; sides that are
labelled alike are silent, also where training images are harder or fewer of some class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from audit_features import Seen, seen
from snellen.audit.label_order import labels_carry_nothing
from snellen.audit.labels import classes_confused, suspect_labels
from snellen.core.finding import Finding

Relabel = Callable[[np.ndarray, np.random.Generator], np.ndarray]
CLASSES = 4


def with_sides(seed: int, *, hardness: float = 0.55, num: int = 600) -> Seen:
    data = seen(seed, num=num, classes=CLASSES, hardness=hardness)
    data.give_sides(seed)
    return data


def relabelled(data: Seen, relabel: Relabel, seed: int = 0) -> Seen:
    """The labels of training alone."""
    rng, train = np.random.default_rng(seed), data.on("train")
    codes = np.array([int(label.split()[1]) for label in data.labels()])
    codes[train] = relabel(codes[train], rng)
    data.relabel([f"kind {code}" for code in codes])
    return data


def some(share: float) -> Relabel:
    return lambda codes, rng: np.where(
        rng.random(len(codes)) < share, (codes + rng.integers(1, CLASSES, len(codes))) % CLASSES, codes
    )


def merged(share: float) -> Relabel:
    return lambda codes, rng: np.where((codes == 1) & (rng.random(len(codes)) < share), 2, codes)


def diagnoses(data: Seen) -> dict[str, Finding]:
    subject = data.subject()
    checks = (labels_carry_nothing, suspect_labels, classes_confused)
    found = [finding for check in checks for finding in check(subject)]
    return {finding.code: finding for finding in found if finding.is_diagnosis}


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_labels_that_are_wrong_in_training_alone_are_confirmed(share: float) -> None:
    finding = diagnoses(relabelled(with_sides(0), some(share)))["suspect-labels"]
    told = finding.evidence["other_side"]
    assert told["told_of_side"] > told["told_of_train"] + share / 2
    assert told["side"] == "val" and told["p"] < 1e-4


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_class_that_training_calls_another_is_named_and_called_back(share: float) -> None:
    data = with_sides(3)
    right = data.labels()
    finding = diagnoses(relabelled(data, merged(share)))["classes-confused"]
    (pair,) = finding.evidence["pairs"]
    assert (pair["looks_like"], pair["called"]) == ("kind 1", "kind 2")
    truth = {record.id: label for record, label in zip(data.records, right, strict=True)}
    changes = finding.treatment["overlay"]
    sides = {record.id: record.split for record in data.records}
    assert all(sides[change["image"]] == "train" for change in changes)
    assert np.mean([truth[change["image"]] == change["value"] for change in changes]) > 0.9
    assert len(changes) > 0.7 * share * sum(label == "kind 1" and sides[key] == "train" for key, label in truth.items())


def test_shuffled_training_labels_carry_nothing_and_that_is_sure() -> None:
    found = diagnoses(relabelled(with_sides(1, num=800), lambda codes, rng: rng.permutation(codes)))
    finding = found["labels-carry-nothing"]
    assert finding.severity == "serious" and finding.evidence["told_of_train_by_train"] < 0.35
    assert "suspect-labels" not in found


@pytest.mark.parametrize("seed", range(4))
def test_sides_that_are_labelled_alike_are_silent(seed: int) -> None:
    assert not diagnoses(with_sides(seed, hardness=(0.4, 0.8, 1.2, 1.6)[seed % 4]))


@pytest.mark.parametrize("seed", range(2))
def test_training_images_that_are_harder_are_no_wrong_labels(seed: int) -> None:
    data = with_sides(seed)
    train = data.on("train")
    data.features[train] += 0.35 * np.random.default_rng(seed).normal(size=data.features[train].shape)
    assert not diagnoses(data)


@pytest.mark.parametrize("seed", range(2))
def test_classes_that_are_rare_in_training_are_no_confused_classes(seed: int) -> None:
    data = with_sides(seed, num=700)
    codes = np.array([int(label.split()[1]) for label in data.labels()])
    kept = ~data.on("train") | (np.random.default_rng(seed).random(len(codes)) < np.geomspace(1, 0.05, CLASSES)[codes])
    data.records = [record for record, is_kept in zip(data.records, kept, strict=True) if is_kept]
    data.features = data.features[kept]
    assert not diagnoses(data)


def test_a_split_by_lot_is_not_asked() -> None:
    data = seen(0, classes=CLASSES)
    assert data.subject().other_side is None
