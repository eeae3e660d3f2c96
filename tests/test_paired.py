"""Statistics of differences: exact where they can be, and true to their promise in simulation where they cannot."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.metrics.interval import resamples, wilson
from snellen.metrics.paired import (
    Difference,
    corrected_t_interval,
    images_for,
    images_for_mcnemar,
    mcnemar,
    paired_bootstrap,
    seeds_interval,
)

COUNTS = st.integers(0, 60)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_exact_binomial_tail(only_first: int, only_second: int) -> None:
    n, few = only_first + only_second, min(only_first, only_second)
    tail = Fraction(sum(math.comb(n, k) for k in range(few + 1)), 2**n)
    assert mcnemar(only_first, only_second) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 5), (3, 11), (40, 75), (1200, 1310), (7, 7)])
def test_mcnemar_is_that_of_scipy(only_first: int, only_second: int) -> None:
    from scipy.stats import binomtest

    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_refuses_what_is_no_count() -> None:
    with pytest.raises(ValueError, match="0 or more, got -1 and 2"):
        mcnemar(-1, 2)


@pytest.mark.parametrize(("only_first", "only_second", "n"), [(12, 20, 100), (5, 25, 200), (30, 60, 150)])
def test_as_many_images_as_said_show_the_difference_four_times_in_five(
    only_first: int, only_second: int, n: int
) -> None:
    needed = images_for_mcnemar(only_first, only_second, n)
    assert needed is not None
    rng = np.random.default_rng(0)
    shares = [only_first / n, only_second / n, 1 - (only_first + only_second) / n]
    drawn = rng.multinomial(needed, shares, size=1000)
    power = np.mean([mcnemar(int(first), int(second)) < 0.05 for first, second, _ in drawn])
    assert 0.74 < power < 0.86  # the exact test is a little more careful than the formula, which is for its limit


def test_images_for_any_metric_give_the_power_that_was_asked_for() -> None:
    rng = np.random.default_rng(1)
    deviation, difference, n = 0.5, 0.04, 300
    needed = images_for(difference, deviation / math.sqrt(n), n)
    assert needed is not None
    means = rng.normal(difference, deviation / math.sqrt(needed), 4000)
    assert np.mean(np.abs(means) > 1.96 * deviation / math.sqrt(needed)) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("needed", [images_for_mcnemar(4, 4, 90), images_for(0.0, 0.1, 90), images_for(0.1, 0.0, 90)])
def test_no_number_of_images_shows_what_is_not_there(needed: int | None) -> None:
    assert needed is None


# ---- the paired bootstrap


def test_paired_interval_holds_the_truth_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    n, held, trials = 150, 0, 150
    shares = (0.10, 0.18, 0.72)  # only the first is right, only the second, both alike
    weights = np.concatenate(list(resamples(n, num_resamples=400, seed=3))).astype(float)
    for _ in range(trials):
        kinds = rng.choice(3, size=n, p=shares)
        first, second = kinds != 1, kinds != 0
        low, high = paired_bootstrap(second.mean() - first.mean(), weights @ first / n, weights @ second / n, n)
        held += low <= 0.08 <= high
    assert held / trials > 0.90


def test_pairing_is_what_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(4)
    right = rng.random(400) < 0.7
    better = right | (rng.random(400) < 0.05)
    weights = np.concatenate(list(resamples(400, num_resamples=500, seed=0))).astype(float)
    one, two = weights @ right / 400, weights @ better / 400
    low, high = paired_bootstrap(better.mean() - right.mean(), one, two, 400)
    apart_low, apart_high = paired_bootstrap(better.mean() - right.mean(), one, rng.permutation(two), 400)
    assert 0 < low and (high - low) < 0.5 * (apart_high - apart_low)


def test_models_that_never_differ_are_not_called_equal_for_certain() -> None:
    same = np.full(100, 0.9)
    low, high = paired_bootstrap(0.0, same, same, 50)
    assert (low, high) == pytest.approx((-wilson(0, 50)[1], wilson(0, 50)[1]))


def test_interval_holds_the_difference_itself_and_says_when_there_is_none() -> None:
    assert paired_bootstrap(0.5, np.zeros(9), np.linspace(0, 0.1, 9), 9)[1] == 0.5
    assert paired_bootstrap(0.5, np.full(9, np.nan), np.zeros(9), 9) == (-math.inf, math.inf)


# ---- over seeds and folds


def test_interval_over_seeds_and_images_holds_the_truth_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    n, held, trials = 200, 0, 300
    for _ in range(trials):
        ease = rng.normal(0, 0.3, n)  # the images are shared, and so is what is hard about them
        arms = [
            [ease * gain + base + rng.normal(0, 0.02) + rng.normal(0, 0.1, n) for _ in range(3)]
            for base, gain in ((0.0, 1.0), (0.05, 1.2))
        ]
        gap = np.mean(arms[1], axis=0) - np.mean(arms[0], axis=0)
        low, high = seeds_interval(
            [float(run.mean()) for run in arms[0]],
            [float(run.mean()) for run in arms[1]],
            float(gap.var(ddof=1) / n),
            n,
        )
        held += low <= 0.05 <= high
    assert 0.93 <= held / trials


def test_interval_over_seeds_without_images_is_welchs() -> None:
    from scipy.stats import ttest_ind

    first, second = [0.90, 0.92, 0.91, 0.95], [0.93, 0.99, 0.97]
    span = ttest_ind(second, first, equal_var=False).confidence_interval()
    assert seeds_interval(first, second, 0.0, 100) == pytest.approx((span.low, span.high), rel=1e-9)


def test_runs_that_all_say_the_same_are_not_called_equal_for_certain() -> None:
    low, high = seeds_interval([0.9, 0.9], [0.9, 0.9], 0.0, 40)
    assert low == -high and high == wilson(0, 40)[1]


def test_interval_over_folds_is_students_but_for_the_images_that_they_share() -> None:
    from scipy.stats import t

    values = [0.91, 0.94, 0.90, 0.97, 0.93]
    error = np.std(values, ddof=1) / math.sqrt(5)
    expected = t.interval(0.95, 4, np.mean(values), error)
    assert corrected_t_interval(values, 0.0) == pytest.approx(expected, rel=1e-9)
    low, high = corrected_t_interval(values, 1 / 4)  # five folds: 1/5 + 1/4 of the variance instead of 1/5
    assert (high - low) / (expected[1] - expected[0]) == pytest.approx(math.sqrt((1 / 5 + 1 / 4) / (1 / 5)))


@pytest.mark.parametrize("call", [lambda: corrected_t_interval([0.9], 0.2), lambda: seeds_interval([1.0], [1.0], 0, 9)])
def test_one_run_has_no_spread(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="two"):
        call()


@pytest.mark.parametrize(
    ("low", "high", "p", "shown"),
    [
        (0.01, 0.05, None, True),
        (-0.05, -0.01, 0.01, True),
        (-0.01, 0.05, 0.01, False),
        (0.01, 0.05, 0.06, False),  # five images in a row are no proof, though no resample is without them
        (None, None, None, False),
    ],
)
def test_shown_is_what_interval_and_test_agree_on(
    low: float | None, high: float | None, p: float | None, shown: bool
) -> None:
    assert Difference(value=0.02, low=low, high=high, p=p, method="").is_shown is shown
