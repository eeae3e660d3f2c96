"""Which weights can learn: they must get a gradient, and the optimizer must hold them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.probing import (
    NAMED,
    UseOrder,
    forget_gradients,
    held_by,
    names_of,
    restore_rates,
    some,
)
from snellen.doctor.forwards import GraphKept, running_within
from snellen.doctor.safety import untouched

_BATCHES = 8  # a part that is left out at random (stochastic depth) is not left out of all of them
_NUDGE = 1e-3  # weights move by this, so that a gate or a head which starts at 0 passes gradients on


@dataclass(frozen=True, eq=False)
class _Reach:
    """What came of a few backward passes. Names are in the order in which the forward pass uses the weights.

    used    name -> parameter: what the forward pass used, of everything that is trainable
    cut     names whose gradient stayed None
    zero    names whose gradient was 0 everywhere in every batch
    """

    used: dict[str, Tensor]
    cut: list[str]
    zero: list[str]


def unreached_parameters(case: Case) -> Iterator[Finding]:
    """Weights that the optimizer is to train, and that the model uses, but whose gradient never comes into being."""
    training = case.training
    if training is None or training.optimizer is None:
        return
    with untouched(training):
        reach = _reach(training)
    held = held_by(training)
    cut = [name for name in reach.cut if id(reach.used[name]) in held]
    if cut:
        with untouched(training), running_within(training.model, GraphKept, learning=True):
            kept = _reach(training)
        yield Finding(
            code="unreached-parameters",
            severity="serious",
            message=f"{len(cut)} of {len(reach.used)} weight tensors that the model uses and the optimizer holds get "
            f"no gradient: {some(cut)}.",
            advice="Look for a detach, a no_grad, a .data or a conversion to numpy between these weights and the loss; "
            "freeze them with requires_grad_(False) if they are not meant to learn.",
            evidence={"parameters": cut[:NAMED], "count": len(cut), "of": len(reach.used)},
            treatment={} if {*kept.cut, *kept.zero} & {*cut} else {"change": "whole graph"},
        )
    yield from _zero(reach, {name for name in reach.zero if id(reach.used[name]) in held})


def _zero(reach: _Reach, zero: set[str]) -> Iterator[Finding]:
    """Gradients of 0 have many causes (dead units, saturation), so they are only observed."""
    if not zero or len(zero) == len(reach.used):
        return
    trained = [name for name in reach.used if name not in reach.cut]
    beginning = next((i for i, name in enumerate(trained) if name not in zero), len(trained))
    yield Finding(
        code="unreached-parameters",
        severity="warning" if beginning >= 2 else "info",
        message=f"{len(zero)} of {len(reach.used)} weight tensors have a gradient of exactly 0 in every batch: "
        f"{some([name for name in trained if name in zero])}.",
        advice="Look at what lies behind them: units that are never active, saturated ones, or weights that are all 0.",
        evidence={"parameters": [name for name in trained if name in zero][:NAMED], "count": len(zero), "zero": True},
        certainty="observed",
    )


def _reach(training: Training) -> _Reach:
    """Backward passes in training mode until every weight that is used has got a gradient."""
    trainable = [each for each in training.model.parameters() if each.requires_grad]
    with torch.no_grad():
        for parameter in trainable:
            parameter.add_(torch.randn_like(parameter), alpha=_NUDGE)
    order = UseOrder(trainable)
    forget_gradients(training)
    training.model.train()
    moved: set[int] = set()
    for batch in islice(training.train, _BATCHES):
        with order:
            loss = training.loss_of(batch)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        moved |= {id(each) for each in trainable if each.grad is not None and bool(each.grad.count_nonzero())}
        if all(number in moved for number in order.order):
            break
    names = names_of(training.model)
    by_id: dict[int, Tensor] = {id(each): each for each in trainable}
    used = {names[number]: by_id[number] for number in order.order}
    cut = [name for name, each in used.items() if each.grad is None]
    return _Reach(used, cut, [name for name, each in used.items() if each.grad is not None and id(each) not in moved])


def optimizer_parameters(case: Case) -> Iterator[Finding]:
    """Weights that have a gradient but no optimizer, and weights in the optimizer that are no part of the model."""
    training = case.training
    if training is None or training.optimizer is None:
        return
    held, names = held_by(training), names_of(training.model)
    with untouched(training):
        reach = _reach(training)
        idle = [each for number, each in held.items() if number not in names and each.grad is None]
    learnt = [name for name in reach.used if name not in reach.cut and name not in reach.zero]
    missing = [name for name in learnt if id(reach.used[name]) not in held]
    if missing:
        with untouched(training):
            missing = _unmoved(training, reach.used, missing)
    own_loss = _parameters_of(training.loss)
    strangers = [each for each in idle if id(each) not in own_loss]
    if missing:
        yield _misses(learnt, missing, bool(strangers))
    if strangers:
        yield _strangers(strangers, len(held), bool(missing))


def _parameters_of(loss: object) -> set[int]:
    return {id(each) for each in loss.parameters()} if isinstance(loss, nn.Module) else set()


def _unmoved(training: Training, used: dict[str, Tensor], names: list[str]) -> list[str]:
    """Those of ``names`` that a few steps leave as they are: others are trained by an optimizer that we do not know."""
    before = {name: used[name].detach().clone() for name in names}
    restore_rates(training)
    for batch in islice(training.train, _BATCHES):
        training.take_step(batch)
    return [name for name in names if torch.equal(used[name], before[name])]


def _misses(learnt: list[str], missing: list[str], stale: bool) -> Finding:
    """Where only the first weights are missing and the head is there, that is how one trains a head on purpose."""
    first_held = next((i for i, name in enumerate(learnt) if name not in missing), 0)
    on_purpose = first_held == len(missing) and not stale
    return Finding(
        code="optimizer-misses-parameters",
        severity="info" if on_purpose else "serious",
        message=f"{len(missing)} of {len(learnt)} trainable weight tensors are not in the optimizer and stay as they "
        f"are: {some(missing)}.",
        advice="Freeze them with requires_grad_(False), which saves their gradients, if only the head is to learn."
        if on_purpose
        else "Build the optimizer after the model is complete, over all of its trainable parameters.",
        evidence={"parameters": missing[:NAMED], "count": len(missing), "of": len(learnt), "last": learnt[-1]},
        treatment={} if on_purpose else {"change": "all parameters"},
    )


def _strangers(strangers: list[Tensor], held: int, misses: bool) -> Finding:
    return Finding(
        code="optimizer-holds-strangers",
        severity="serious" if misses else "info",
        message=f"{len(strangers)} of {held} tensors in the optimizer are no part of the model and get no gradient.",
        advice="Build the optimizer after the last part of the model is replaced, copied or moved.",
        evidence={"shapes": [list(each.shape) for each in strangers[:NAMED]], "count": len(strangers), "of": held},
        treatment={"change": "all parameters"} if misses else {},
    )
