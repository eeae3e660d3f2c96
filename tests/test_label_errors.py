"""Wrong labels are found, counted and told from hard images, by a classifier that leaves each image out."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from snellen.metrics.held_out_classifier import HeldOutClassifier
from snellen.metrics.label_errors import find_label_errors, label_noise
from snellen.metrics.ranking_test import stratified_auc

Codes = npt.NDArray[np.int64]


@cache
def digits() -> tuple[npt.NDArray[Any], Codes]:
    from sklearn.datasets import load_digits

    pixels, codes = load_digits(return_X_y=True)
    return pixels[:900], codes[:900].astype(np.int64)


def alone(n: int) -> list[str | None]:
    return [None] * n


def relabelled(codes: Codes, share: float, seed: int) -> Codes:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(codes), round(share * len(codes)), replace=False)
    noisy = codes.copy()
    noisy[chosen] = (codes[chosen] + rng.integers(1, 10, len(chosen))) % 10
    return noisy


@pytest.mark.parametrize("size", [1, 4])
def test_what_is_held_out_is_what_a_fit_without_it_says(size: int) -> None:
    rng = np.random.default_rng(0)
    features, codes = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    classifier = HeldOutClassifier.of(features, codes, [str(i // size) for i in range(60)])
    for kept in (np.ones(60, np.bool_), np.arange(60) % 7 > 0):
        scores = classifier.scores(codes, 3, kept)
        for part in (slice(0, size), slice(40, 40 + size)):
            without = kept.copy()
            without[part] = False
            np.testing.assert_allclose(scores[part], classifier.learnt(codes, 3, without)[part], atol=1e-5)


def test_an_image_says_nothing_of_its_own_unit() -> None:
    """Copies with labels by lot are told by chance alone when they are left out together."""
    rng = np.random.default_rng(1)
    features, codes = np.repeat(rng.normal(size=(100, 6)), 4, axis=0), np.repeat(rng.integers(0, 2, 100), 4)
    together = HeldOutClassifier.of(features, codes, [str(i // 4) for i in range(400)]).scores(codes, 2)
    parted = HeldOutClassifier.of(features, codes, alone(400)).scores(codes, 2)
    assert np.mean(parted.argmax(1) == codes) > 0.95
    assert np.mean(together.argmax(1) == codes) < 0.7


@pytest.mark.parametrize("seed", range(2))
def test_wrong_labels_of_digits_are_named_and_few_others(seed: int) -> None:
    features, codes = digits()
    noisy = relabelled(codes, 0.05, seed)
    errors = find_label_errors(HeldOutClassifier.of(features, noisy, alone(900)), noisy, 10)
    wrong = noisy != codes
    both = int((errors.suspect & wrong).sum())
    precision, recall = both / errors.suspect.sum(), both / wrong.sum()
    assert 2 * precision * recall / (precision + recall) >= 0.93
    assert errors.noise.low <= 0.05 <= errors.noise.high and errors.noise.p < 1e-4
    assert np.mean(errors.suggested[errors.suspect & wrong] == codes[errors.suspect & wrong]) > 0.95


def test_right_labels_of_digits_are_left_alone() -> None:
    features, codes = digits()
    errors = find_label_errors(HeldOutClassifier.of(features, codes, alone(900)), codes, 10)
    assert errors.noise.p > 0.01 and errors.suspect.sum() <= 1


@pytest.mark.parametrize("seed", range(12))
def test_classes_that_overlap_are_hard_and_not_mislabelled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.arange(300) % 3
    features = rng.normal(size=(3, 4))[codes] + rng.standard_t(4, size=(300, 4)) * 0.9
    noise = label_noise(HeldOutClassifier.of(features, codes, alone(300)).scores(codes, 3), codes)
    assert noise.p > 1e-3


def test_only_those_who_are_asked_about_are_named() -> None:
    features, codes = digits()
    noisy, among = relabelled(codes, 0.1, 3), np.arange(900) < 500
    errors = find_label_errors(HeldOutClassifier.of(features, noisy, alone(900)), noisy, 10, among)
    assert errors.suspect[among].any() and not errors.suspect[~among].any()


def test_ranks_within_strata_forgive_what_parts_the_strata() -> None:
    rng = np.random.default_rng(2)
    strata = np.repeat([0, 1], 200)
    positive = rng.random(400) < np.where(strata == 0, 0.2, 0.8)
    scores = 5.0 * strata + rng.normal(size=400)
    auc, p = stratified_auc(scores, positive, strata)
    assert 0.4 < auc < 0.6 and p > 0.01
    assert stratified_auc(scores, positive, np.zeros(400))[1] < 1e-6
    auc, p = stratified_auc(scores + 1.5 * positive, positive, strata)
    assert auc > 0.7 and p < 1e-6


def test_ranks_by_chance_have_fair_p_values() -> None:
    rng = np.random.default_rng(3)
    found = [stratified_auc(rng.normal(size=60), np.arange(60) % 3 == 0, np.arange(60) % 2)[1] for _ in range(1000)]
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.07
    assert stratified_auc(np.ones(10), np.arange(10) < 3, np.zeros(10)) == (0.5, 1.0)
