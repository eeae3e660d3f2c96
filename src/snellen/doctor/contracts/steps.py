"""What one training step does: weights must move, gradients must be fresh, and what is frozen must stay."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snellen.core.finding import Finding
from snellen.doctor.case import Batch, Case, Training
from snellen.doctor.contracts.probing import (
    NAMED,
    NormBase,
    first,
    forget_gradients,
    held_by,
    hooked,
    is_norm_buffer,
    restore_rates,
    same,
    some,
)
from snellen.doctor.safety import untouched

_MOST_STEPS = 64  # micro-batches for one step of the optimizer that are waited for
_LEAST_RATE = 1e-6  # below it single precision may round an honest step away
_FITS = 1e-3  # of a gradient's length: how closely it is one of two explanations
_DIFFERS = 0.01  # of a gradient's length: how far it is from the other


def calls_per_step(training: Training) -> int:
    """How many batches ``take_step`` is given for one step of the optimizer; 0: none was seen. Within ``untouched``."""
    if training.step is None or training.optimizer is None:
        return 1
    calls = 0
    made: list[int] = []
    with hooked([training.optimizer.register_step_post_hook(lambda *_: made.append(calls))]):
        for batch in islice(training.train, _MOST_STEPS):
            calls += 1
            training.take_step(batch)
            if len(made) > 1:
                return max(1, made[1] - made[0])
    return 0


def step_changes_nothing(case: Case) -> Iterator[Finding]:
    """Steps with a rate and a gradient after which every weight of the optimizer is what it was."""
    training = case.training
    if training is None or training.optimizer is None:
        return
    with untouched(training):
        if restore_rates(training) < _LEAST_RATE or not _has_gradient(training, first(training.train, 1)):
            return
        batches, steps, empty, changed = _take(training)
    if changed and empty == 0:
        return
    if steps == 0 and batches == _MOST_STEPS:
        return  # it may be called once in more batches than these
    if steps and not changed:
        what = f"{steps} steps of the optimizer changed none of its weights"
    elif steps == 0:
        what = f"The optimizer's step was not called in a whole epoch of {batches} batches"
    else:
        what = f"The gradients were empty each time the optimizer took a step ({steps} times)"
    yield Finding(
        code="step-changes-nothing",
        severity="serious",
        message=f"{what}, though the loss has a gradient.",
        advice="Clear the gradients, compute the loss, call backward, then the optimizer's step, in this order.",
        evidence={"steps": steps, "batches": batches, "with_empty_gradients": empty},
        treatment={"change": "house step"},
    )


def _has_gradient(training: Training, batches: list[Batch]) -> bool:
    """Whether the house's own way of computing gradients gives the optimizer's weights any."""
    if not batches:
        return False
    forget_gradients(training)
    training.model.train()
    loss = training.loss_of(batches[0])
    if not loss.requires_grad or not bool(torch.isfinite(loss.detach())):
        return False
    loss.backward()  # type: ignore[no-untyped-call]
    found = any(each.grad is not None and bool(each.grad.count_nonzero()) for each in held_by(training).values())
    forget_gradients(training)
    return found


def _take(training: Training) -> tuple[int, int, int, bool]:
    """Batches, steps of the optimizer, how many of them had no gradient at all, and whether a weight changed.

    It ends with the first step that has a gradient and changes something.
    """
    held = list(held_by(training).values())
    before = [each.detach().clone() for each in held]
    gradients: list[bool] = []

    def look(*_: Any) -> None:
        gradients.append(any(each.grad is not None and bool(each.grad.count_nonzero()) for each in held))

    assert training.optimizer is not None
    changed, taken = False, 0
    with hooked([training.optimizer.register_step_pre_hook(look)]):
        for batch in islice(training.train, _MOST_STEPS):
            training.take_step(batch)
            taken += 1
            changed = any(not torch.equal(each, old) for each, old in zip(held, before, strict=True))
            if changed and any(gradients):
                return taken, len(gradients), 0, True
            if len(gradients) >= 4 and not any(gradients):
                break
    return taken, len(gradients), len(gradients) - sum(gradients), changed


def gradients_not_cleared(case: Case) -> Iterator[Finding]:
    """The gradient of the second of two steps is the sum of both, rather than that of its own batch.

    It is recomputed at the same weights with the same random numbers. Clipping changes only its length. Where the
    gradient is neither of the two (a penalty, mixing within the step), nothing is said.
    """
    training = case.training
    if training is None or training.optimizer is None or training.step is None:
        return
    with untouched(training):
        restore_rates(training)
        batches = first(training.train, 2)
        seen = _two_steps(training, training.optimizer, batches) if len(batches) == 2 else None
    if seen is None:
        return
    fresh, kept = _misfit(seen[1], seen[2]), _misfit(seen[1], seen[0] + seen[2])
    if kept > _FITS or fresh < _DIFFERS:
        return
    yield Finding(
        code="gradients-not-cleared",
        severity="serious",
        message="Gradients pile up: that of the second of two steps is the sum of both batches' "
        f"(it fits to {kept:.0e} of its length; the batch's own gradient is off by {fresh:.2f}).",
        advice="Call optimizer.zero_grad() before each backward pass, or once for each accumulated step.",
        evidence={"misfit_of_sum": kept, "misfit_of_own": fresh},
        treatment={"change": "house step"},
    )


def _two_steps(training: Training, optimizer: Optimizer, batches: list[Batch]) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients at the first and at the second step of the optimizer, and the second batch's own; None where a step
    is not taken for each batch, or the second has no gradient of its own."""
    held = list(held_by(training).values())
    captured: list[Tensor] = []
    modes: list[dict[nn.Module, bool]] = []

    def capture(*_: Any) -> None:
        captured.append(_gradient(held))
        modes.append({module: module.training for module in training.model.modules()})

    forget_gradients(training)
    with hooked([optimizer.register_step_pre_hook(capture)]):
        torch.manual_seed(0)
        training.take_step(batches[0])
        weights = [tensor.detach().clone() for tensor in _state(training)]
        torch.manual_seed(1)
        training.take_step(batches[1])
    if len(captured) != 2:
        return None
    with torch.no_grad():
        for tensor, value in zip(_state(training), weights, strict=True):
            tensor.copy_(value)
    forget_gradients(training)
    for module, mode in modes[1].items():
        module.training = mode
    torch.manual_seed(1)
    loss = training.loss_of(batches[1])
    if not loss.requires_grad:
        return None
    loss.backward()  # type: ignore[no-untyped-call]
    return captured[0], captured[1], _gradient(held)


