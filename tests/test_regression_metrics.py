"""Metrics of numbers against scikit-learn and SciPy, and what they say where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from snellen.core.errors import DataError, DivergenceError
from snellen.core.estimate import Estimate
from snellen.metrics.interval import group_codes, resamples
from snellen.tasks.regression.metrics import RegressionMetrics
from snellen.tasks.regression.target import Values

Floats = NDArray[np.float64]


def measured(truth: Floats, predicted: Floats, names: tuple[str, ...] = ("age",), **how: object) -> dict[str, Estimate]:
    """truth and predicted [n] or [n, k]"""
    metrics = filled(truth, predicted, names)
    return metrics.compute(**{"intervals": False, **how})  # type: ignore[arg-type]


def filled(truth: Floats, predicted: Floats, names: tuple[str, ...] = ("age",)) -> RegressionMetrics:
    metrics = RegressionMetrics(names)
    k = len(names)
    metrics.update(*([Values(row) for row in each.reshape(-1, k).astype(np.float32)] for each in (predicted, truth)))
    return metrics


def oracle(truth: Floats, predicted: Floats) -> dict[str, float]:
    from scipy import stats
    from sklearn import metrics as reference

    return {
        "r2": reference.r2_score(truth, predicted),
        "mae": reference.mean_absolute_error(truth, predicted),
        "rmse": reference.root_mean_squared_error(truth, predicted),
        "median_absolute_error": reference.median_absolute_error(truth, predicted),
        "bias": float(np.mean(predicted - truth)),
        "pearson": float(stats.pearsonr(truth, predicted)[0]),
        "spearman": float(stats.spearmanr(truth, predicted)[0]),
    }


def drawn(seed: int, n: int, *, rounded: bool = False, middle: float = 0.0) -> tuple[Floats, Floats]:
    """Truth and predictions that go with it, as float32 holds them; ``rounded`` has many ties."""
    rng = np.random.default_rng(seed)
    truth = middle + rng.normal(0, 10, n)
    predicted = truth + rng.normal(1, 5, n)
    if rounded:
        truth, predicted = np.round(truth / 5), np.round(predicted / 5)
    return truth.astype(np.float32).astype(np.float64), predicted.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("n", [2, 3, 40, 41])
@pytest.mark.parametrize(("rounded", "middle"), [(False, 0.0), (True, 0.0), (False, 1990.0)])
def test_every_metric_is_what_scikit_learn_and_scipy_say(n: int, rounded: bool, middle: float) -> None:
    truth, predicted = drawn(n, n, rounded=rounded, middle=middle)
    found = measured(truth, predicted)
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(oracle(truth, predicted))
    assert all(estimate.n == n for estimate in found.values())


@given(st.integers(0, 1000), st.booleans())
def test_a_resample_is_measured_as_the_images_that_it_drew(seed: int, rounded: bool) -> None:
    truth, predicted = drawn(seed, 15, rounded=rounded)
    found = filled(truth, predicted).resampled(seed=seed)
    (first,) = next(resamples(15, seed=seed))[:1]
    drawn_truth, drawn_predicted = np.repeat(truth, first), np.repeat(predicted, first)
    for name, value in oracle(drawn_truth, drawn_predicted).items():
        assert found[name][0] == pytest.approx(value, abs=1e-6), name


def test_groups_are_drawn_whole() -> None:
    truth, predicted = drawn(3, 40)
    groups = [f"patient {i // 4}" for i in range(40)]
    found = filled(truth, predicted).resampled(groups=groups, seed=5)
    (first,) = next(resamples(40, groups=group_codes(groups), seed=5))[:1]
    assert all(len(set(first[i : i + 4])) == 1 for i in range(0, 40, 4))
    assert found["mae"][0] == pytest.approx(np.average(np.abs(predicted - truth), weights=first))
    by_image, by_group = (measured(truth, predicted, intervals=True, groups=each) for each in (None, groups))
    assert by_image["r2"].method == "bootstrap" and by_group["r2"].method == "bootstrap over groups"


def test_intervals_hold_the_value_and_narrow_with_more_images() -> None:
    few, many = (measured(*drawn(1, n), intervals=True) for n in (30, 1000))
    for name, estimate in few.items():
        assert estimate.low is not None and estimate.high is not None and estimate.low <= estimate.value
        assert estimate.value <= estimate.high
        wide = many[name]
        assert wide.low is not None and wide.high is not None
        assert wide.high - wide.low < 0.5 * (estimate.high - estimate.low), name


def test_interval_of_the_mean_absolute_error_holds_the_truth_as_often_as_it_says() -> None:
    expected = np.sqrt(2 / np.pi)
    held = 0
    for seed in range(100):
        errors = np.random.default_rng(seed).normal(0, 1, 60)
        estimate = measured(np.zeros(60), errors, intervals=True)["mae"]
        assert estimate.low is not None and estimate.high is not None
        held += estimate.low <= expected <= estimate.high
    assert 87 <= held <= 99


@pytest.mark.parametrize(
    ("truth", "predicted", "left"),
    [
        (np.full(6, 3.0), np.arange(6.0), {"mae", "rmse", "median_absolute_error", "bias"}),
        (np.arange(6.0), np.full(6, 3.0), {"r2", "mae", "rmse", "median_absolute_error", "bias"}),
        (np.full(6, 0.1), np.full(6, 0.1), {"mae", "rmse", "median_absolute_error", "bias"}),
        (np.array([4.0]), np.array([5.0]), {"mae", "rmse", "median_absolute_error", "bias"}),
    ],
    ids=["constant truth", "constant prediction", "both constant", "one image"],
)
@pytest.mark.parametrize("intervals", [False, True])
def test_what_is_undefined_is_left_out(truth: Floats, predicted: Floats, left: set[str], intervals: bool) -> None:
    found = measured(truth, predicted, intervals=intervals)
    assert found.keys() == left
    assert all(np.isfinite(estimate.value) for estimate in found.values())


def test_one_image_has_no_interval() -> None:
    estimate = measured(np.array([4.0]), np.array([5.0]), intervals=True)["mae"]
    assert (estimate.value, estimate.low, estimate.method) == (1.0, None, "none (fewer than two images)")


def test_saying_the_mean_of_these_very_images_is_zero_and_anything_constant_is_no_better() -> None:
    truth, _ = drawn(0, 50)
    assert measured(truth, np.full(50, truth.mean()))["r2"].value == pytest.approx(0, abs=1e-6)
    assert measured(truth, np.full(50, truth.mean() + 3))["r2"].value < 0


def test_several_outputs_have_their_own_numbers_and_share_those_without_a_unit() -> None:
    one, other = drawn(0, 30), drawn(1, 30, middle=500)
    both = measured(*(np.stack([one[i], other[i]], axis=1) for i in (0, 1)), ("age", "weight"))
    for name, (truth, predicted) in (("age", one), ("weight", other)):
        alone = oracle(truth, predicted)
        assert {metric: both[f"{metric}/{name}"].value for metric in alone} == pytest.approx(alone, rel=1e-5)
    for metric in ("r2", "pearson", "spearman"):
        mean = (both[f"{metric}/age"].value + both[f"{metric}/weight"].value) / 2
        assert both[metric].value == pytest.approx(mean)
    assert not {"mae", "rmse", "median_absolute_error", "bias"} & both.keys()  # years and grams have no mean


def test_an_output_that_never_changes_is_in_no_mean() -> None:
    truth, predicted = drawn(0, 30)
    both = measured(np.stack([truth, np.ones(30)], 1), np.stack([predicted, predicted], 1), ("age", "weight"))
    assert "r2/weight" not in both and both["r2"].value == both["r2/age"].value


def test_nothing_to_measure_and_what_does_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="no image was given"):
        RegressionMetrics(("age",)).compute()
    with pytest.raises(ValueError, match="at least one output"):
        RegressionMetrics(())
    metrics = RegressionMetrics(("age",))
    with pytest.raises(ValueError, match=r"shape \(1,\), got \(2,\)"):
        metrics.update([Values(np.zeros(2, np.float32))], [Values(np.zeros(1, np.float32))])
    with pytest.raises(ValueError, match="as many predictions"):
        metrics.update([], [Values(np.zeros(1, np.float32))])
    with pytest.raises(ValueError, match="for each of the 2 images, got 1"):
        measured(np.arange(2.0), np.arange(2.0), groups=["a"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_a_divergence_and_named(bad: float) -> None:
    predicted = [Values(np.array([value], np.float32)) for value in (1.0, bad)]
    with pytest.raises(DivergenceError, match="prediction 1 of a batch of 2 is not finite"):
        RegressionMetrics(("age",)).update(predicted, predicted)
