"""Failing slices are found and confirmed on images that had no say; where there are none, none is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact

from drawn_answers import Random, answers
from snellen.doctor.answers.failing import failing_parts, failing_slice
from snellen.doctor.case import Answers, Case
from snellen.metrics.chance import at_least, stratified_excess


def failing(rng: Random, visible: float, n: int = 1000) -> tuple[Answers, np.ndarray]:
    """Answers that are wrong, and as sure as elsewhere, for 6 % of the images, which are shifted in the features."""
    told = answers(rng, n, spread=6.0)
    assert told.features is not None
    inside = rng.random(n) < 0.06
    scores = told.probabilities.copy()
    scores[inside] = np.roll(scores[inside], 1, axis=1)
    shift = visible * np.outer(inside, np.eye(8)[0])
    return replace(told, probabilities=scores, features=told.features + shift), inside


@pytest.mark.parametrize("seed", range(3))
def test_a_slice_that_the_features_show_is_found(seed: int) -> None:
    told, inside = failing(np.random.default_rng(seed), visible=4.0)
    part = failing_parts(told, seed=seed)[0]
    assert np.mean(inside[part.members]) > 0.5 and np.mean(part.members[inside]) > 0.3
    finding = next(iter(failing_slice(Case(answers={"val": told}, seed=seed))))
    assert finding.certainty == "confirmed" and finding.evidence["errors"] > 2 * finding.evidence["expected_errors"]
    assert np.mean([inside[int(image.split(".")[0])] for image in finding.images]) > 0.8


@pytest.mark.parametrize("seed", range(3))
def test_a_slice_that_a_fact_names_is_told_in_its_words(seed: int) -> None:
    told, inside = failing(np.random.default_rng(seed), visible=0.0)
    facts = {**told.facts, "source": np.where(inside, "phone", "scanner").tolist()}
    findings = list(failing_slice(Case(answers={"test": replace(told, facts=facts, features=None)}, seed=seed)))
    assert "source = phone" in findings[0].message and len(findings) == 1


def test_a_range_of_one_class_is_found() -> None:
    rng = np.random.default_rng(0)
    told = answers(rng, 2000, spread=6.0)
    dark = (np.asarray(told.facts["light"]) < 0.25) & (told.truth == 1)
    scores = told.probabilities.copy()
    scores[dark] = np.roll(scores[dark], 1, axis=1)
    case = Case(answers={"val": replace(told, probabilities=scores, features=None)}, classes=["a", "bee", "c", "d"])
    finding = next(iter(failing_slice(case)))
    assert "bee with light <=" in finding.message


@pytest.mark.parametrize("spread", [2.0, 4.0])
def test_no_slice_is_told_where_classes_merely_meet(spread: float) -> None:
    for seed in range(8):
        told = answers(np.random.default_rng(seed), 800, spread=spread, temperature=(0.5, 1.0, 2.0)[seed % 3])
        assert failing_parts(told, seed=seed) == []


def test_a_source_that_goes_with_a_hard_class_is_no_slice() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        told = answers(rng, 800, shares=(0.7, 0.2, 0.1), spread=2.5)
        source = np.where(rng.random(800) < 0.9, told.truth, rng.integers(3, size=800)).astype(str).tolist()
        assert failing_parts(replace(told, facts={"source": source}, features=None), seed=seed) == []


def test_one_group_of_copies_confirms_nothing() -> None:
    rng = np.random.default_rng(0)
    told = answers(rng, 400, spread=6.0)
    scores = told.probabilities.copy()
    scores[:40] = np.roll(scores[:40], 1, axis=1)
    facts = {"source": ["film" if i < 40 else "other" for i in range(400)]}
    groups = ["film" if i < 40 else f"g{i}" for i in range(400)]
    alone = replace(told, probabilities=scores, facts=facts, features=None)
    assert failing_parts(alone) and not failing_parts(replace(alone, groups=groups))


def test_one_stratum_is_fishers_exact_test() -> None:
    rng = np.random.default_rng(0)
    inside, event = rng.random(80) < 0.3, rng.random(80) < 0.2
    table = np.array([[np.sum(inside & event), np.sum(inside & ~event)], [np.sum(~inside & event), 0]])
    table[1, 1] = 80 - table.sum()
    expected = fisher_exact(table, alternative="greater").pvalue
    assert stratified_excess(inside, event, np.zeros(80, np.int64)).p == pytest.approx(expected)


def test_strata_explain_an_excess_away() -> None:
    rng = np.random.default_rng(0)
    strata = rng.integers(2, size=2000)
    inside = rng.random(2000) < np.where(strata, 0.5, 0.05)
    event = rng.random(2000) < np.where(strata, 0.6, 0.05)
    assert stratified_excess(inside, event, np.zeros(2000, np.int64)).p < 1e-9
    assert stratified_excess(inside, event, strata).p > 0.01


def test_the_bound_is_never_below_the_exact_tail() -> None:
    for n, chance in ((50, 0.02), (200, 0.3), (1000, 0.9)):
        for count in range(int(n * chance) + 1, n + 1, max(1, n // 40)):
            exact = binom.sf(count - 1, n, chance)
            assert exact <= at_least(count, np.full(n, chance)) * (1 + 1e-6) + 1e-300
    assert at_least(3, np.zeros(5)) == 0.0 and at_least(0, np.zeros(5)) == 1.0
