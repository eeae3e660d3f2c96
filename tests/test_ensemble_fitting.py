"""Weights, votes, soups and correlations: what is fitted when models are joined, held to what is known of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snellen.core.errors import ConfigError
from snellen.ensemble.soup import greedy_soup, mean_weights, statistics_differ
from snellen.ensemble.ways import WAYS, check_fit, check_way, chosen_way, rule_of, ways_for
from snellen.ensemble.weights import Numbers, greedy_selection, halves, least_loss
from snellen.metrics.correlation import error_correlation, majority_if_independent, moments, square_of_mean
from snellen.tasks.base import TASKS
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.classification.voting import labels_of_most, mean_rank_among_images, mean_rank_of_classes, most_named


def log_loss(weights: np.ndarray, said: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log((np.tensordot(weights, said, 1) * truth).sum(1)).mean())


def answers(seed: int, kind: str, n: int = 40, count: int = 3) -> Numbers:
    rng = np.random.default_rng(seed)
    if kind == "values":
        truth = rng.normal(size=(n, 2))
        return Numbers(truth + rng.normal(size=(count, n, 2)) * rng.uniform(0.2, 2, (count, 1, 1)), truth, kind)
    if kind == "labels":
        return Numbers(rng.uniform(0.05, 0.95, (count, n, 4)), rng.integers(0, 2, (n, 4)).astype(float), kind)
    return Numbers(rng.dirichlet(np.ones(4), (count, n)), np.eye(4)[rng.integers(0, 4, n)], kind)


def loss_of(weights: np.ndarray, numbers: Numbers) -> float:
    mean = np.tensordot(weights, numbers.said, 1)
    if numbers.kind == "values":
        return float(np.mean((mean - numbers.truth) ** 2))
    if numbers.kind == "class":
        return log_loss(weights, numbers.said, numbers.truth)
    return float(-np.mean(np.where(numbers.truth == 1, np.log(mean), np.log(1 - mean))))


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["values", "labels", "class"]))
def test_no_weights_on_a_grid_have_less_loss_than_the_fitted_ones(seed: int, kind: str) -> None:
    numbers = answers(seed, kind)
    fitted = np.array(least_loss(numbers))
    assert fitted.min() >= 0 and fitted.sum() == pytest.approx(1)
    grid = [np.array(w) / 20 for w in itertools.product(range(21), repeat=3) if sum(w) == 20]
    assert loss_of(fitted, numbers) <= min(loss_of(w, numbers) for w in grid) + 2e-4  # 0.5 % may be rounded away


def test_a_model_that_only_guesses_is_left_out() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 1))
    said = np.stack([truth + 0.1 * rng.normal(size=truth.shape), 5 * rng.normal(size=truth.shape)])
    weights = least_loss(Numbers(said, truth, "values"))
    assert weights[0] > 0.98


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_greedy_selection_is_never_worse_than_the_best_alone(qualities: list[float]) -> None:
    def score(weights: tuple[float, ...]) -> float:  # more models help a little
        return float(np.dot(weights, qualities) + 0.1 * (1 - np.square(weights).sum()))

    alone = max(score(tuple(row)) for row in np.eye(len(qualities)))
    chosen = greedy_selection(len(qualities), score)
    assert sum(chosen) == pytest.approx(1) and score(chosen) >= alone - 1e-12


def test_halves_never_part_a_group_and_are_alike() -> None:
    units = [f"patient {i // 3}" for i in range(60)]
    kinds = [("ill",) if i < 30 else ("well",) for i in range(60)]
    first = halves(units, kinds, seed=3)
    assert not {u for u, f in zip(units, first, strict=True) if f} & {
        u for u, f in zip(units, first, strict=True) if not f
    }
    assert first[:30].sum() == first[30:].sum() == 15
    assert (halves(units, kinds, seed=4) != first).any()


# ---- correlation


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0, 3))
def test_the_formula_with_correlation_is_what_the_mean_reaches(seed: int, count: int, shared: float) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(count, 50)) + shared * rng.normal(size=50)
    found = moments(errors)
    reached = float(np.mean(errors.mean(axis=0) ** 2))
    assert square_of_mean(found.square, count, found.correlation) == pytest.approx(reached)


def test_independent_errors_shrink_as_the_textbook_says() -> None:
    errors = np.random.default_rng(0).normal(size=(4, 200_000))
    found = moments(errors)
    assert abs(found.correlation) < 0.01 and square_of_mean(1.0, 4) == 0.25
    assert np.mean(errors.mean(axis=0) ** 2) == pytest.approx(square_of_mean(found.square, 4), rel=0.02)
    np.testing.assert_allclose(error_correlation(errors), np.eye(4), atol=0.02)


@given(st.floats(0, 1))
def test_a_majority_of_three_is_the_textbooks(error: float) -> None:
    right = 1 - (error**3 + 3 * (1 - error) * error**2)
    assert majority_if_independent([1 - error] * 3) == pytest.approx(right)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_a_majority_of_unequal_rates_is_the_sum_over_all_outcomes(rates: list[float]) -> None:
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=len(rates)):
        chance = float(np.prod([r if right else 1 - r for r, right in zip(rates, outcome, strict=True)]))
        votes = 2 * sum(outcome) - len(rates)
        total += chance * (1.0 if votes > 0 else 0.5 if votes == 0 else 0.0)
    assert majority_if_independent(rates) == pytest.approx(total)


# ---- votes and ranks


def label(*scores: float) -> Label:
    return Label(int(np.argmax(scores)), np.array(scores, np.float32))


def test_most_votes_win_over_the_surest_model_and_a_tie_goes_to_the_more_likely() -> None:
    surest, two = label(0.98, 0.02, 0.0), label(0.4, 0.6, 0.0)
    (voted,) = most_named([[surest], [two], [two]])
    assert voted.index == 1 and voted.scores == pytest.approx([1 / 3, 2 / 3, 0])
    (tied,) = most_named([[surest], [two]])
    assert tied.index == 0


def test_mean_rank_of_classes_is_bordas_count() -> None:
    said = [[label(0.5, 0.4, 0.1)], [label(0.05, 0.5, 0.45)], [label(0.5, 0.3, 0.2)]]
    (ranked,) = mean_rank_of_classes(said)  # points 7, 7, 4: the likelier of the first two
    assert ranked.scores == pytest.approx(np.array([7, 7, 4]) / 18) and ranked.index == 1


def sets(scores: np.ndarray) -> list[LabelSet]:
    return [LabelSet(row >= 0.5, row.astype(np.float32)) for row in scores]


def test_labels_are_those_that_most_models_find() -> None:
    said = [sets(np.array([[0.9, 0.6, 0.1]])), sets(np.array([[0.6, 0.4, 0.2]])), sets(np.array([[0.1, 0.3, 0.6]]))]
    (voted,) = labels_of_most(said)
    assert voted.present.tolist() == [True, False, False]


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_ranks_among_images_do_not_care_how_a_model_scales_its_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, reference = rng.uniform(0.01, 0.99, (2, 9, 3)), rng.uniform(0.01, 0.99, (2, 30, 3))
    plain = mean_rank_among_images([sets(each) for each in scores], reference.astype(np.float32))
    scores[1], reference[1] = scores[1] / 8, reference[1] / 8  # by a power of two: no score is rounded
    scaled = mean_rank_among_images([sets(each) for each in scores], reference.astype(np.float32))
    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_ways_that_do_not_fit_are_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        check_way("meen")
    with pytest.raises(ConfigError, match="use mean or weighted or soup"):
        check_fit("vote", "detection")
    for task in TASKS:
        for way in WAYS:
            assert (way in ways_for(task)) or rule_of(task, way) is None
            if way in ("vote", "rank") and way in ways_for(task):
                assert callable(rule_of(task, way))


def test_objects_are_weighed_where_there_are_images_to_fit_by_and_the_reason_is_told() -> None:
    assert chosen_way("auto", "detection", 8)[0] == chosen_way("auto", "instances", 100)[0] == "weighted"
    way, reason = chosen_way("auto", "detection", 7)
    assert way == "mean" and "7 validation images are too few" in reason
    assert {chosen_way("auto", task, 100)[0] for task in ("classification", "segmentation", "regression")} == {"mean"}
    assert chosen_way("vote", "classification", 0) == ("vote", "")


# ---- soups


def test_greedy_soup_takes_in_only_what_does_not_harm() -> None:
    good = {(0,): 0.8, (0, 1): 0.7, (0, 2): 0.8, (0, 2, 3): 0.9}
    assert greedy_soup([0, 1, 2, 3], lambda chosen: good[chosen]) == (0, 2, 3)


def test_mean_weights_are_means_and_counters_are_kept() -> None:
    nets = [nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(3)]
    states = [net.state_dict() for net in nets]
    mixed = mean_weights(states)
    torch.testing.assert_close(mixed["0.weight"], torch.stack([each["0.weight"] for each in states]).mean(0))
    assert mixed["1.num_batches_tracked"].dtype == torch.int64
    assert not statistics_differ(states)
    nets[1](torch.randn(4, 3, 2, 2))
    assert statistics_differ([net.state_dict() for net in nets])
