"""Every metric against scikit-learn, on random and on degenerate data."""

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from snellen.metrics import confusion, log_loss, ranking
from snellen.metrics.interval import resamples

RNG = np.random.default_rng(0)


def single_label_cases() -> Iterator[object]:
    for n, k in ((1, 2), (3, 2), (50, 2), (200, 5), (300, 12)):
        yield pytest.param(RNG.integers(k, size=n), RNG.integers(k, size=n), k, id=f"random-{n}x{k}")
    truth = RNG.integers(4, size=80)
    yield pytest.param(truth, truth, 4, id="perfect")
    yield pytest.param(truth, np.zeros(80, dtype=int), 4, id="constant")
    yield pytest.param(np.where(truth == 2, 1, truth), truth, 4, id="a-predicted-class-absent-in-truth")
    yield pytest.param(truth, np.where(truth == 2, 1, truth), 4, id="a-true-class-never-predicted")
    yield pytest.param(np.full(30, 1), RNG.integers(3, size=30), 3, id="all-one-class")


@pytest.mark.parametrize(("truth", "predicted", "k"), list(single_label_cases()))
def test_decision_metrics_agree_with_sklearn(truth: np.ndarray, predicted: np.ndarray, k: int) -> None:
    matrix = confusion.confusion_matrix(truth, predicted, k)
    np.testing.assert_array_equal(matrix, sklearn_metrics.confusion_matrix(truth, predicted, labels=range(k)))
    counts = confusion.class_counts(truth, predicted, k)
    for part, expected in zip(counts, confusion.counts_of(matrix), strict=True):
        np.testing.assert_array_equal(part[0], expected)
    assert confusion.accuracy(counts)[0] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    present = np.unique(truth)
    recalls = sklearn_metrics.recall_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert confusion.balanced_accuracy(counts)[0] == pytest.approx(recalls)
    for rate, oracle in (
        (confusion.precision, sklearn_metrics.precision_score),
        (confusion.recall, sklearn_metrics.recall_score),
        (confusion.f1, sklearn_metrics.f1_score),
    ):
        rates = rate(counts)
        assert np.flatnonzero(~np.isnan(rates[0])).tolist() == present.tolist()
        per_class = oracle(truth, predicted, labels=present, average=None, zero_division=0)
        np.testing.assert_allclose(rates[0, present], per_class, atol=1e-12)
        for average, made in (
            ("macro", confusion.macro(rates)),
            ("weighted", confusion.weighted(rates, counts)),
        ):
            expected = oracle(truth, predicted, labels=present, average=average, zero_division=0)
            assert made[0] == pytest.approx(expected, abs=1e-12)
        micro = oracle(truth, predicted, labels=range(k), average="micro", zero_division=0)
        assert rate(confusion.pooled(counts))[0, 0] == pytest.approx(micro)


@pytest.mark.parametrize("k", [1, 3, 70])
def test_multi_label_decisions_agree_with_sklearn(k: int) -> None:
    truth, predicted = RNG.random((60, k)) < 0.3, RNG.random((60, k)) < 0.4
    truth[:, 0] |= ~truth.any(axis=0).all()
    counts = confusion.label_counts(truth, predicted)
    present = np.flatnonzero(truth.any(axis=0))
    for rate, oracle in (
        (confusion.precision, sklearn_metrics.precision_score),
        (confusion.recall, sklearn_metrics.recall_score),
        (confusion.f1, sklearn_metrics.f1_score),
    ):
        y_true, y_pred = (labels.astype(int) if k > 1 else labels[:, 0].astype(int) for labels in (truth, predicted))
        settings = {"average": "macro", "labels": present} if k > 1 else {"average": "binary"}
        assert confusion.macro(rate(counts))[0] == pytest.approx(oracle(y_true, y_pred, zero_division=0, **settings))
        if k > 1:
            micro = oracle(y_true, y_pred, average="micro", zero_division=0)
            assert rate(confusion.pooled(counts))[0, 0] == pytest.approx(micro)


