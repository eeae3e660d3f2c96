"""The linear probe is the logistic regression that scikit-learn finds, with a penalty chosen on parted groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snellen.core.errors import DivergenceError
from snellen.nn import linear_probe
from snellen.nn.held_out import grouped_folds
from snellen.nn.linear_probe import (
    PENALTIES,
    Balance,
    LinearProbe,
    _interpolated,
    _loss,
    cross_validated,
    fit_linear_probe,
)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _scattered(kind: str, n: int, d: int, noise: float) -> tuple[Tensor, Tensor, int]:
    """Features [n, d] with scales far apart, targets that a noisy linear rule gave, and the number of outputs."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(n, d))
    outputs = {"binary": 2, "multiclass": 4, "multi-label": 3}[kind]
    scores = features @ rng.normal(size=(d, outputs)) + noise * rng.normal(size=(n, outputs))
    scaled = torch.from_numpy(features * rng.uniform(0.1, 20, d) + rng.normal(size=d)).float()
    if kind == "multi-label":
        return scaled, torch.from_numpy(scores > 0).float(), outputs
    return scaled, torch.from_numpy(scores.argmax(1)), outputs


def _sklearn_solution(kind: str, features: Tensor, targets: Tensor, probe: LinearProbe) -> np.ndarray:
    """Logits by scikit-learn at the same penalty; two classes as one logit, of the second less the first."""
    from sklearn.linear_model import LogisticRegression

    scaled = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    n, penalty = len(scaled), probe.penalty
    # It minimises C * sum(loss) + |w|^2 / 2. Of two mirrored logits each weight is half as long; the loss of several
    # labels is a mean over them.
    outputs = targets.shape[1] if targets.dim() == 2 else 1
    strength = {"binary": 1 / (n * penalty), "multiclass": 0.5 / (n * penalty)}.get(kind, 0.5 / (n * penalty * outputs))
    labels = [targets] if targets.dim() == 1 else list(targets.T)
    fitted = [LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(scaled, each.numpy()) for each in labels]
    columns = [model.decision_function(scaled).reshape(n, -1) for model in fitted]
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label"])
@pytest.mark.parametrize("shape", [(200, 6), (40, 90)], ids=["more images", "more features"])
def test_linear_probe_is_the_logistic_regression_of_scikit_learn(kind: str, shape: tuple[int, int]) -> None:
    features, targets, outputs = _scattered(kind, *shape, noise=3.0)
    probe = fit_linear_probe(features, targets, outputs, [str(i) for i in range(len(features))], 0)
    logits = (features @ probe.weight.T + probe.bias).numpy()
    expected = _sklearn_solution(kind, features, targets, probe)
    if kind == "binary":
        logits = logits[:, 1:] - logits[:, :1]
    elif kind == "multiclass":  # softmax does not see a constant
        logits, expected = (each - each.mean(1, keepdims=True) for each in (logits, expected))
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < 0.02 * np.abs(expected).max()
    assert probe.penalty in PENALTIES and np.isfinite(probe.cross_validated_loss)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multi-label"])
def test_linear_probe_recovers_what_is_separable(kind: str) -> None:
    features, targets, outputs = _scattered(kind, 400, 5, noise=0.0)
    fitted, unseen = slice(0, 300), slice(300, None)
    probe = fit_linear_probe(features[fitted], targets[fitted], outputs, [str(i) for i in range(300)], 0)
    logits = features[unseen] @ probe.weight.T + probe.bias
    decided = (logits > 0).float() if targets.dim() == 2 else logits.argmax(1)
    assert float((decided == targets[unseen]).float().mean()) > 0.93
    assert probe.penalty == PENALTIES[-1]  # nothing is noise


def test_linear_probe_takes_constant_features_and_classes_without_images() -> None:
    features, targets, _ = _scattered("multiclass", 60, 4, noise=1.0)
    features[:, 1] = 7.0
    probe = fit_linear_probe(features, targets, 6, ["one group"] * 60, 0)  # nothing can be held out either
    assert bool(torch.isfinite(probe.weight).all()) and bool(torch.isfinite(probe.bias).all())
    logits = features @ probe.weight.T + probe.bias
    assert int(logits.argmax(1).max()) <= 3


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60), st.integers(0, 99))
def test_a_group_is_never_parted_between_folds(numbers: list[int], seed: int) -> None:
    groups = [f"patient {number}" for number in numbers]
    folds = grouped_folds(groups, seed)
    assert all(
        len({fold for fold, other in zip(folds, groups, strict=True) if other == group}) == 1 for group in groups
    )


