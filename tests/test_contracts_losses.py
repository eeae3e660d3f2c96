"""Contracts of the loss and the metric: best at the truth, given what they expect, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from doctor_cases import KINDS, learn, tiny_training
from snellen.core.finding import Check, Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.losses import loss_at_the_truth, softmax_before_loss
from snellen.doctor.contracts.metric import evaluation_by_batches, metric_at_the_truth

Loss = Callable[[Any, Any], Tensor]
CHECKS: tuple[Check[Case], ...] = (
    loss_at_the_truth,
    softmax_before_loss,
    metric_at_the_truth,
    evaluation_by_batches,
)


def findings(training: Training) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(Case(training=training))]


def multilabel(seed: int = 0) -> Training:
    """Which of four classes the image shows, or not: one label an image, told as four answers."""
    training = tiny_training("cnn", seed=seed)
    for side in ("train", "val", "plain"):
        images, classes = getattr(training, side).dataset.tensors
        labels = F.one_hot(classes, 4).float()
        setattr(training, side, DataLoader(TensorDataset(images, labels), 32))
    training.question, training.loss = "multilabel", nn.BCEWithLogitsLoss()
    return training


def negated(outputs: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(outputs, targets)


def off_by_one(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, (targets + 1) % outputs.shape[1])


def smoothed_away(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.9)


def broadcast(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets.flatten()).square().mean()


def negated_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return -F.mse_loss(outputs, targets)


FAULTS: list[tuple[str, Loss, str]] = [
    ("cnn", negated, "loss-prefers-wrong-answers"),
    ("cnn", off_by_one, "loss-prefers-wrong-answers"),
    ("cnn", smoothed_away, "loss-wrong-at-the-truth"),
    ("segmenter", negated, "loss-prefers-wrong-answers"),
    ("segmenter", smoothed_away, "loss-wrong-at-the-truth"),
    ("regression", broadcast, "loss-wrong-at-the-truth"),
    ("regression", negated_square, "loss-prefers-wrong-answers"),
    ("cnn", F.nll_loss, "loss-head-mismatch"),
]


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize(("kind", "loss", "code"), FAULTS)
def test_a_wrong_loss_is_found(kind: Any, loss: Loss, code: str, seed: int) -> None:
    training = tiny_training(kind, seed=seed)
    training.loss = loss
    (finding,) = findings(training)
    assert (finding.code, finding.certainty) == (code, "certain")
    assert finding.treatment == {"change": "house loss"} and finding.evidence


class Ending(nn.Module):
    """A net with one more function at its end."""

    def __init__(self, net: nn.Module, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.end = net, end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self.net(images))


def softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(1)


def log_softmax(outputs: Tensor) -> Tensor:
    return outputs.log_softmax(1)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["cnn", "segmenter"])
def test_a_softmax_before_the_loss_is_found(kind: Any, smoothing: float, learnt: bool) -> None:
    training = tiny_training(kind, smoothing=smoothing, num=128)
    if learnt:
        learn(training, 1)
    training.model = Ending(training.model, softmax)
    (finding,) = findings(training)
    assert (finding.code, finding.treatment) == ("softmax-before-loss", {"change": "logits"})
    assert finding.evidence["least_loss"] > finding.evidence["with_logits"] + 0.2


def test_a_sigmoid_before_a_loss_that_has_one_is_found() -> None:
    training = multilabel()
    training.model = Ending(training.model, torch.sigmoid)
    assert [finding.code for finding in findings(training)] == ["softmax-before-loss"]


@pytest.mark.parametrize("end", [None, softmax])
def test_a_likelihood_of_what_is_no_logarithm_is_found(end: Callable[[Tensor], Tensor] | None) -> None:
    training = tiny_training("cnn")
    training.loss = F.nll_loss
    if end is not None:
        training.model = Ending(training.model, end)
    assert [finding.code for finding in findings(training)] == ["loss-head-mismatch"]


def of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    return -outputs.gather(1, targets[:, None]).clamp_min(1e-8).log().mean()


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - F.one_hot(targets, 4)).square().sum(1).mean()


def focal(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = F.cross_entropy(outputs, targets, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()


def with_penalty(outputs: Tensor, targets: Tensor) -> Tensor:
    """A penalty on weights adds the same to every answer."""
    return F.cross_entropy(outputs, targets) + 50.0


def one_against_all(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, F.one_hot(targets, outputs.shape[1]).float())


def scaled_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets are standardised within the loss: outputs equal to the targets are far from best."""
    return F.smooth_l1_loss(outputs, (targets - 30.0) / 7.0)


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    share = outputs.softmax(1)
    truth = F.one_hot(targets, outputs.shape[1]).movedim(-1, 1)
    both = 2 * (share * truth).sum((0, 2, 3)) + 1e-6
    return 1 - (both / (share.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1e-6)).mean()


