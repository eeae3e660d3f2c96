"""Curves: each planted fault is told, and healthy trainings, ugly ones among them, are left in peace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import drawn_histories as drawn
from drawn_answers import answers
from snellen.core.finding import Finding, run_checks
from snellen.doctor.case import Case, History
from snellen.doctor.curves.checks import CURVE_CHECKS
from snellen.doctor.curves.selection import winners_curse
from snellen.metrics.trend import trend

CLASSES = tuple(str(i) for i in range(10))
PLANTED: list[tuple[Callable[[np.random.Generator], History], str, str]] = [
    (drawn.over_fitted, "overfitting", "warning"),
    (drawn.flat, "flat-loss", "warning"),
    (drawn.diverged, "unstable", "warning"),
    (drawn.spiked, "loss-spikes", "warning"),
]


def found_in(history: History, **case: object) -> dict[str, Finding]:
    case = {"classes": CLASSES, **case}
    return {finding.code: finding for finding in run_checks(CURVE_CHECKS, Case(history=history, **case))}  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("plant", "code", "severity"), PLANTED, ids=[code for _, code, _ in PLANTED])
def test_planted_fault_is_told_with_evidence(
    plant: Callable[[np.random.Generator], History], code: str, severity: str, seed: int
) -> None:
    finding = found_in(plant(np.random.default_rng(seed)))[code]
    assert finding.severity == severity and finding.certainty == "observed"
    assert finding.evidence and finding.advice and finding.message.endswith(".")


@pytest.mark.parametrize("make", drawn.HEALTHY, ids=[make.__name__ for make in drawn.HEALTHY])
def test_healthy_histories_are_left_in_peace(make: Callable[[np.random.Generator], History]) -> None:
    for seed in range(12):
        assert found_in(make(np.random.default_rng(seed))) == {}


@pytest.mark.parametrize("plant", [drawn.unfinished, drawn.spent_early])
def test_a_fault_that_needs_a_clear_curve_is_told_for_most(plant: Callable[[np.random.Generator], History]) -> None:
    code = {"unfinished": "still-falling", "spent_early": "rate-fell-early"}[plant.__name__]
    told = [found_in(plant(np.random.default_rng(seed))) for seed in range(10)]
    assert sum(code in each for each in told) >= 5
    assert all(each.keys() <= {code} for each in told)


@pytest.mark.parametrize("plant", [drawn.unfinished, drawn.spent_early, drawn.flat])
def test_nothing_is_said_of_the_end_of_a_training_that_was_cut(plant: Callable[[np.random.Generator], History]) -> None:
    told = [found_in(plant(np.random.default_rng(seed))) for seed in range(4)]
    cut = [found_in(replace(plant(np.random.default_rng(seed)), cut=True)) for seed in range(4)]
    assert any(told) and not any(cut)


def test_a_score_that_holds_makes_it_over_confidence() -> None:
    found = found_in(drawn.over_fitted(np.random.default_rng(0), score_falls=False))
    assert found.keys() == {"over-confident"} and found["over-confident"].severity == "info"


def test_a_training_loss_that_rises_too_is_no_over_fitting() -> None:
    history = drawn.over_fitted(np.random.default_rng(0))
    assert found_in(replace(history, train_losses=history.val_losses)) == {}


def test_the_broken_image_of_the_spikes_is_named() -> None:
    assert list(found_in(drawn.spiked(np.random.default_rng(3)))["loss-spikes"].images) == ["7.jpg"]


def test_a_flat_loss_is_not_told_of_a_model_that_beats_the_prior() -> None:
    told = answers(np.random.default_rng(0), shares=[0.1] * 10)
    assert told.correct.mean() > 0.5
    assert "flat-loss" not in found_in(drawn.flat(np.random.default_rng(0)), answers={"val": told})


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_a_loss_that_is_no_number_is_certain(broken: float) -> None:
    history = drawn.converged(np.random.default_rng(0))
    losses = history.step_losses.copy()
    losses[200:] = broken
    finding = found_in(replace(history, step_losses=losses))["loss-not-finite"]
    assert finding.certainty == "certain" and finding.severity == "serious" and finding.evidence["step"] == 200


def test_values_that_were_not_written_down_are_no_broken_loss() -> None:
    history = drawn.converged(np.random.default_rng(0))
    sparse = history.step_losses.copy()
    sparse[1::2] = np.nan
    assert "loss-not-finite" not in found_in(replace(history, step_losses=sparse))
    assert found_in(History()) == {}


def test_the_winner_of_many_noisy_epochs_flatters() -> None:
    rng = np.random.default_rng(0)
    luck = [rng.binomial(200, 0.85, 20) / 200 for _ in range(200)]
    true = float(np.mean([scores.max() - 0.85 for scores in luck]))
    assert np.mean([winners_curse(scores, 200) for scores in luck]) == pytest.approx(true, abs=0.012)
    assert winners_curse(np.linspace(0.5, 0.9, 20), 200) < 0.002


def test_selection_bias_is_told_where_no_test_side_is() -> None:
    rng = np.random.default_rng(1)
    history = replace(drawn.converged(rng), epochs=np.arange(20.0), val_scores=rng.binomial(60, 0.8, 20) / 60)
    val = answers(rng, 60)
    empty = np.zeros(0)
    history = replace(history, train_losses=empty, val_losses=empty, train_scores=empty)
    assert found_in(history, answers={"val": val})["selection-bias"].evidence["flattery"] > 0.01
    assert "selection-bias" not in found_in(history, answers={"val": val, "test": val})


def test_trends_of_noise_are_as_rare_as_their_p_values_say() -> None:
    rng = np.random.default_rng(0)
    for inertia in (0.0, 0.4):
        rises = [trend(drawn.lingering(rng, 20, inertia)).p_rise for _ in range(1000)]
        assert np.mean(np.array(rises) < 0.01) < 0.02


def test_a_clear_trend_is_found_with_its_slope() -> None:
    values = 3 - 0.1 * np.arange(40) + 0.02 * np.random.default_rng(0).normal(size=40)
    found = trend(values)
    assert found.slope == pytest.approx(-0.1, rel=0.05) and found.p_fall < 1e-6 < found.p_rise
    assert trend([1.0, 2.0, 3.0]) == (1.0, 1.0, 1.0)
