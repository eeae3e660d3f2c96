"""Answers: each planted fault is told with its cure, and healthy answers, of any size, are left in peace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drawn_answers import answers, halves, healthy, part
from snellen.core.errors import DataError
from snellen.core.finding import Finding, run_checks
from snellen.doctor.answers.checks import ANSWER_CHECKS
from snellen.doctor.answers.confidence import temperature_of, tempered
from snellen.doctor.answers.independent import first_half, independent
from snellen.doctor.answers.together import correlated_errors
from snellen.doctor.case import Answers, Case

RARE = (0.9, 0.1)


def found_in(**sides: Answers) -> dict[str, Finding]:
    return {finding.code: finding for finding in run_checks(ANSWER_CHECKS, Case(answers=sides))}


def never_answering(told: Answers, index: int) -> Answers:
    """The same answers, with a class that gets no probability."""
    scores = told.probabilities.copy()
    scores[:, index] = 1e-9
    return replace(told, probabilities=scores / scores.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(25))
def test_healthy_answers_are_left_in_peace(seed: int) -> None:
    assert run_checks(ANSWER_CHECKS, healthy(seed)) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("temperature", "word"), [(0.3, "too sure"), (3.0, "too unsure")])
def test_unearned_confidence_is_told_with_its_temperature(seed: int, temperature: float, word: str) -> None:
    told = answers(np.random.default_rng(seed), 1000, temperature=temperature)
    finding = found_in(val=told)["miscalibrated"]
    assert word in finding.message and finding.certainty == "confirmed"
    assert finding.treatment == {"settings": {"calibrate": "temperature"}}
    assert finding.evidence["temperatures"] == pytest.approx([1 / temperature] * 2, rel=0.25)


def test_a_model_without_errors_on_few_images_is_not_called_unsure() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=80)
    scores = np.where(truth[:, None] == [0, 1], 0.97, 0.03)
    assert found_in(val=Answers(probabilities=scores, truth=truth)) == {}


def test_the_temperature_is_found_again() -> None:
    told = answers(np.random.default_rng(0), 4000, temperature=0.5)
    assert temperature_of(told.probabilities, told.truth) == pytest.approx(2.0, rel=0.1)
    assert tempered(told.probabilities, 1.0) == pytest.approx(told.probabilities, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_class_that_is_never_answered_is_named(seed: int) -> None:
    told = never_answering(answers(np.random.default_rng(seed)), 2)
    finding = found_in(test=told)["class-collapse"]
    assert finding.evidence["classes"].keys() == {"class 2"} and finding.severity == "warning"
    assert finding.images and all(told.truth[int(image.split(".")[0])] == 2 for image in finding.images)


def test_answers_of_one_class_alone_are_serious() -> None:
    scores = np.tile([0.7, 0.1, 0.1, 0.1], (400, 1))
    truth = np.random.default_rng(0).integers(4, size=400)
    assert found_in(val=Answers(probabilities=scores, truth=truth))["class-collapse"].severity == "serious"


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_that_hides_a_rare_class_is_told(seed: int) -> None:
    told = answers(np.random.default_rng(seed), 1500, shares=RARE, spread=1.0)
    finding = found_in(test=told)["metric-misleads"]
    assert finding.severity == "warning"
    assert finding.evidence["accuracy"] > finding.evidence["balanced_accuracy"] + 0.1


def test_imbalance_that_does_no_harm_is_not_told() -> None:
    told = answers(np.random.default_rng(0), 1500, shares=RARE, spread=9.0)
    assert found_in(val=told, test=told) == {}


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_that_miss_the_rare_class_are_told_and_cured(seed: int) -> None:
    told = answers(np.random.default_rng(seed), 2000, shares=(0.8, 0.2), spread=2.5)
    scores = told.probabilities * [1.0, 0.01]  # as a loss that is weighted the wrong way round would leave it
    unfit = replace(told, probabilities=scores / scores.sum(axis=1, keepdims=True))
    finding = found_in(val=unfit)["threshold-unfit"]
    before, after = finding.evidence["macro_f1"]
    assert after > before + 0.04 and finding.treatment == {"settings": {"imbalance": "thresholds"}}


def test_sides_that_differ_beyond_chance_are_told() -> None:
    rng = np.random.default_rng(0)
    both = halves(answers(rng, 1200, spread=6.0), 600)
    worse = both["test"].probabilities.copy()
    worse[:150] = np.roll(worse[:150], 1, axis=1)
    shifted = replace(both["test"], probabilities=worse)
    assert found_in(val=both["val"], test=shifted)["data-mismatch"].evidence["difference"] > 0.1
    few = {"val": part(both["val"], slice(0, 30)), "test": part(shifted, slice(140, 170))}
    assert "data-mismatch" not in found_in(**few)


def test_images_of_a_group_count_once() -> None:
    rng = np.random.default_rng(0)
    told = answers(rng, 400, group=100)
    assert len(independent(told)) == 4
    assert found_in(val=replace(told, probabilities=np.roll(told.probabilities, 1, axis=1))) == {}
    half = first_half(answers(rng, 400, group=10))
    assert 0 < half.sum() < 400 and all(len(set(some)) == 1 for some in half.reshape(-1, 10).tolist())


def test_clones_are_wrong_together_and_strangers_are_not() -> None:
    rng = np.random.default_rng(0)
    one = answers(rng, 1000)
    jitter = np.exp(0.1 * rng.normal(size=one.probabilities.shape))
    clone = replace(one, probabilities=one.probabilities * jitter)
    finding = correlated_errors([one, clone])
    assert finding is not None and finding.code == "correlated-errors" and finding.evidence["phi"] > 0.8
    order = rng.permutation(1000)
    by_class = np.argsort(one.truth[order], kind="stable")
    stranger = one.probabilities.copy()
    stranger[np.argsort(one.truth, kind="stable")] = one.probabilities[order][by_class]
    assert correlated_errors([one, replace(one, probabilities=stranger)]) is None
    assert correlated_errors([one]) is None
    with pytest.raises(DataError, match="same images"):
        correlated_errors([one, part(one, slice(0, 10))])