HEALTHY: list[tuple[str, Loss, Callable[[Tensor], Tensor] | None]] = [
    ("cnn", nn.CrossEntropyLoss(label_smoothing=0.3), None),
    ("cnn", nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 30.0, 0.1])), None),
    ("cnn", nn.CrossEntropyLoss(reduction="sum"), None),
    ("cnn", nn.CrossEntropyLoss(), log_softmax),
    ("cnn", F.nll_loss, log_softmax),
    ("cnn", of_probabilities, softmax),
    ("cnn", brier, softmax),
    ("cnn", nn.MultiMarginLoss(), None),
    ("cnn", focal, None),
    ("cnn", with_penalty, None),
    ("cnn", one_against_all, None),
    ("segmenter", dice, None),
    ("segmenter", nn.CrossEntropyLoss(label_smoothing=0.1), None),
    ("regression", scaled_targets, None),
    ("regression", nn.L1Loss(), None),
    ("regression", nn.HuberLoss(), None),
]


@pytest.mark.parametrize(("kind", "loss", "end"), HEALTHY)
def test_usual_and_unusual_losses_raise_no_alarm(kind: Any, loss: Loss, end: Callable[[Tensor], Tensor] | None) -> None:
    training = tiny_training(kind, num=64)
    training.loss = loss
    if end is not None:
        training.model = Ending(training.model, end)
    assert findings(training) == []


def test_losses_of_labels_raise_no_alarm() -> None:
    training = multilabel()
    assert findings(training) == []
    training.loss = nn.BCEWithLogitsLoss(pos_weight=torch.full((4,), 5.0))
    assert findings(training) == []
    training.loss, training.model = nn.BCELoss(), Ending(training.model, torch.sigmoid)
    assert findings(training) == []


# Metrics.


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) == targets).double().mean())


def of_the_wrong_axis(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(0)[:4] == targets[:4]).double().mean())


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    return 1 - accuracy(outputs, targets)


def recall_of_five_classes(outputs: Tensor, targets: Tensor) -> float:
    """Counts a class that no image has as missed."""
    right = outputs.argmax(1) == targets
    return sum(float(right[targets == c].double().mean()) if (targets == c).any() else 0.0 for c in range(5)) / 5


def mean_of_chunks(outputs: Tensor, targets: Tensor) -> float:
    parts = zip(outputs.split(30), targets.split(30), strict=True)
    return sum(accuracy(*part) for part in parts) / len(outputs.split(30))


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    guess, scores = outputs.argmax(1), []
    for c in targets.unique():
        both, either = ((guess == c) & (targets == c)).sum(), (guess == c).sum() + (targets == c).sum()
        scores.append(2 * float(both) / float(either))
    return sum(scores) / len(scores)


def percent(outputs: Tensor, targets: Tensor) -> float:
    return 100 * accuracy(outputs, targets)


def likelihood(outputs: Tensor, targets: Tensor) -> float:
    return -float(F.cross_entropy(outputs, targets))


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize("metric", [of_the_wrong_axis, error_rate, recall_of_five_classes, mean_of_chunks])
def test_a_wrong_metric_is_found(metric: Callable[[Any, Any], float], seed: int) -> None:
    training = learn(tiny_training("cnn", seed=seed, num_val=128), 2)
    training.metric = metric
    found = list(metric_at_the_truth(Case(training=training)))
    assert [(finding.code, finding.severity) for finding in found] == [("metric-wrong", "serious")]


@pytest.mark.parametrize("learnt", [0, 3])
@pytest.mark.parametrize("metric", [accuracy, macro_f1, percent, likelihood])
def test_usual_metrics_raise_no_alarm(metric: Callable[[Any, Any], float], learnt: int) -> None:
    training = tiny_training("cnn", num=128)
    if learnt:
        learn(training, learnt)
    training.metric = metric
    assert findings(training) == []


def by_batches(training: Training, weighted: bool) -> Callable[[], float]:
    def evaluate() -> float:
        training.model.eval()
        with torch.no_grad():
            parts = [(accuracy(training.model(x), y), len(y)) for x, y in training.val]
        if weighted:
            return sum(share * num for share, num in parts) / sum(num for _, num in parts)
        return sum(share for share, _ in parts) / len(parts)

    return evaluate


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("metric", [None, accuracy])
def test_a_mean_over_unequal_batches_is_found(metric: Callable[[Any, Any], float] | None, seed: int) -> None:
    training = learn(tiny_training("cnn", seed=seed, num_val=37), 1)
    training.metric, training.evaluate = metric, by_batches(training, weighted=False)
    found = findings(training)
    assert [finding.code for finding in found] == ["metric-wrong"]
    assert found[0].evidence["last_batch"] == 5
    training.evaluate = by_batches(training, weighted=True)
    assert findings(training) == []


def test_an_evaluation_that_returns_something_else_is_left_alone() -> None:
    training = learn(tiny_training("cnn", num_val=37), 1)
    training.evaluate = lambda: -0.25
    assert findings(training) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_trainings_pass(kind: Any) -> None:
    assert findings(tiny_training(kind, num=64)) == []
