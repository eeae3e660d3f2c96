"""Contracts of weights and steps: who gets a gradient, who is in the optimizer, and what a step does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doctor_cases import learn, tiny_training
from snellen.core.finding import Finding
from snellen.doctor.case import Batch, Case, Training
from snellen.doctor.contracts.parameters import optimizer_parameters, unreached_parameters
from snellen.doctor.contracts.steps import (
    calls_per_step,
    frozen_parts_move,
    gradients_not_cleared,
    step_changes_nothing,
)
from snellen.doctor.safety import untouched

CHECKS = (unreached_parameters, optimizer_parameters, step_changes_nothing, gradients_not_cleared, frozen_parts_move)


def findings(training: Training) -> list[Finding]:
    return [finding for check in CHECKS for finding in check(Case(training=training))]


def only(training: Training) -> Finding:
    (finding,) = findings(training)
    assert json.loads(json.dumps(finding.to_json()))["evidence"] and finding.advice
    return finding


class Detached(nn.Module):
    """A body whose gradients are cut off before the head."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = net[:-1], net[-1]

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.body(images).detach())
        return answer


def replaced_head(training: Training) -> None:
    """The optimizer was built before the head was put in."""
    assert isinstance(training.model, nn.Sequential)
    training.model[-1] = nn.Linear(32, 4)


def cut_off(training: Training) -> None:
    assert isinstance(training.model, nn.Sequential)
    training.model = Detached(training.model)


def own_step(training: Training, step: Callable[[Training, torch.optim.Optimizer, Batch], Any]) -> None:
    assert training.optimizer is not None
    optimizer = training.optimizer

    def take(batch: Batch) -> None:
        training.model.train()
        step(training, optimizer, batch)

    training.step = take


