"""Experiments leave no trace: whatever happens within the block, the training is afterwards what it was, to the bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snellen.doctor.case import Training


@contextmanager
def untouched(training: Training) -> Iterator[None]:
    """Put back weights, buffers, gradients, what is trainable, modes, optimizer, scheduler and every random state.

    Random states are those of Python, numpy and torch (CPU and CUDA), and of the generators of the training's loaders.
    """
    generators = list(_generators((training.train, training.val, training.plain)))
    states = [generator.get_state() for generator in generators]
    model = _ModelState(training.model)
    optimizer = None if training.optimizer is None else _OptimizerState(training.optimizer)
    scheduler = _state_of(training.scheduler)
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        model.restore()
        if optimizer is not None:
            optimizer.restore()
        if scheduler is not None:
            training.scheduler.load_state_dict(scheduler)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


class _ModelState:
    """Copies of every tensor of a model, and what is set on its parts."""

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._parameters = [
            (each, each.requires_grad, None if each.grad is None else each.grad.clone()) for each in model.parameters()
        ]
        self._modes = [(module, module.training) for module in model.modules()]
        self._slots = [(module, dict(module._buffers)) for module in model.modules()]

    def restore(self) -> None:
        with torch.no_grad():
            for module, buffers in self._slots:  # a buffer may have been replaced rather than filled
                module._buffers.clear()
                module._buffers.update(buffers)
            for tensor, before in self._tensors:
                tensor.copy_(before)
        for parameter, trainable, gradient in self._parameters:
            parameter.requires_grad_(trainable)
            parameter.grad = gradient
        for module, mode in self._modes:
            module.training = mode


class _OptimizerState:
    """The settings of the groups, and a copy of the memory of each parameter."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._groups = [
            {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        self._params = [list(group["params"]) for group in optimizer.param_groups]
        self._memory = {
            parameter: {name: _copied(value) for name, value in memory.items()}
            for parameter, memory in optimizer.state.items()
        }

    def restore(self) -> None:
        del self._optimizer.param_groups[len(self._groups) :]
        for group, settings, params in zip(self._optimizer.param_groups, self._groups, self._params, strict=True):
            group.clear()
            group.update(settings, params=params)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._memory)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _state_of(scheduler: Any) -> Any:
    if scheduler is None or not hasattr(scheduler, "state_dict"):
        return None
    return copy.deepcopy(scheduler.state_dict())


def _generators(loaders: Iterable[Any]) -> Iterator[torch.Generator]:
    """The generators that loaders, their samplers and their data sets draw from, each once."""
    seen: set[int] = set()
    for loader in loaders:
        for owner in (loader, *(getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset"))):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator) and id(generator) not in seen:
                seen.add(id(generator))
                yield generator
