"""FROC by counting at each threshold, and under resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from found_objects import one_image, random_images
from snellen.metrics.coco_ap import match_images
from snellen.metrics.froc import FALSE_POSITIVES, froc_curve, froc_recall, mean_matched_iou
from snellen.metrics.matching import ImageResult

BOX, OTHER = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 140.0, 140.0)


def plainly(images: list[ImageResult], label: int | None = None) -> list[float]:
    """The best recall at each rate, by trying every threshold."""
    matches = match_images(images, 3)
    own = np.ones(len(matches.score), bool) if label is None else matches.label == label
    total = (matches.true[0] if label is None else matches.true[0, :, label]).sum()
    best = np.zeros(len(FALSE_POSITIVES))
    for threshold in {*matches.score.tolist(), 2.0}:
        called = own & matches.judged[0, 0] & (matches.score >= threshold)
        hits = np.count_nonzero(matches.hit[0, 0] & called)
        wrong = (np.count_nonzero(called) - hits) / len(images)
        best = np.where(wrong <= np.array(FALSE_POSITIVES), np.maximum(best, hits / total), best)
    return best.tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("label", [None, 0])
def test_recall_is_the_best_that_any_threshold_gives_at_that_price(seed: int, label: int | None) -> None:
    images = random_images(seed, 30, 3)
    assert froc_recall(match_images(images, 3), label=label)[0] == pytest.approx(plainly(images, label))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=5, max_size=5).filter(any), st.integers(0, 5))
def test_an_image_that_is_drawn_twice_is_there_twice(times: list[int], seed: int) -> None:
    images = random_images(seed, 5, 3)
    copies = [image for image, number in zip(images, times, strict=True) for _ in range(number)]
    weights = np.array([times], np.uint8)
    one, other = match_images(images, 3), match_images(copies, 3)
    assert froc_recall(one, weights)[0] == pytest.approx(froc_recall(other)[0], nan_ok=True)
    assert mean_matched_iou(one, weights=weights) == pytest.approx(mean_matched_iou(other), nan_ok=True)


def test_the_curve_goes_from_nothing_found_to_all_that_was_found() -> None:
    image = one_image([(BOX, 0.9, 0), (OTHER, 0.5, 0), (BOX, 0.5, 0)], [(BOX, 0), ((0.0, 60.0, 20.0, 90.0), 1)])
    curve = froc_curve(match_images([image, one_image([], [])], 2))
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.5]
    assert curve.recall.tolist() == [0, 0.5, 0.5]
    assert curve.false_positives.tolist() == [0, 0, 1]


def test_without_true_objects_recall_is_undefined() -> None:
    matches = match_images([one_image([(BOX, 0.9, 0)], [])], 1)
    assert np.isnan(froc_recall(matches)).all()
    assert np.isnan(froc_curve(matches).recall).all()


def test_nothing_found_is_a_recall_of_0() -> None:
    matches = match_images([one_image([], [(BOX, 0)])], 1)
    assert froc_recall(matches).tolist() == [[0.0] * 7]
    assert np.isnan(mean_matched_iou(matches)).all()


def test_the_mean_iou_is_of_right_detections_that_are_sure_enough() -> None:
    half = (10.0, 10.0, 50.0, 35.0)  # 0.625 of BOX
    image = one_image([(BOX, 0.9, 0), (half, 0.4, 1), (OTHER, 0.8, 0)], [(BOX, 0), (BOX, 1)])
    matches = match_images([image], 2)
    assert mean_matched_iou(matches).tolist() == [(1 + 0.625) / 2]
    assert mean_matched_iou(matches, threshold=0.5).tolist() == [1]