def never_clears(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    training.loss_of(batch).backward()
    optimizer.step()


def never_clears_but_clips(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    training.loss_of(batch).backward()
    nn.utils.clip_grad_norm_(training.model.parameters(), 0.05)
    optimizer.step()


def clears_too_late(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    training.loss_of(batch).backward()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()


def never_steps(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad()
    training.loss_of(batch).backward()


@pytest.mark.parametrize("seed", range(2))
def test_a_cut_between_body_and_head_is_found_and_names_the_body(seed: int) -> None:
    training = tiny_training("cnn", seed=seed)
    cut_off(training)
    finding = only(training)
    assert (finding.code, finding.severity, finding.certainty) == ("unreached-parameters", "serious", "certain")
    assert finding.evidence["count"] == 12 and all(name.startswith("body") for name in finding.evidence["parameters"])


def test_dead_units_are_observed_and_not_diagnosed() -> None:
    training = tiny_training("mlp", norm="none")
    with torch.no_grad():
        training.model[1].bias.fill_(-1000)  # type: ignore[index, union-attr, operator]
    finding = only(training)
    assert (finding.code, finding.certainty, finding.evidence["zero"]) == ("unreached-parameters", "observed", True)
    assert set(finding.evidence["parameters"]) >= {"1.weight", "1.bias"}


@pytest.mark.parametrize("seed", range(2))
def test_a_head_that_the_optimizer_does_not_hold_is_found(seed: int) -> None:
    training = learn(tiny_training("cnn", seed=seed), 1)
    replaced_head(training)
    found = {finding.code: finding for finding in findings(training)}
    assert found.keys() == {"optimizer-misses-parameters", "optimizer-holds-strangers"}
    assert found["optimizer-misses-parameters"].evidence["parameters"] == ["6.weight", "6.bias"]
    assert all(finding.treatment == {"change": "all parameters"} for finding in found.values())


def test_training_a_head_alone_on_purpose_is_no_more_than_information() -> None:
    training = tiny_training("cnn")
    training.optimizer = torch.optim.SGD(training.model[-1].parameters(), 0.1)  # type: ignore[index]
    finding = only(training)
    assert (finding.code, finding.severity) == ("optimizer-misses-parameters", "info")


def test_weights_of_another_optimizer_in_the_step_are_not_missing() -> None:
    training = tiny_training("cnn")
    head = torch.optim.SGD(training.model[-1].parameters(), 0.1)  # type: ignore[index]
    training.optimizer = torch.optim.SGD(training.model[:-1].parameters(), 0.1)  # type: ignore[index]

    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        optimizer.zero_grad()
        head.zero_grad()
        training.loss_of(batch).backward()
        optimizer.step()
        head.step()

    own_step(training, step)
    assert findings(training) == []


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [clears_too_late, never_steps])
def test_steps_that_change_nothing_are_found(step: Any, optimizer: str) -> None:
    training = tiny_training("cnn", optimizer=optimizer)
    own_step(training, step)
    finding = only(training)
    assert (finding.code, finding.treatment) == ("step-changes-nothing", {"change": "house step"})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("step", [never_clears, never_clears_but_clips])
def test_gradients_that_pile_up_are_found_even_at_the_end_of_the_schedule(step: Any, seed: int) -> None:
    training = tiny_training("cnn", seed=seed, num=128, dropout=0.3, scheduler="cosine", epochs=3)
    learn(training)  # its rate is 0 now
    own_step(training, step)
    finding = only(training)
    assert finding.code == "gradients-not-cleared"
    assert finding.evidence["misfit_of_sum"] < 1e-4 < 0.01 < finding.evidence["misfit_of_own"]


def frozen_body(training: Training) -> None:
    for parameter in training.model[:-1].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    training.optimizer = torch.optim.SGD([p for p in training.model.parameters() if p.requires_grad], 0.1)


def test_statistics_of_a_frozen_body_that_move_are_found() -> None:
    training = tiny_training("cnn")
    frozen_body(training)
    finding = only(training)
    assert (finding.code, finding.severity) == ("frozen-parts-move", "warning")
    assert finding.evidence["buffers"] == ["0.1", "1.1", "2.1"]
    assert finding.treatment == {"change": "frozen norms"}


def test_frozen_weights_that_move_by_momentum_are_found() -> None:
    training = learn(tiny_training("cnn", optimizer="sgd", scheduler="none"), 1)
    own_step(training, lambda t, o, b: (o.zero_grad(set_to_none=False), t.loss_of(b).backward(), o.step()))
    for parameter in training.model[0][0].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    assert [f.evidence["parameters"] for f in findings(training) if f.code == "frozen-parts-move"] == [
        ["0.0.weight", "0.0.bias"]
    ]


def test_a_frozen_body_kept_in_evaluation_mode_is_healthy() -> None:
    training = tiny_training("cnn")
    frozen_body(training)

    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        training.model[:-1].eval()  # type: ignore[index]
        optimizer.zero_grad()
        training.loss_of(batch).backward()
        optimizer.step()

    own_step(training, step)
    assert findings(training) == []


class Averaged(nn.Module):
    """A net with a trainable-looking average of itself inside, as torch's AveragedModel makes it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.average = net, copy.deepcopy(net)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.net(images)
        return answer


class GatedTied(nn.Module):
    """Two layers that share their weights, a residual gate and a head that start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(432, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight = self.one.weight
        self.gate, self.head = nn.Parameter(torch.zeros(1)), nn.Linear(16, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.gelu(self.stem(images.flatten(1)))
        answer: Tensor = self.head(hidden + self.gate * self.two(F.gelu(self.one(hidden))))
        return answer


def averaged(training: Training) -> None:
    model = Averaged(training.model)
    optimizer = torch.optim.AdamW(model.net.parameters(), 1e-3)
    training.model, training.optimizer = model, optimizer

    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        optimizer.zero_grad()
        training.loss_of(batch).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(model.average.state_dict().values(), model.net.state_dict().values(), strict=True):
                slow.copy_(slow + 0.1 * (fast - slow))

    own_step(training, step)


def frozen_average(training: Training) -> None:
    averaged(training)
    training.model.average.requires_grad_(False)  # type: ignore[union-attr, operator]


def gated(training: Training) -> None:
    torch.manual_seed(0)
    training.model = GatedTied()
    training.optimizer = torch.optim.SGD(training.model.parameters(), 0.1)


def clipped(training: Training) -> None:
    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        optimizer.zero_grad()
        training.loss_of(batch).backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), 0.01)
        nn.utils.clip_grad_value_(training.model.parameters(), 0.001)
        optimizer.step()

    own_step(training, step)


def half_precision(training: Training) -> None:
    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = training.loss_of(batch)
        loss.backward()
        optimizer.step()

    own_step(training, step)


def accumulated(training: Training, every: int = 3) -> None:
    count = 0

    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        nonlocal count
        (training.loss_of(batch) / every).backward()
        count += 1
        if count % every == 0:
            optimizer.step()
            optimizer.zero_grad()

    own_step(training, step)


def mixed(training: Training) -> None:
    """MixUp within the step, as it is usual."""

    def step(training: Training, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        inputs, targets = batch
        order, share = torch.randperm(len(inputs)), float(torch.rand(()))
        outputs = training.model(share * inputs + (1 - share) * inputs[order])
        optimizer.zero_grad()
        (share * training.loss(outputs, targets) + (1 - share) * training.loss(outputs, targets[order])).backward()
        optimizer.step()

    own_step(training, step)


HEALTHY = [averaged, frozen_average, gated, clipped, half_precision, accumulated, mixed]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", HEALTHY, ids=lambda make: make.__name__)
def test_unusual_but_healthy_steps_raise_no_alarm(make: Callable[[Training], None], seed: int) -> None:
    training = tiny_training("cnn", seed=seed, num=128, dropout=0.3, scheduler="none")
    make(training)
    assert findings(training) == []
    learn(training, 1)
    assert findings(training) == []


def test_batches_for_each_step_of_the_optimizer_are_counted() -> None:
    training = tiny_training("mlp")
    with untouched(training):
        assert calls_per_step(training) == 1
    accumulated(training, every=4)
    with untouched(training):
        assert calls_per_step(training) == 4


def test_a_training_without_optimizer_is_left_alone() -> None:
    training = tiny_training("mlp")
    training.optimizer = None
    assert findings(training) == []
    assert [finding for check in CHECKS for finding in check(Case())] == []
