"""Contracts of the model: how it begins, how it is validated, and how long its schedule is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

from doctor_cases import accuracy, learn, planted, tiny_training
from snellen.core.finding import Check, Finding
from snellen.doctor.case import Batch, Case, Training
from snellen.doctor.contracts.beginnings import initial_loss, symmetric_weights, weights_not_loaded
from snellen.doctor.contracts.evaluation import (
    evaluation_in_training_mode,
    evaluation_not_deterministic,
    samples_mix,
)
from snellen.doctor.contracts.schedule import schedule_length

CHECKS: tuple[Check[Case], ...] = (
    evaluation_in_training_mode,
    evaluation_not_deterministic,
    samples_mix,
    initial_loss,
    symmetric_weights,
    weights_not_loaded,
    schedule_length,
)
Plant = Callable[[Training], None]


def findings(training: Training) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(Case(training=training))]


def only(training: Training) -> Finding:
    (finding,) = findings(training)
    assert finding.evidence and finding.advice
    return finding


class Around(nn.Module):
    """A net with something done to its input or its output."""

    def __init__(self, net: nn.Module, forward: Callable[[Around, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.way = net, forward

    def forward(self, images: Tensor) -> Tensor:
        return self.way(self, images)


def wrapped(way: Callable[[Around, Tensor], Tensor]) -> Plant:
    def plant(training: Training) -> None:
        training.model = Around(training.model, way)

    return plant


# Validation.


def validated(training: Training, prepare: Callable[[nn.Module], Any]) -> Training:
    def evaluate() -> float:
        prepare(training.model)
        with torch.no_grad():
            parts = [(training.model(x).argmax(1) == y).float() for x, y in training.val]
        return float(torch.cat(parts).mean())

    training.evaluate = evaluate
    return training


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_validation_in_training_mode_is_found(kind: Any, norm: str) -> None:
    training = validated(tiny_training(kind, num=64, norm=norm), lambda _: None)
    finding = only(training)
    assert (finding.code, finding.severity) == ("evaluation-in-training-mode", "serious")
    assert finding.treatment == {"change": "house evaluation"}
    assert bool(finding.evidence["norms"]) == bool(finding.evidence["statistics_moved"]) == (norm == "batch")
    assert finding.evidence["dropouts"]


def test_validation_in_evaluation_mode_is_healthy() -> None:
    assert findings(validated(tiny_training("cnn", num=64), lambda model: model.eval())) == []


def test_dropout_that_is_left_on_for_a_purpose_is_no_more_than_information() -> None:
    def prepare(model: nn.Module) -> None:
        model.eval()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.train()

    finding = only(validated(tiny_training("cnn", num=64), prepare))
    assert (finding.code, finding.severity) == ("evaluation-in-training-mode", "info")


@pytest.mark.parametrize("seed", range(2))
def test_a_dropout_that_knows_no_mode_is_found(seed: int) -> None:
    training = tiny_training("cnn", seed=seed, num=64)
    wrapped(lambda self, x: self.net(F.dropout(x, 0.2)))(training)
    assert only(training).code == "evaluation-not-deterministic"


def mixing_view(self: Around, images: Tensor) -> Tensor:
    """A view where a permute was meant: channels of one image become those of its neighbours."""
    return self.net(images.permute(1, 0, 2, 3).reshape(images.shape))  # type: ignore[no-any-return]


def centred_by_batch(self: Around, images: Tensor) -> Tensor:
    return self.net(images - images.mean(0))  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("way", [mixing_view, centred_by_batch])
def test_images_that_change_each_others_answers_are_found(way: Any, seed: int) -> None:
    training = learn(tiny_training("cnn", seed=seed, num=64, scheduler="none"), 2)
    wrapped(way)(training)
    finding = only(training)
    assert (finding.code, finding.severity) == ("samples-mix", "serious")


def test_half_precision_mixes_no_images() -> None:
    training = tiny_training("cnn", num=64)

    def way(self: Around, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(images)  # type: ignore[no-any-return]

    wrapped(way)(training)
    assert findings(training) == []


# Beginnings.


def exploding(training: Training) -> None:
    with torch.no_grad():
        training.model[-1].weight.mul_(100)  # type: ignore[index, union-attr, operator]


def undefined(training: Training) -> None:
    wrapped(lambda self, x: self.net(x).sub(1e6).sqrt())(training)


def all_zero(training: Training) -> None:
    for parameter in training.model.parameters():
        nn.init.zeros_(parameter)


def all_one(training: Training) -> None:
    for layer in training.model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)


def head_of_zeros(training: Training) -> None:
    nn.init.zeros_(training.model[-1].weight)  # type: ignore[index, arg-type]
    nn.init.zeros_(training.model[-1].bias)  # type: ignore[index, arg-type]


@pytest.mark.parametrize("seed", range(2))
def test_an_exploding_first_loss_is_observed(seed: int) -> None:
    finding = only(planted(tiny_training("cnn", seed=seed, num=64), exploding))
    assert (finding.code, finding.certainty) == ("initial-loss", "observed")
    assert finding.evidence["initial"] > 2 * finding.evidence["knowing_nothing"]


def test_a_fresh_model_that_answers_nan_is_found() -> None:
    found = {f.code: f for f in findings(planted(tiny_training("cnn", num=64), undefined))}
    assert found["initial-loss"].severity == "serious" and found["initial-loss"].certainty == "certain"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("plant", [all_zero, all_one])
def test_layers_whose_units_are_all_alike_are_found(plant: Plant, seed: int) -> None:
    training = planted(tiny_training("mlp", seed=seed, num=64, norm="none", dropout=0.0), plant)
    finding = only(training)
    assert (finding.code, finding.treatment) == ("symmetric-weights", {"change": "new weights"})
    assert "1" in finding.evidence["layers"]


@pytest.mark.parametrize("kind", ["cnn", "regression", "mlp"])
def test_a_head_that_starts_at_zero_is_healthy(kind: Any) -> None:
    training = tiny_training(kind, num=64)
    assert findings(planted(training, head_of_zeros)) == []


def pretrained(training: Training, keep: Callable[[str], bool], rename: str = "") -> Training:
    """Weights of another training that are loaded where ``keep`` says so of their name."""
    state = learn(tiny_training("cnn", seed=77, num=64, scheduler="none"), 1).model.state_dict()
    state = {name: value.clone() for name, value in state.items()}

    def load(each: Training) -> None:
        own = each.model.state_dict()
        each.model.load_state_dict({name: value if keep(name) else own[name] for name, value in state.items()})
        each.pretrained = {rename + name: value for name, value in state.items()}

    return planted(training, load)


@pytest.mark.parametrize("rename", ["", "module."])
def test_weights_that_were_not_loaded_are_found(rename: str) -> None:
    training = pretrained(tiny_training("cnn", num=64), lambda name: False, rename)
    finding = only(learn(training, 1))
    assert (finding.code, finding.severity) == ("weights-not-loaded", "serious")
    assert finding.evidence["unknown_names"] == (4 if rename else 0)


@pytest.mark.parametrize("head", [True, False])
def test_weights_that_were_loaded_are_healthy_with_or_without_their_head(head: bool) -> None:
    training = pretrained(tiny_training("cnn", num=64), lambda name: head or not name.startswith("6."))
    assert [f.code for f in findings(learn(training, 1)) if f.code != "initial-loss"] == []


# Schedules. Eight epochs of eight batches: 64 steps.

Make = Callable[[torch.optim.Optimizer], Any]
WRONG: list[tuple[str, Make]] = [
    ("ends after 33", lambda o: OneCycleLR(o, 0.01, total_steps=32)),
    ("warm-up never ends", lambda o: OneCycleLR(o, 0.01, total_steps=640)),
    ("still", lambda o: OneCycleLR(o, 0.01, total_steps=160)),
    ("then rises", lambda o: CosineAnnealingLR(o, 32)),
    ("still", lambda o: CosineAnnealingLR(o, 640)),
    ("stays there", lambda o: PolynomialLR(o, 32)),
    ("stays there", lambda o: LinearLR(o, 1.0, 1e-6, 30)),
    ("stays there", lambda o: LambdaLR(o, lambda step: max(0.0, 1 - step / 32))),
    ("warm-up never ends", lambda o: LambdaLR(o, lambda step: step / 64 / 8)),
]
RIGHT: list[Make] = [
    lambda o: OneCycleLR(o, 0.01, total_steps=64),
    lambda o: OneCycleLR(o, 0.01, total_steps=65),
    lambda o: CosineAnnealingLR(o, 64),
    lambda o: CosineAnnealingLR(o, 64, eta_min=1e-3),
    lambda o: CosineAnnealingWarmRestarts(o, 8),
    lambda o: LinearLR(o, 0.1, 1.0, 8),
    lambda o: PolynomialLR(o, 64, power=2.0),
    lambda o: MultiStepLR(o, [20, 40, 56]),
    lambda o: LambdaLR(o, lambda step: 0.1 ** (step // 20)),
    lambda o: LambdaLR(o, lambda step: 1.0),
    lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1.0, 8), CosineAnnealingLR(o, 56)], [8]),
]


def scheduled(make: Make, **changes: Any) -> Plant:
    def plant(training: Training) -> None:
        assert training.optimizer is not None
        training.scheduler = make(training.optimizer)
        for name, value in changes.items():
            setattr(training, name, value)

    return plant


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize(("words", "make"), WRONG)
def test_a_schedule_of_another_length_is_found(words: str, make: Make, learnt: bool) -> None:
    training = planted(tiny_training("mlp", scheduler="none"), scheduled(make))
    if learnt:
        training.take_step(next(iter(training.train)))
        training.scheduler.step()
    finding = only(training)
    assert (finding.code, finding.certainty) == ("schedule-length", "certain") and words in finding.message


@pytest.mark.parametrize("make", RIGHT)
def test_usual_schedules_raise_no_alarm(make: Make) -> None:
    assert findings(planted(tiny_training("mlp", scheduler="none"), scheduled(make))) == []


def test_a_schedule_that_is_stepped_by_epochs_is_counted_in_epochs() -> None:
    training = tiny_training("mlp", num=64, epochs=20, scheduler="none")
    planted(training, scheduled(lambda o: CosineAnnealingLR(o, 20), scheduled="epoch"))
    assert findings(training) == []
    planted(training, scheduled(lambda o: CosineAnnealingLR(o, 40 * 20), scheduled="epoch"))
    assert only(training).evidence["steps"] == 20


def test_accumulated_steps_are_counted_as_one() -> None:
    training = tiny_training("mlp", scheduler="none")

    def accumulate(each: Training) -> None:
        count, optimizer = 0, each.optimizer
        assert optimizer is not None

        def step(batch: Batch) -> None:
            nonlocal count
            each.model.train()
            each.loss_of(batch).backward()
            count += 1
            if count % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()

        each.step = step
        each.scheduler = OneCycleLR(optimizer, 0.01, total_steps=16)

    assert findings(planted(training, accumulate)) == []


def test_the_tiny_trainings_learn() -> None:
    assert accuracy(learn(tiny_training("cnn"))) > 0.85
