"""What the audit says of labels from what a network sees: each fault is found and named, and healthy data is silent."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

import audit_features as faults
from audit_features import Seen, seen
from snellen.audit.label_order import class_map_permuted, labels_carry_nothing
from snellen.audit.labels import classes_confused, suspect_labels
from snellen.audit.outliers import order_not_random, outliers
from snellen.core.finding import Finding

CHECKS = (class_map_permuted, labels_carry_nothing, suspect_labels, classes_confused, outliers, order_not_random)


def found_in(data: Seen) -> dict[str, Finding]:
    subject = data.subject()
    return {finding.code: finding for check in CHECKS for finding in check(subject)}


@pytest.mark.parametrize(
    ("plant", "codes", "certainty"),
    [
        (faults.wrong_labels, {"suspect-labels"}, "observed"),
        (faults.one_class_called_another, {"suspect-labels", "classes-confused"}, "observed"),
        (faults.shuffled_labels, {"labels-carry-nothing"}, "observed"),
        (faults.labels_of_the_row_above, {"labels-shifted"}, "confirmed"),
        (faults.classes_numbered_anew, {"class-map-permuted"}, "confirmed"),
        (faults.strangers, {"outliers"}, "observed"),
    ],
)
def test_planted_fault_is_found_with_evidence(plant: Callable[[int], Seen], codes: set[str], certainty: str) -> None:
    found = found_in(plant(0))
    assert found.keys() == codes
    for finding in found.values():
        assert finding.images and finding.evidence and finding.message.endswith(".")
        assert finding.certainty in (certainty, "confirmed")
        json.dumps(finding.to_json())


@pytest.mark.parametrize("seed", range(6))
def test_healthy_data_is_silent(seed: int) -> None:
    data = seen(seed, num=240, classes=2 + seed % 3, hardness=(0.4, 0.8, 1.3)[seed % 3])
    if seed % 2:
        data.give_sides(seed)
    data.format = "table"
    assert found_in(data) == {}


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_very_different_sizes_that_are_hard_to_tell_are_silent(seed: int) -> None:
    data = seen(seed, num=300, classes=10, hardness=1.5)
    data.relabel(["rare" if label == "kind 0" else "common" for label in data.labels()])
    assert found_in(data) == {}


def test_too_few_images_or_no_features_say_nothing() -> None:
    few = seen(0, num=40)
    few.relabel(list(np.random.default_rng(0).permutation(few.labels())))
    assert found_in(few) == {}


def test_suspects_are_the_wrong_labels_and_only_the_training_side_is_corrected() -> None:
    data = seen(5, num=800)
    right = data.labels()
    wrong = faults.mislabelled(data, 0.1, 5)
    data.give_sides(5)
    finding = found_in(data)["suspect-labels"]
    ids = {record.id for record, is_wrong in zip(data.records, wrong, strict=True) if is_wrong}
    assert len(ids & set(finding.images)) >= 0.9 * len(finding.images)
    low, _, high = finding.evidence["num_wrong"]
    assert low <= wrong.sum() <= high
    truth = {record.id: label for record, label in zip(data.records, right, strict=True)}
    changes = finding.treatment["overlay"]
    side = {record.id: record.split for record in data.records}
    assert changes and all(side[change["image"]] == "train" for change in changes)
    assert np.mean([truth[change["image"]] == change["value"] for change in changes]) > 0.9


def test_labels_are_moved_back_to_their_rows() -> None:
    data = faults.labels_of_the_row_above(1)
    finding = found_in(data)["labels-shifted"]
    assert finding.evidence["shift"] == 1
    below = dict(zip([record.id for record in data.records[:-1]], data.labels()[1:], strict=True))
    assert all(below[change["image"]] == change["value"] for change in finding.treatment["overlay"])


def test_the_order_of_the_classes_is_read_off() -> None:
    data = faults.classes_numbered_anew(2)
    meant = found_in(data)["class-map-permuted"].evidence["meant"]
    assert meant == {"kind 0": "kind 3", "kind 1": "kind 0", "kind 2": "kind 1", "kind 3": "kind 2"}


def test_the_direction_of_a_confusion_is_told() -> None:
    pairs = found_in(faults.one_class_called_another(1))["classes-confused"].evidence["pairs"]
    assert [(pair["looks_like"], pair["called"]) for pair in pairs] == [("kind 1", "kind 2")]


def test_frames_of_a_film_are_told_where_the_list_has_an_order_of_its_own() -> None:
    film = faults.a_film(0)
    assert "order-not-random" in found_in(film)
    film.format = "folder"
    assert "order-not-random" not in found_in(film)
