"""How contracts look at a training: a few batches, the outputs in one mode, the order in which weights are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from snellen.doctor.case import Batch, Training

NormBase = _NormBase  # what has running statistics: batch norms, and instance norms that are told to
NAMED = 8  # names or numbers spelt out in a sentence's evidence


def first(loader: Iterable[Batch], num: int) -> list[Batch]:
    """The first ``num`` batches of a loader, or as many as there are."""
    return list(islice(loader, num))


def outputs_of(training: Training, inputs: Any, *, learning: bool = False) -> Any:
    """What the model says of a batch in evaluation mode, or in training mode; no gradients."""
    training.model.train(learning)
    with torch.no_grad():
        return training.model(inputs)


def names_of(model: nn.Module) -> dict[int, str]:
    """Name of each parameter, by its id; weights that are shared go by their first name."""
    return {id(parameter): name for name, parameter in reversed(list(model.named_parameters(remove_duplicate=False)))}


def some(names: Sequence[str]) -> str:
    """A few names for a sentence: ``a, b, c and 4 more``."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def held_by(training: Training) -> dict[int, Tensor]:
    """The parameters in the optimizer's groups, by id; empty without an optimizer."""
    if training.optimizer is None:
        return {}
    return {id(each): each for group in training.optimizer.param_groups for each in group["params"]}


def forget_gradients(training: Training) -> None:
    """Every gradient becomes None, those of the optimizer's other parameters as well."""
    for parameter in (*training.model.parameters(), *held_by(training).values()):
        parameter.grad = None


def restore_rates(training: Training) -> float:
    """Give every group the rate that its schedule starts from or rises to, where it is below that, as it is at the end
    of a training; returns the highest."""
    if training.optimizer is None:
        return 0.0
    for group in training.optimizer.param_groups:
        known = [float(group[name]) for name in ("lr", "initial_lr", "max_lr") if name in group]
        highest = max(known)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(highest)
        else:
            group["lr"] = highest
    return max(float(group["lr"]) for group in training.optimizer.param_groups)


def is_norm_buffer(name: str) -> bool:
    """Whether a buffer holds running statistics, by its name."""
    return name.rpartition(".")[2] in ("running_mean", "running_var")


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN is the same as NaN."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


class UseOrder(TorchFunctionMode):
    """Which of ``watched`` parameters torch's functions are called with, in the order of their first use."""

    def __init__(self, watched: Iterable[Tensor]) -> None:
        super().__init__()
        self._watched = {id(each) for each in watched}
        self.order: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name not in ("__get__", "__set__"):  # reading an attribute of a parameter is no use of its values
            for each in _tensors((*args, *(kwargs or {}).values())):
                if id(each) in self._watched:
                    self.order.setdefault(id(each), len(self.order))
        return func(*args, **(kwargs or {}))


def _tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, list | tuple):
            yield from _tensors(part)


@contextmanager
def hooked(handles: Iterable[Any]) -> Iterator[None]:
    """Takes hooks away again, whatever happens."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()
