"""A model's forward pass run otherwise than it is written: dropouts that obey the mode, a graph that is not cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DROPOUTS = frozenset(
    {
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"),
        *("feature_alpha_dropout", "dropout_", "alpha_dropout_", "feature_dropout_", "feature_alpha_dropout_"),
    }
)
_DETACH = (Tensor.detach, torch.detach, Tensor.detach_, torch.detach_)


class DropoutsOff(TorchFunctionMode):
    """Functional dropouts give back what they get, whatever they were told of the mode; Gaussian noise is 0."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        outcome = func(*args, **kwargs)
        return torch.zeros_like(outcome) if name in ("randn", "randn_like") else outcome


class Dropping(TorchFunctionMode):
    """Notes whether what runs within it drops anything, by a function or a module."""

    seen = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DROPOUTS:
            share = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            on = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
            self.seen = self.seen or bool(on and share > 0)
        return func(*args, **kwargs)


class GraphKept(TorchFunctionMode):
    """``detach`` gives back what it gets, and ``no_grad`` does nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DETACH:
            return args[0] if args else (kwargs or {})["input"]
        return None if _stops_gradients(func, args) else func(*args, **(kwargs or {}))


class Cuts(TorchFunctionMode):
    """Notes whether what runs within it detaches anything, or stops gradients."""

    seen = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen = self.seen or func in _DETACH or _stops_gradients(func, args)
        return func(*args, **(kwargs or {}))


def _stops_gradients(func: Callable[..., Any], args: Any) -> bool:
    """What ``no_grad`` calls when it is entered."""
    return getattr(func, "__name__", "") == "_set_grad_enabled" and not args[0]


def run_within(model: nn.Module, mode: type[TorchFunctionMode], *, learning: bool) -> None:
    """From now on ``model`` runs forward within ``mode`` while it trains (``learning``), or else while it evaluates.

    Its class becomes one of its own that is derived from what it was: weights, hooks and references to it stay, and a
    copy of it does the same. In the other mode not a bit differs.
    """
    usual: Any = type(model)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.training != learning:
            return usual.forward(self, *args, **kwargs)
        with mode():
            return usual.forward(self, *args, **kwargs)

    with suppress(TypeError):  # a compiled model keeps its class, and is then as it was
        model.__class__ = type(usual.__name__, (usual,), {"forward": forward, "__module__": usual.__module__})


@contextmanager
def running_within(model: nn.Module, mode: type[TorchFunctionMode], *, learning: bool) -> Iterator[None]:
    """As ``run_within``, for as long as the block lasts."""
    usual = type(model)
    run_within(model, mode, learning=learning)
    try:
        yield
    finally:
        model.__class__ = usual
