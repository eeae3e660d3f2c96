"""Calibration error without what chance adds: nothing is found where there is nothing, and what is planted is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from snellen.metrics.calibration import (
    MAX_BINS,
    calibration_errors,
    error_by_chance,
    plain_calibration_error,
    reliability,
)
from snellen.metrics.interval import resamples
from snellen.tasks.classification.plots import charts

Answers = tuple[NDArray[np.float64], NDArray[np.bool_]]


def answers(n: int, seed: int, overconfidence: float = 0.0) -> Answers:
    """Confidences between one half and one, and whether each answer was right: less often than it says."""
    rng = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * rng.beta(4, 2, n)
    return confidence, rng.random(n) < np.clip(confidence - overconfidence, 0, 1)


def corrected(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    return float(calibration_errors(confidence[:, None], right[:, None])[0])


def resampled(confidence: NDArray[np.float64], right: NDArray[np.bool_], count: int = 200) -> NDArray[np.float64]:
    weights = np.concatenate(list(resamples(len(right), num_resamples=count)))
    return calibration_errors(confidence[:, None], right[:, None], weights)


@pytest.mark.parametrize("n", [50, 400])
def test_a_calibrated_model_shows_no_error_where_the_plain_one_finds_some(n: int) -> None:
    tests = [answers(n, seed) for seed in range(150)]
    found, plain = ([measure(*each) for each in tests] for measure in (corrected, plain_calibration_error))
    assert np.median(found) < 0.005 and np.mean(found) < 0.5 * np.mean(plain)
    assert np.median(plain) > 0.8 / n**0.5 / 2


@pytest.mark.parametrize("planted", [0.1, 0.2])
def test_planted_overconfidence_is_found_in_its_size(planted: float) -> None:
    assert np.mean([corrected(*answers(150, seed, planted)) for seed in range(60)]) == pytest.approx(planted, abs=0.012)
    lows = [np.quantile(resampled(*answers(600, seed, planted)), 0.025) for seed in range(10)]
    assert min(lows) > planted / 4  # no interval holds a calibrated model


def test_resamples_of_a_calibrated_model_reach_down_to_nothing() -> None:
    lows, highs = zip(*(np.quantile(resampled(*answers(150, seed)), (0.025, 0.975)) for seed in range(30)), strict=True)
    assert np.mean(np.array(lows) == 0) > 0.9 and max(highs) < 0.25


def test_the_squared_error_of_one_bin_is_the_mean_over_pairs_of_images() -> None:
    """With every image paired with every other, no image's own luck is squared: Kumar et al. 2019, eq. 7."""
    confidence, right = answers(19, 3, 0.3)
    off = right - confidence
    pairs = [off[i] * off[j] for i in range(19) for j in range(19) if i != j]
    assert corrected(confidence, right) == pytest.approx(np.mean(pairs) ** 0.5, rel=1e-9)


def test_what_chance_gives_is_what_calibrated_models_show() -> None:
    confidence, _ = answers(200, 0)
    rng = np.random.default_rng(1)
    shown = [plain_calibration_error(confidence, rng.random(200) < confidence) ** 2 for _ in range(1500)]
    assert error_by_chance(confidence) == pytest.approx(np.mean(shown) ** 0.5, rel=0.05)


def test_certainty_that_is_always_right_has_no_error() -> None:
    certain, right = np.ones(30), np.ones(30, bool)
    assert corrected(certain, right) == plain_calibration_error(certain, right) == error_by_chance(certain) == 0


def test_a_single_answer_says_nothing() -> None:
    assert np.isnan(corrected(np.array([0.7]), np.array([True])))


@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.booleans()), min_size=2, max_size=60))
def test_neither_order_nor_equal_confidences_matter(cases: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column) for column in zip(*cases, strict=True))
    order = np.random.default_rng(len(cases)).permutation(len(cases))
    for measure in (corrected, plain_calibration_error):
        value = measure(confidence, right)
        assert measure(confidence[order], right[order]) == pytest.approx(value, abs=1e-9)
        assert 0 <= value <= 1


def test_the_labels_of_an_image_are_answers_too() -> None:
    rng = np.random.default_rng(0)
    chances = rng.random((300, 4))
    there = rng.random((300, 4)) < chances
    honest = [calibration_errors(chances, rng.random((300, 4)) < chances)[0] for _ in range(15)]
    assert np.median(honest) < 0.015
    assert calibration_errors(chances, ~there)[0] > 0.4
    weights = np.zeros((2, 300), np.uint8)
    weights[0], weights[1, :150] = 1, 1  # the second resample has the first half alone
    half = calibration_errors(chances, ~there, weights)
    assert half.shape == (2,) and half[1] != half[0]


def test_the_band_holds_calibrated_models_nineteen_times_in_twenty() -> None:
    inside = []
    for seed in range(60):
        shown = reliability(*answers(300, seed))
        assert shown.answers.sum() == 300 and len(shown.right) <= MAX_BINS
        assert (np.diff(shown.confidence) > 0).all()
        inside.extend((shown.low <= shown.right) & (shown.right <= shown.high))
    assert 0.92 < np.mean(inside) < 0.995
    sure = reliability(*answers(300, 0, 0.3))
    assert np.mean(sure.right < sure.low) > 0.8


def test_the_reliability_diagram_says_what_is_chance_and_what_is_left() -> None:
    confidence, right = answers(400, 0, 0.25)
    truth = np.arange(400) % 2
    decided = np.where(right, truth, 1 - truth)
    scores = np.empty((400, 2))
    scores[np.arange(400), decided], scores[np.arange(400), 1 - decided] = confidence, 1 - confidence
    chart = charts(truth, scores, ["ants", "bees"], False, decided)[-1]
    assert chart.title == "Reliability" and len(chart.rows) <= MAX_BINS
    for value in (
        plain_calibration_error(confidence, right),
        error_by_chance(confidence),
        corrected(confidence, right),
    ):
        assert f"{100 * value:.1f} %" in chart.caption
    bands = [tuple(map(float, row[3].split(" to "))) for row in chart.rows]
    assert np.mean([float(row[1]) < low for row, (low, _) in zip(chart.rows, bands, strict=True)]) > 0.4
    few = charts(truth[:9], scores[:9], ["ants", "bees"], False, decided[:9])
    assert "Reliability" not in [chart.title for chart in few]


def test_a_confusion_matrix_shows_what_was_decided_not_what_was_likeliest() -> None:
    scores, truth = np.tile([0.8, 0.2], (20, 1)), np.ones(20, np.int64)
    moved = charts(truth, scores, ["ants", "bees"], False, np.ones(20, np.int64))[0]
    assert moved.rows[1] == ("bees", "0", "20")
    assert charts(truth, scores, ["ants", "bees"], False)[0].rows[1] == ("bees", "20", "0")
