"""The linear probe is the logistic regression that scikit-learn finds, with a penalty chosen on parted groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snellen.nn.linear_probe import PENALTIES, LinearProbe, _folds, fit_linear_probe

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
    folds = _folds(groups, seed)
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
