"""Experiments leave no trace: whatever happens within the block, the training is afterwards what it was, to the bit."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from snellen.doctor.case import Training

_DEPTH = 6  # loader -> sampler -> ... -> a transform's generator
_MEMBERS = 64  # of a list that are looked into: transforms are few, file names are many
_OBJECTS = 5000
# Of tensors beside the net that are kept, and twice its own size more: averaged weights are as large as it is.
_LEAST_BYTES = 2**24
_SCALARS = (bool, int, float, str, type(None))
_CLOSED = (*_SCALARS, bytes, type, ModuleType, np.ndarray)  # not looked into


@contextmanager
def untouched(training: Training) -> Iterator[None]:
    """Put back weights, buffers, gradients, what is trainable, modes, optimizer, scheduler and every random state.

    Random states are those of Python, numpy and torch (CPU and CUDA), and of every generator that can be reached from
    the loaders, the loss, and the training's own ``step`` and ``evaluate``. Nets, optimizers, gradient scalers,
    tensors, lists and counters that these functions hold on to (averaged weights, accumulation) are put back as well.
    """
    held, tensors = _held(training)
    modules = [training.model, *(each for each in held if isinstance(each, nn.Module))]
    optimizers = [each for each in held if isinstance(each, Optimizer)]
    with ExitStack() as stack:
        stack.callback(_random_state())
        if training.scheduler is not None and not isinstance(training.scheduler, LRScheduler):
            stack.callback(_scheduler_state(training.scheduler))
        for each in held:
            for restore in _restorers(each):
                stack.callback(restore)
        for optimizer in optimizers:
            stack.callback(_OptimizerState(optimizer).restore)
            stack.callback(_strangers(optimizer, modules))
        for module in modules:
            stack.callback(_ModelState(module).restore)
        for tensor in _beside(tensors, modules, optimizers):
            stack.callback(_tensor_state(tensor))
        yield


class _ModelState:
    """Copies of every tensor of a model, and what is set on its parts."""

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._parameters = [_parameter_state(each) for each in model.parameters()]
        self._modes = [(module, module.training) for module in model.modules()]
        self._slots = [(module, dict(module._buffers)) for module in model.modules()]

    def restore(self) -> None:
        with torch.no_grad():
            for module, buffers in self._slots:  # a buffer may have been replaced rather than filled
                module._buffers.clear()
                module._buffers.update(buffers)
            for tensor, before in self._tensors:
                tensor.copy_(before)
        for restore in self._parameters:
            restore()
        for module, mode in self._modes:
            module.training = mode


def _parameter_state(parameter: Tensor) -> Callable[[], None]:
    """Puts back whether a parameter is trainable, and its gradient: the same tensor with the same values."""
    trainable, gradient = parameter.requires_grad, parameter.grad
    values = None if gradient is None else gradient.detach().clone()

    def restore() -> None:
        parameter.requires_grad_(trainable)
        if gradient is not None and values is not None:
            with torch.no_grad():
                gradient.copy_(values)
        parameter.grad = gradient

    return restore


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


def _strangers(optimizer: Optimizer, modules: list[nn.Module]) -> Callable[[], None]:
    """Puts back what an optimizer holds and no net does: weights of a loss, or of a net that was replaced."""
    known = {id(each) for module in modules for each in module.parameters()}
    others = [each for group in optimizer.param_groups for each in group["params"] if id(each) not in known]
    values = [(each, each.detach().clone()) for each in others]
    parameters = [_parameter_state(each) for each in others]

    def restore() -> None:
        with torch.no_grad():
            for tensor, before in values:
                tensor.copy_(before)
        for restore_one in parameters:
            restore_one()

    return restore


def _beside(tensors: list[Tensor], modules: list[nn.Module], optimizers: list[Optimizer]) -> Iterator[Tensor]:
    """Those that neither nets nor optimizers hold, the nearest first, as many as are no larger than averaged weights
    may be: data sets are left out."""
    own = [each for module in modules for each in (*module.parameters(), *module.buffers())]
    held = [each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]
    known = {id(each) for each in (*own, *held)}
    left = _LEAST_BYTES + 2 * sum(each.nbytes for each in own)
    for tensor in tensors:
        if id(tensor) not in known and _is_plain(tensor) and tensor.nbytes <= left:
            left -= tensor.nbytes
            yield tensor


def _is_plain(tensor: Tensor) -> bool:
    """Whether its values can be put back one by one: not where one value in memory stands for many."""
    if tensor.layout != torch.strided or tensor.is_inference():
        return False
    return not any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))


def _tensor_state(tensor: Tensor) -> Callable[[], None]:
    before = tensor.detach().clone()

    def restore() -> None:
        if tensor.shape != before.shape:
            tensor.data = before
        elif not _same(tensor.detach(), before):  # memory that is read from a file may not be written to
            with torch.no_grad():
                tensor.copy_(before)

    return restore


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def _scheduler_state(scheduler: Any) -> Callable[[], Any]:
    """Of somebody's own scheduler: what its ``state_dict`` says, else nothing but the counters among its attributes."""
    if not hasattr(scheduler, "state_dict"):
        return lambda: None
    return partial(scheduler.load_state_dict, copy.deepcopy(scheduler.state_dict()))


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _random_state() -> Callable[[], None]:
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return restore


