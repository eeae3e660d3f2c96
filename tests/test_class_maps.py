"""Numbers of class maps against scikit-learn and hotcoco, and what is said of void and of absent classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from snellen.metrics.class_maps import VOID, dice, drawn, image_iou, iou, of_pixels, pixel_confusion, pixel_counts
from snellen.metrics.confusion import Counts


def maps(seed: int, num_classes: int = 4, *, void: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A true map and one that is right on about two pixels of three."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, (17, 23)).astype(np.uint8)
    said = np.where(rng.random(truth.shape) < 0.66, truth, rng.integers(0, num_classes, truth.shape)).astype(np.uint8)
    if void:
        truth[rng.random(truth.shape) < 0.2] = VOID
    return truth, said


def counted(*pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]], num_classes: int = 4) -> Counts:
    return pixel_counts(np.stack([pixel_confusion(*pair, num_classes) for pair in pairs]))


def summed(counts: Counts) -> Counts:
    return drawn(counts, np.ones((1, len(counts.hits)), np.uint8))


@pytest.mark.parametrize("seed", range(3))
def test_every_number_is_what_scikit_learn_says_of_the_judged_pixels(seed: int) -> None:
    from sklearn import metrics as reference

    truth, said = maps(seed)
    judged = truth != VOID
    true, guessed = truth[judged], said[judged]
    assert (pixel_confusion(truth, said, 4) == reference.confusion_matrix(true, guessed, labels=range(4))).all()
    counts = summed(counted((truth, said)))
    named: dict[str, Any] = {name: values[0] for name, values in of_pixels(counts).items()}
    assert iou(counts)[0] == pytest.approx(reference.jaccard_score(true, guessed, average=None))
    assert dice(counts)[0] == pytest.approx(reference.f1_score(true, guessed, average=None))
    assert named == pytest.approx(
        {
            "mean_iou": reference.jaccard_score(true, guessed, average="macro"),
            "mean_dice": reference.f1_score(true, guessed, average="macro"),
            "pixel_accuracy": reference.accuracy_score(true, guessed),
            "mean_class_accuracy": reference.balanced_accuracy_score(true, guessed),
            "frequency_weighted_iou": reference.jaccard_score(true, guessed, average="weighted"),
        }
    )


def test_the_means_over_a_set_are_what_hotcoco_says() -> None:
    from hotcoco import metrics as reference

    pairs = [maps(seed) for seed in range(5)]
    total = sum(reference.pixel_confusion(*pair, 4, ignore_index=VOID).astype(np.int64) for pair in pairs)
    expected = reference.mean_iou(total)
    named = of_pixels(summed(counted(*pairs)))
    assert named["mean_iou"][0] == pytest.approx(expected["mIoU"])
    assert named["frequency_weighted_iou"][0] == pytest.approx(expected["fwIoU"])
    assert named["mean_class_accuracy"][0] == pytest.approx(expected["mAcc"])
    assert named["pixel_accuracy"][0] == pytest.approx(expected["aAcc"])


def test_a_class_that_is_not_in_the_truth_is_left_out_of_the_means_but_its_pixels_are_missed() -> None:
    truth = np.zeros((2, 4), np.uint8)
    said = np.array([[0, 0, 2, 2], [0, 0, 0, 0]], np.uint8)
    counts = summed(counted((truth, said), num_classes=3))
    assert np.isnan(iou(counts)[0, 1:]).all()
    assert np.isnan(dice(counts)[0, 1:]).all()
    assert of_pixels(counts)["mean_iou"][0] == iou(counts)[0, 0] == 6 / 8


def test_a_class_that_is_never_found_has_an_iou_of_0() -> None:
    truth, said = np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8)
    counts = summed(counted((truth, said), num_classes=2))
    assert iou(counts)[0].tolist() == [0.5, 0.0]
    assert of_pixels(counts)["mean_iou"][0] == 0.25


def test_what_is_said_of_void_pixels_does_not_matter() -> None:
    truth, said = maps(0)
    other = said.copy()
    other[truth == VOID] = 99
    assert (pixel_confusion(truth, said, 4) == pixel_confusion(truth, other, 4)).all()


def test_where_every_pixel_is_void_nothing_is_defined() -> None:
    empty = counted((np.full((3, 3), VOID, np.uint8), np.zeros((3, 3), np.uint8)))
    assert all(np.isnan(values).all() for values in of_pixels(summed(empty)).values())
    assert np.isnan(image_iou(empty)).all()


@pytest.mark.parametrize(
    ("truth", "said", "words"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "one size"),
        (np.full((2, 3), 4, np.uint8), np.zeros((2, 3), np.uint8), "truth: class 4"),
        (np.zeros((2, 3), np.uint8), np.full((2, 3), VOID, np.uint8), "predicted: class 255"),
    ],
)
def test_maps_that_do_not_fit_are_refused(truth: NDArray[np.uint8], said: NDArray[np.uint8], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pixel_confusion(truth, said, 4)


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_an_image_that_is_drawn_twice_counts_twice(times: list[int]) -> None:
    pairs = [maps(seed) for seed in range(4)]
    copies = [pair for pair, number in zip(pairs, times, strict=True) for _ in range(number)]
    weighted = of_pixels(drawn(counted(*pairs), np.array([times], np.uint8)))
    repeated = of_pixels(summed(counted(*copies)))
    assert {name: values[0] for name, values in weighted.items()} == {
        name: values[0] for name, values in repeated.items()
    }


def test_the_mean_of_an_image_is_over_the_classes_in_its_own_truth() -> None:
    right = np.zeros((2, 2), np.uint8)
    half, said = np.array([[1, 1], [2, 2]], np.uint8), np.array([[1, 1], [1, 1]], np.uint8)
    assert image_iou(counted((right, right), (half, said))).tolist() == [1.0, 0.25]