def test_the_penalty_is_chosen_on_groups_that_were_held_out() -> None:
    """Labels that follow the group alone: images of a group tell each other's label, other groups tell nothing."""
    rng = np.random.default_rng(0)
    marks, labels = rng.normal(size=(12, 30)), rng.integers(0, 2, 12)
    of = np.repeat(np.arange(12), 10)
    features = torch.from_numpy(marks[of] + 0.1 * rng.normal(size=(120, 30))).float()
    targets = torch.from_numpy(labels[of])
    parted = fit_linear_probe(features, targets, 2, [str(i) for i in range(120)], 0)
    together = fit_linear_probe(features, targets, 2, [str(group) for group in of], 0)
    assert parted.cross_validated_loss < 0.1  # the twins give it away
    assert together.cross_validated_loss > 0.4
    assert together.penalty > parted.penalty


def test_a_single_class_has_finite_weights() -> None:
    features, _, _ = _scattered("multiclass", 30, 4, noise=1.0)
    probe = fit_linear_probe(features, torch.zeros(30, dtype=torch.int64), 1, [str(i) for i in range(30)], 0)
    assert bool(torch.isfinite(probe.weight).all()) and bool(torch.isfinite(probe.bias).all())


@pytest.mark.parametrize("shape", [(40, 6), (20, 90)], ids=["more images", "more features"])
def test_features_that_are_no_numbers_are_refused(shape: tuple[int, int]) -> None:
    features, targets, outputs = _scattered("multiclass", *shape, noise=1.0)
    features[3, 2] = float("nan")
    with pytest.raises(DivergenceError, match="not all finite"):
        fit_linear_probe(features, targets, outputs, [str(i) for i in range(len(features))], 0)


# --- rare classes


def _clouds(counts: tuple[int, ...], apart: float, d: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(counts)), counts)
    centres = apart * rng.normal(size=(len(counts), d)) / d**0.5
    return torch.from_numpy(centres[truth] + rng.normal(size=(len(truth), d))).float(), torch.from_numpy(truth)