def _restorers(thing: Any) -> Iterator[Callable[[], Any]]:
    """What puts a generator, a counter or a scheduler back into the state in which it is now."""
    if isinstance(thing, torch.Generator):
        yield partial(thing.set_state, thing.get_state())
    elif isinstance(thing, np.random.Generator):
        yield partial(setattr, thing.bit_generator, "state", copy.deepcopy(thing.bit_generator.state))
    elif isinstance(thing, np.random.RandomState):
        yield partial(thing.set_state, thing.get_state())
    elif isinstance(thing, random.Random):
        yield partial(thing.setstate, thing.getstate())
    elif isinstance(thing, LRScheduler | torch.amp.GradScaler):
        yield partial(thing.load_state_dict, copy.deepcopy(thing.state_dict()))
    else:
        yield from _contents(thing)


def _contents(thing: Any) -> Iterator[Callable[[], Any]]:
    """What puts the very members back that an object has now; those that have a state see to it themselves."""
    if isinstance(thing, CellType) and not _is_empty(thing):
        yield partial(setattr, thing, "cell_contents", thing.cell_contents)
    elif isinstance(thing, dict):
        kept = {name: value for name, value in thing.items() if isinstance(value, (*_SCALARS, Tensor))}
        yield partial(thing.update, kept)
    elif isinstance(thing, list) and len(thing) <= _OBJECTS:
        yield partial(thing.__setitem__, slice(None), list(thing))
    for slot, value in _slots(thing):
        if isinstance(value, (*_SCALARS, Tensor)):
            yield partial(slot.__set__, thing, value)


def _slots(thing: Any) -> Iterator[tuple[MemberDescriptorType, Any]]:
    """The attributes that an object keeps in ``__slots__`` and not in a dictionary, with their values."""
    for kind in type(thing).__mro__:
        if vars(kind).get("__slots__"):
            for slot in vars(kind).values():
                if isinstance(slot, MemberDescriptorType):
                    with suppress(AttributeError):  # it has no value yet
                        yield slot, slot.__get__(thing)


def _held(training: Training) -> tuple[list[Any], list[Tensor]]:
    """Everything with a state that can be reached from a training, each once, the nearest first, and the tensors among
    it; the model itself is left out."""
    loaders = (training.train, training.val, training.plain)
    functions = (training.loss, training.step, training.evaluate, training.metric, training.run_loss)
    modules = (vars(module) for module in training.model.modules())
    roots = (*functions, *loaders, training.optimizer, training.scheduler, *modules)
    waiting = deque((root, 0) for root in roots)  # the nearest first, so that all are found by their shortest way
    seen = {id(training.model)}
    found: list[Any] = []
    tensors: list[Tensor] = []
    while waiting and len(found) < _OBJECTS:
        thing, depth = waiting.popleft()
        if id(thing) in seen or isinstance(thing, _CLOSED):
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            tensors.append(thing)
            continue
        found.append(thing)
        if depth < _DEPTH:
            waiting += [(part, depth + 1) for part in _parts(thing)]
    return found, tensors


def _parts(thing: Any) -> list[Any]:
    """What one object holds: its attributes, its members, or the variables that a function has caught."""
    if isinstance(thing, nn.Module):
        return [vars(part) for part in thing.modules()]
    if isinstance(thing, torch.Generator | np.random.Generator | random.Random | Optimizer):
        return []
    if isinstance(thing, dict):
        return _members(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return _members(thing)
    if isinstance(thing, CellType):
        return [] if _is_empty(thing) else [thing.cell_contents]
    if isinstance(thing, FunctionType):
        return [*(thing.__closure__ or ()), *(thing.__defaults__ or ())]
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    own = getattr(thing, "__dict__", None)
    return [*([own] if isinstance(own, dict) else []), *(value for _, value in _slots(thing))]


def _members(things: Iterable[Any]) -> list[Any]:
    """The first few, and of those after them the tensors: a net has more weights than a pipeline has transforms."""
    known = iter(things)
    return [*islice(known, _MEMBERS), *(each for each in islice(known, _OBJECTS) if isinstance(each, Tensor))]


def _is_empty(cell: CellType) -> bool:
    """Whether a variable that a function has caught has no value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