def ranking_cases() -> Iterator[object]:
    for n in (2, 5, 40, 400):
        positive = RNG.random(n) < 0.4
        positive[:2] = True, False
        yield pytest.param(RNG.random(n), positive, id=f"random-{n}")
        yield pytest.param(RNG.integers(4, size=n) / 4, positive, id=f"ties-{n}")
        yield pytest.param(np.full(n, 0.5), positive, id=f"constant-{n}")
        yield pytest.param(positive.astype(float), positive, id=f"perfect-{n}")
        yield pytest.param((~positive).astype(np.float32), positive, id=f"inverted-{n}")


@pytest.mark.parametrize(("scores", "positive"), list(ranking_cases()))
def test_areas_agree_with_sklearn(scores: np.ndarray, positive: np.ndarray) -> None:
    expected = sklearn_metrics.average_precision_score(positive, scores)
    assert ranking.average_precision(scores, positive) == pytest.approx(expected, abs=1e-12)
    for weights in (None, np.random.default_rng(1).integers(1, 4, size=scores.size)):
        expected = sklearn_metrics.roc_auc_score(positive, scores, sample_weight=weights)
        assert ranking.roc_auc(scores, positive, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("scores", "positive"), list(ranking_cases()))
def test_curves_agree_with_sklearn(scores: np.ndarray, positive: np.ndarray) -> None:
    curve = ranking.roc_curve(scores, positive)
    for made, expected in zip(curve, sklearn_metrics.roc_curve(positive, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(made, expected)
    precision, recall, thresholds = ranking.precision_recall_curve(scores, positive)
    expected_precision, expected_recall, expected_thresholds = sklearn_metrics.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(precision, expected_precision[::-1])
    np.testing.assert_allclose(recall, expected_recall[::-1])
    np.testing.assert_allclose(thresholds[1:], expected_thresholds[::-1])


@pytest.mark.parametrize("value", [True, False])
def test_areas_without_both_kinds_are_undefined(value: bool) -> None:
    scores, positive = np.array([0.2, 0.7, 0.7]), np.full(3, value)
    assert np.isnan(ranking.roc_auc(scores, positive))
    assert ranking.average_precision(scores, positive) == pytest.approx(1 if value else np.nan, nan_ok=True)
    curve = ranking.roc_curve(scores, positive)
    assert np.isnan(curve.false_positive_rate).all() == value
    assert np.isnan(curve.true_positive_rate).all() != value
    weights = np.array([[0, 0, 0], [1, 0, 2]], dtype=np.uint8)
    assert np.isnan(ranking.one_vs_rest(scores[:, None], positive[:, None], weights).roc_auc).all()


def average_precision_of_draws(scores: np.ndarray, positive: np.ndarray, drawn: np.ndarray) -> float:
    """By its definition, one drawn positive after the other, its own copies counted once."""
    precisions = []
    for i in np.flatnonzero(positive & (drawn > 0)):
        counted = np.where(np.arange(drawn.size) == i, 1, drawn)
        reached = scores >= scores[i]
        precisions += [counted[reached & positive].sum() / counted[reached].sum()] * int(drawn[i])
    return float(np.mean(precisions))


@pytest.mark.parametrize("num_levels", [1, 3, 40, 10_000])
def test_areas_of_a_resample_are_those_of_the_drawn_images(num_levels: int) -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(3, size=90)
    scores = rng.integers(num_levels, size=(90, 3)) / np.float32(num_levels)
    scores[np.arange(90), truth] += 0.2 if num_levels > 1 else 0
    weights = rng.poisson(1, size=(4, 90)).astype(np.uint8)
    made = ranking.one_vs_rest(scores, truth, weights)
    for row, drawn in enumerate(weights.astype(int)):
        repeated = np.repeat(np.arange(90), drawn)
        np.testing.assert_allclose(made.roc_auc[row], ranking.one_vs_rest(scores[repeated], truth[repeated]).roc_auc[0])
        expected = [average_precision_of_draws(scores[:, i], truth == i, drawn) for i in range(3)]
        np.testing.assert_allclose(made.average_precision[row], expected)
        assert ranking.average_precision(scores[:, 0], truth == 0, drawn) == pytest.approx(expected[0])


def test_resampling_does_not_flatter_the_average_precision_of_a_weak_model() -> None:
    rng = np.random.default_rng(4)
    scores, positive = rng.random(200).astype(np.float32), np.arange(200) < 10
    weights = next(resamples(200, num_resamples=500))
    made = ranking.one_vs_rest(scores[:, None], positive[:, None], weights).average_precision[:, 0]
    plain = [sklearn_metrics.average_precision_score(positive, scores, sample_weight=row) for row in weights]
    value = ranking.average_precision(scores, positive)
    assert abs(np.nanmean(made) - value) < 0.3 * (np.mean(plain) - value)


def test_counts_of_a_resample_are_those_of_the_repeated_images() -> None:
    rng = np.random.default_rng(3)
    weights = rng.poisson(1, size=(5, 60)).astype(np.uint8)
    truth, predicted = rng.integers(4, size=60), rng.integers(4, size=60)
    has, given = rng.random((60, 40)) < 0.3, rng.random((60, 40)) < 0.3
    classes, labels = confusion.class_counts(truth, predicted, 4, weights), confusion.label_counts(has, given, weights)
    for row, of_row in enumerate(weights):
        repeated = np.repeat(np.arange(60), of_row)
        for made, expected in (
            (classes, confusion.class_counts(truth[repeated], predicted[repeated], 4)),
            (labels, confusion.label_counts(has[repeated], given[repeated])),
        ):
            for part, expected_part in zip(made, expected, strict=True):
                np.testing.assert_array_equal(part[row], expected_part[0])
    weighted = confusion.confusion_matrix(truth, predicted, 4, weights[0])
    np.testing.assert_array_equal(
        weighted, sklearn_metrics.confusion_matrix(truth, predicted, sample_weight=weights[0])
    )


def test_macro_roc_auc_agrees_with_sklearn() -> None:
    truth, scores = RNG.integers(5, size=120), RNG.dirichlet(np.ones(5), size=120)
    expected = sklearn_metrics.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    assert ranking.macro_roc_auc(scores, truth) == pytest.approx(expected)
    assert np.isnan(ranking.macro_roc_auc(scores, np.zeros(120, dtype=int)))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_accuracy_agrees_with_sklearn(k: int) -> None:
    truth, scores = RNG.integers(6, size=200), RNG.dirichlet(np.ones(6), size=200)
    expected = sklearn_metrics.top_k_accuracy_score(truth, scores, k=k, labels=range(6))
    assert ranking.top_k_accuracy(scores, truth, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "truth", "k", "hit"),
    [
        ([0.25, 0.25, 0.25, 0.25], 3, 1, 0.25),
        ([0.25, 0.25, 0.25, 0.25], 0, 3, 0.75),
        ([0.4, 0.4, 0.2, 0.0], 1, 2, 1),
        ([0.4, 0.2, 0.2, 0.2], 3, 2, 1 / 3),
        ([0.4, 0.3, 0.15, 0.15], 3, 2, 0),
    ],
)
def test_a_tie_for_the_last_place_counts_as_a_draw(scores: list[float], truth: int, k: int, hit: float) -> None:
    assert ranking.top_k_hits(np.array([scores]), np.array([truth]), k)[0] == pytest.approx(hit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_agrees_with_sklearn(dtype: type) -> None:
    truth, scores = RNG.integers(4, size=100), RNG.dirichlet(np.ones(4), size=100).astype(dtype)
    expected = sklearn_metrics.log_loss(truth, scores, labels=range(4))
    assert log_loss.log_losses(scores, truth).mean() == pytest.approx(expected, rel=1e-5)
    present, chances = RNG.random((50, 3)) < 0.5, RNG.random((50, 3)).astype(dtype)
    columns = [sklearn_metrics.log_loss(present[:, i], chances[:, i], labels=[False, True]) for i in range(3)]
    assert log_loss.binary_log_losses(chances, present).mean() == pytest.approx(np.mean(columns), rel=1e-5)


def test_certain_and_wrong_costs_a_finite_amount() -> None:
    certain = np.array([[1, 0]], dtype=np.float32)
    assert log_loss.log_losses(certain, np.array([1]))[0] == pytest.approx(15.94, abs=0.01)
    assert log_loss.log_losses(certain, np.array([0]))[0] == pytest.approx(0, abs=1e-6)
    expected = sklearn_metrics.log_loss([1], certain, labels=[0, 1])
    assert log_loss.log_losses(certain, np.array([1]))[0] == pytest.approx(expected, rel=1e-5)