def _state(training: Training) -> list[Tensor]:
    return [*training.model.parameters(), *training.model.buffers()]


def _gradient(parameters: list[Tensor]) -> Tensor:
    """All gradients as one vector, zeros where there is none."""
    parts = [torch.zeros_like(each) if each.grad is None else each.grad.detach() for each in parameters]
    return torch.cat([part.flatten().cpu().double() for part in parts])


def _misfit(seen: Tensor, explanation: Tensor) -> float:
    """Length of what the best positive multiple of ``explanation`` leaves of ``seen``, as a share of its length."""
    length = float(seen.norm())
    if not 0 < length < float("inf") or float(explanation.norm()) == 0:
        return 1.0
    scale = max(0.0, float(seen @ explanation / (explanation @ explanation)))
    return float((seen - scale * explanation).norm()) / length


def frozen_parts_move(case: Case) -> Iterator[Finding]:
    """Weights that are frozen and change all the same, and running statistics of frozen batch norms that do."""
    training = case.training
    if training is None or (training.optimizer is None and training.step is None):
        return
    if not any(each.requires_grad for each in training.model.parameters()):
        return
    with untouched(training):
        batches = first(training.train, 2)
        moved = _moved_weights(training, batches)
    with untouched(training):
        norms = _moved_norms(training, batches)
    if moved:
        yield Finding(
            code="frozen-parts-move",
            severity="serious",
            message=f"{len(moved)} frozen weight tensors change in a training step: {some(moved)}.",
            advice="Leave frozen weights out of the optimizer: old gradients, momentum or weight decay move them.",
            evidence={"parameters": moved[:NAMED], "count": len(moved)},
            treatment={"change": "house step"},
        )
    if norms:
        yield Finding(
            code="frozen-parts-move",
            severity="warning",
            message=f"The statistics of {len(norms)} frozen batch norms move in a training step: {some(norms)}.",
            advice="Put frozen parts into evaluation mode after each call of train(): requires_grad_(False) does not "
            "stop their statistics.",
            evidence={"buffers": norms[:NAMED], "count": len(norms)},
            treatment={"change": "frozen norms"},
        )


def _moved_weights(training: Training, batches: list[Batch]) -> list[str]:
    held = held_by(training)
    frozen = {
        name: each for name, each in training.model.named_parameters() if not each.requires_grad and id(each) in held
    }
    before = {name: each.detach().clone() for name, each in frozen.items()}
    restore_rates(training)
    if frozen:
        for batch in batches:
            training.take_step(batch)
    return [name for name, each in frozen.items() if not torch.equal(each, before[name])]


def _moved_norms(training: Training, batches: list[Batch]) -> list[str]:
    """Names of the norms. A norm that the model's own answer does not pass through is a copy (averaged weights, a
    teacher), and one whose neighbours all learn was frozen for its own sake: both are left out."""
    norms = {
        name: module
        for name, module in training.model.named_modules()
        if isinstance(module, NormBase) and module.running_mean is not None and _is_frozen(module)
    }
    weights = [m for m in training.model.modules() if not isinstance(m, NormBase) and list(m.parameters(False))]
    if not norms or not batches or not any(_is_frozen(module) for module in weights):
        return []
    passed: set[nn.Module] = set()
    with hooked([each.register_forward_hook(lambda m, *_: passed.add(m)) for each in norms.values()]):
        training.model.eval()
        with torch.no_grad():
            training.loss_of(batches[0])
    before = {name: buffer.clone() for name, buffer in training.model.named_buffers() if is_norm_buffer(name)}
    for batch in batches:
        training.take_step(batch)
    after = dict(training.model.named_buffers())
    moved = {name.rpartition(".")[0] for name, old in before.items() if not same(after[name], old)}
    return [name for name, module in norms.items() if name in moved and module in passed]


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(False))
    return bool(own) and not any(each.requires_grad for each in own)
