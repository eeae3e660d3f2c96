"""Thresholds, and what a detector does at one of them."""

from __future__ import annotations

import numpy as np
import pytest

from found_objects import one_image, random_images
from snellen.metrics.coco_ap import match_images
from snellen.metrics.confusion import f1, pooled, precision, recall
from snellen.metrics.matching import Detections, ImageResult
from snellen.metrics.operating_point import (
    at_every_threshold,
    best_threshold,
    counts_at,
    false_alarms_in_empty_images,
    false_positives_in_absent_classes,
)

BOX, OTHER = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 140.0, 140.0)


@pytest.mark.parametrize("threshold", [0.0, 0.35, 0.8, 1.1])
def test_counts_are_those_of_matching_only_what_passes(threshold: float) -> None:
    images = random_images(0, 20, 4)
    fewer = []
    for found, true in images:
        some = found.scores >= threshold
        fewer.append(ImageResult(Detections(found.boxes[some], found.scores[some], found.labels[some]), true))
    counted, all_of_fewer = counts_at(match_images(images, 4), threshold), counts_at(match_images(fewer, 4), -np.inf)
    for one, other in zip(counted, all_of_fewer, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("label", [None, 1])
def test_the_best_threshold_has_the_highest_f1_of_all(label: int | None) -> None:
    matches = match_images(random_images(2, 30, 3), 3)

    def f1_at(threshold: float) -> float:
        counts = counts_at(matches, threshold)
        if label is not None:
            counts = type(counts)(*(each[:, [label]] for each in counts))
        total = type(counts)(*(each.sum(axis=0) for each in counts))
        return float(f1(pooled(total))[0])

    best = f1_at(best_threshold(matches, label))
    assert best == pytest.approx(max(f1_at(score) for score in np.unique(matches.score)))
    assert best == pytest.approx(np.nanmax(at_every_threshold(matches, label).f1))


def test_the_best_threshold_lies_halfway_to_the_next_lower_score() -> None:
    image = one_image([(BOX, 0.9, 0), (OTHER, 0.5, 0)], [(BOX, 0)])
    assert best_threshold(match_images([image], 1)) == pytest.approx(0.7)
    alone = one_image([(BOX, 0.9, 0)], [(BOX, 0)])
    assert best_threshold(match_images([alone], 1)) == pytest.approx(0.45)


def test_where_nothing_right_was_found_the_threshold_is_a_half() -> None:
    assert best_threshold(match_images([one_image([(OTHER, 0.9, 0)], [(BOX, 0)])], 1)) == 0.5
    assert best_threshold(match_images([one_image([], [])], 1)) == 0.5


def test_precision_and_recall_at_a_threshold() -> None:
    image = one_image([(BOX, 0.9, 0), (OTHER, 0.8, 0), (OTHER, 0.2, 1)], [(BOX, 0), (OTHER, 1)])
    counts = counts_at(match_images([image], 2), 0.5)
    assert precision(counts).tolist() == [[0.5, 0.0]]
    assert recall(counts).tolist() == [[1.0, 0.0]]


def test_false_alarms_that_average_precision_hides_are_counted() -> None:
    images = [one_image([(BOX, 0.9, 0), (OTHER, 0.9, 1), (OTHER, 0.3, 1)], [(BOX, 0)]), one_image([(BOX, 0.8, 2)], [])]
    matches = match_images(images, 3)
    assert false_positives_in_absent_classes(matches, 0.5).tolist() == [0, 1, 1]
    empty, alarmed = false_alarms_in_empty_images(matches, 0.5)
    assert empty.tolist() == alarmed.tolist() == [False, True]
    assert not false_alarms_in_empty_images(matches, 0.85)[1].any()