def _singles(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_class_weights_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    features, targets = _clouds((150, 30), 2.0, d=5)
    balance = Balance(class_weights=(0.5, 3.0))
    probe = fit_linear_probe(features, targets, 2, _singles(180), 0, balance)
    scaled = ((features - features.mean(0)) / features.std(0, correction=0)).double().numpy()
    total = 150 * 0.5 + 30 * 3.0
    oracle = LogisticRegression(C=1 / (total * probe.penalty), class_weight={0: 0.5, 1: 3.0}, tol=1e-8, max_iter=5000)
    expected = oracle.fit(scaled, targets.numpy()).decision_function(scaled)
    logits = (features @ probe.weight.T + probe.bias).numpy()
    assert np.abs(logits[:, 1] - logits[:, 0] - expected).max() < 0.02 * np.abs(expected).max()


def test_over_and_undersampling_weigh_each_class_alike() -> None:
    features, targets = _clouds((150, 30), 2.0)
    over, under, weights, plain = (
        fit_linear_probe(features, targets, 2, _singles(180), 0, balance)
        for balance in (
            Balance(sampling="oversample"),
            Balance(sampling="undersample"),
            Balance(class_weights=(1.0, 5.0)),
            Balance(),
        )
    )
    assert torch.equal(over.weight, under.weight)
    at = [(features @ probe.weight.T + probe.bias).softmax(1)[:, 1].mean() for probe in (over, weights, plain)]
    assert float(at[0]) == pytest.approx(float(at[1]), abs=0.01) and float(at[0]) > float(at[2]) + 0.05


def test_labels_that_are_sampled_by_their_rarity_are_said_more_often() -> None:
    features, targets, outputs = _scattered("multi-label", 300, 6, noise=6.0)
    targets[:, 0] *= (torch.arange(300) % 6 == 0).float()
    plain, sampled = (
        fit_linear_probe(features, targets, outputs, _singles(300), 0, balance)
        for balance in (Balance(), Balance(sampling="oversample"))
    )
    said = [(features @ probe.weight.T + probe.bias).sigmoid().mean(0)[0] for probe in (plain, sampled)]
    assert float(said[1]) > 1.2 * float(said[0])


@pytest.mark.parametrize("kind", ["binary", "multi-label"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_slope_of_the_loss_is_that_of_autograd(kind: str, weighted: bool) -> None:
    logits, targets = torch.randn(9, 3), torch.randint(0, 3, (9,))
    if kind == "multi-label":
        targets = torch.rand(9, 3).round()
    weights = torch.rand(targets.shape) if weighted else None
    asked = logits.double().requires_grad_()
    loss = F.cross_entropy if kind == "binary" else F.binary_cross_entropy_with_logits
    each = loss(asked, targets if kind == "binary" else targets.double(), reduction="none")
    expected = each.mean() if weights is None else (each * weights).sum() / weights.sum()
    (slope,) = torch.autograd.grad(expected, asked)
    got, by_hand = _loss(logits.double().numpy(), targets.numpy(), None if weights is None else weights.numpy())
    assert got == pytest.approx(float(expected.detach()), rel=1e-6)
    assert by_hand == pytest.approx(slope.numpy(), abs=1e-7)


def test_smote_makes_every_class_as_large_as_the_largest_between_its_own_images() -> None:
    features, targets = _clouds((40, 12, 3, 1), 3.0, d=4)
    found, labels = _interpolated(features, targets, 0)
    assert torch.bincount(labels).tolist() == [40, 40, 40, 1]
    assert torch.equal(found[:56], features) and torch.equal(labels[:56], targets)
    trio = features[targets == 2]
    for new in found[56:][labels[56:] == 2]:  # on a line between two of the three
        gaps = torch.cdist(new[None], trio)[0].sort().values
        assert min(abs(float(gaps[i] + gaps[j] - torch.dist(*_pair(trio, new, i, j)))) for i, j in _PAIRS) < 1e-3
    again, _ = _interpolated(features, targets, 0)
    other, _ = _interpolated(features, targets, 1)
    assert torch.equal(found, again) and not torch.equal(found, other)
    alone = torch.tensor([0] * 5 + [1])
    assert _interpolated(features[:6], alone, 0)[1] is alone


_PAIRS = ((0, 1), (0, 2), (1, 2))


def _pair(trio: Tensor, new: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    """The images of ``trio`` that are the i-th and the j-th nearest to ``new``."""
    order = torch.cdist(new[None], trio)[0].argsort()
    return trio[order[i]], trio[order[j]]


def test_smote_before_the_folds_are_parted_would_leak_and_is_not_done() -> None:
    """Pure noise: whoever looks better than chance on it has seen the images that he is tested on."""
    features, targets = _clouds((160, 20), 0.0, d=60)
    groups = _singles(180)
    honest = cross_validated(features, targets, 2, groups, 0, Balance(smote=True))
    mixed, labels = _interpolated(features, targets, 0)
    leaky = cross_validated(mixed, labels, 2, _singles(len(labels)), 0)

    def even(logits: Tensor, truth: Tensor) -> float:
        right = logits.argmax(1) == truth
        return float((right[truth == 0].float().mean() + right[truth == 1].float().mean()) / 2)

    assert even(leaky.logits, labels) > 0.75  # the planted leak shows
    assert even(honest.logits, targets) < 0.6


def test_interpolated_images_come_from_the_images_that_are_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = _clouds((60, 20), 1.0)
    groups = _singles(80)
    asked: list[int] = []

    def seen(coordinates: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        asked.append(len(labels))
        return coordinates, labels

    monkeypatch.setattr(linear_probe, "_interpolated", seen)
    fit_linear_probe(features, targets, 2, groups, 0, Balance(smote=True))
    sizes = [80 - int(n) for n in np.bincount(grouped_folds(groups, 0))]
    assert asked == [*sizes, 80]  # each fold's other images, and in the end all
