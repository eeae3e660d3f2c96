"""Where a NaN or an infinity began."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snellen.core.errors import DivergenceError
from snellen.core.plan import Plan
from snellen.core.sample import Batch
from snellen.tasks.base import Task

_SHOWN = 4  # image names in the message


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    if isinstance(value, tuple | list):
        return all(_finite(item) for item in value)
    return True


def explain_divergence(
    model: nn.Module, task: Task[Any], batch: Batch[Any], plan: Plan, *, step: int
) -> DivergenceError:
    """The error to raise when the loss or a gradient of ``batch`` is not finite: it names module, step and images.

    One more forward pass finds the first module whose output is not finite although its input is. The model is not
    used again, so its batch-norm statistics may move.
    """
    names = ", ".join(batch.ids[:_SHOWN]) + (", ..." if len(batch.ids) > _SHOWN else "")
    return DivergenceError(
        f"training diverged at step {step}: {_origin(model, task, batch, plan)}; the batch held {names}. "
        f"{_lower(plan)}, or look at these images; the best model so far is kept"
    )


def explain_validation(model: nn.Module, plan: Plan, *, step: int) -> DivergenceError:
    """The error to raise when the validation loss is not finite, although every training loss before it was."""
    origin = _bad_weights(model) or "the weights are finite, so some output is too large"
    return DivergenceError(
        f"training diverged: after step {step} the validation loss is not finite ({origin}). {_lower(plan)}; "
        "the best model so far is kept"
    )


def _lower(plan: Plan) -> str:
    return f"Lower --lr (now {plan.lr:g}) and --body-lr (now {plan.body_lr:g})"


def _bad_weights(model: nn.Module) -> str | None:
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"the weights '{name}' are no longer finite"
    for name, buffer in model.named_buffers():
        if not _finite(buffer):
            return f"the statistics '{name}' are no longer finite"
    return None


def _origin(model: nn.Module, task: Task[Any], batch: Batch[Any], plan: Plan) -> str:
    weights = _bad_weights(model)
    if weights is not None:
        return weights
    culprit = _first_bad_module(model, task, batch, plan)
    if culprit is not None:
        return f"the first value that is not finite comes out of '{culprit}'"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"the gradient of '{name}' is not finite, although the loss is"
    return "the loss is not finite, although every module's output is"


def _first_bad_module(model: nn.Module, task: Task[Any], batch: Batch[Any], plan: Plan) -> str | None:
    from snellen.nn.precision import arithmetic

    found: list[str] = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not _finite(output) and _finite(inputs):
                found.append(name)

        return look

    handles = [module.register_forward_hook(hook(name or "the model")) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), arithmetic(torch.device(plan.device), plan.train_precision):
            task.losses(model, batch, plan)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
