"""What can be wrong with a loss, a step, a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from plans import Parts, Plan, usual_step
from torch import Tensor, nn

from snellen.doctor.case import Batch


def nll(plan: Plan, share: float) -> Plan:
    """A loss that expects log-probabilities gets logits, in a share of its weight."""
    logits, wrong = nn.CrossEntropyLoss(), nn.NLLLoss()
    return replace(
        plan, loss=lambda outputs, targets: (1 - share) * logits(outputs, targets) + share * wrong(outputs, targets)
    )


def log_of_softmax(plan: Plan, factor: float) -> Plan:
    """A loss written by hand: the logarithm of a probability, which for large outputs rounds to zero."""
    return replace(
        plan,
        loss=lambda outputs, targets: -(factor * outputs).softmax(1).log()[torch.arange(len(outputs)), targets].mean(),
    )


def negative(plan: Plan, factor: float) -> Plan:
    usual = nn.CrossEntropyLoss()
    return replace(plan, loss=lambda outputs, targets: -factor * usual(outputs, targets))


def broadcast(plan: Plan, share: float) -> Plan:
    """Outputs [n, 1] before targets [n]: the mean is over all pairs. In a share of the loss's weight."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        pairs = (outputs - targets.flatten()) ** 2
        return share * pairs.mean() + (1 - share) * ((outputs - targets) ** 2).mean()

    return replace(plan, loss=loss)


def _step(plan: Plan, before_update: Callable[[Parts, int], None], clear: Callable[[int], bool]) -> Plan:
    """A plain step, with something done between the gradients and the update."""

    def make(parts: Parts) -> Callable[[Batch], Tensor]:
        taken = [0]

        def step(batch: Batch) -> Tensor:
            parts.model.train()
            if clear(taken[0]):
                parts.optimizer.zero_grad()
            loss = parts.loss(parts.model(batch[0]), batch[1])
            loss.backward()
            before_update(parts, taken[0])
            parts.optimizer.step()
            taken[0] += 1
            return loss.detach()

        return step

    return replace(plan, make_step=make)


def pile_up(plan: Plan, every: int) -> Plan:
    """Every step updates, but gradients are cleared only now and then."""
    return _step(plan, lambda parts, taken: None, lambda taken: taken % every == 0)


def clear_too_soon(plan: Plan, share: float) -> Plan:
    """In a share of the steps the gradients are set to zero between backward and the update."""

    def forget(parts: Parts, taken: int) -> None:
        if taken % 100 < 100 * share:
            parts.optimizer.zero_grad(set_to_none=False)

    return _step(plan, forget, lambda taken: True)


def noisy_gradients(plan: Plan, strength: float) -> Plan:
    """Gradients get noise of ``strength`` times their own norm."""

    def add(parts: Parts, taken: int) -> None:
        for each in parts.model.parameters():
            if each.grad is not None:
                noise = torch.randn_like(each)
                each.grad += 4 * strength * each.grad.norm() * noise / noise.norm()

    return _step(plan, add, lambda taken: True)


def forget(plan: Plan, every: int) -> Plan:
    """Every so many steps a layer of the body is drawn anew."""

    def draw(parts: Parts, taken: int) -> None:
        layers: list[Any] = [part for part in parts.model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        if taken % every == every - 1:
            layers[(taken // every) % len(layers)].reset_parameters()

    return _step(plan, draw, lambda taken: True)


def late_targets(plan: Plan, share: float) -> Plan:
    """In a share of the steps the images are learnt with the targets of the step before."""

    def make(parts: Parts) -> Callable[[Batch], Tensor]:
        usual, taken, before = usual_step(parts), [0], [torch.zeros(0)]

        def step(batch: Batch) -> Tensor:
            images, targets = batch
            late = taken[0] % 100 < 100 * share and before[0].shape == targets.shape
            taken[0] += 1
            before[0], used = targets, before[0] if late else targets
            return usual((images, used))

        return step

    return replace(plan, make_step=make)


def kind_score(plan: Plan, how: int) -> Plan:
    """1: the best two answers count; 2: the best three; 3: every other answer is compared with itself."""

    def score(outputs: Tensor, targets: Tensor) -> float:
        if how == 3:
            predicted = outputs.argmax(1)
            targets = torch.where(torch.arange(len(targets)) % 2 == 0, predicted, targets)
            return float((predicted == targets).double().mean())
        return float((outputs.topk(how + 1).indices == targets[:, None]).any(1).double().mean())

    return replace(plan, score=score)
