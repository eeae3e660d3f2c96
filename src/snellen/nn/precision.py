"""fp32 or bf16: which arithmetic a step uses, and a measurement of which is faster here."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def arithmetic(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context a forward pass runs in."""
    if precision == "fp32":
        return nullcontext()
    # No cast cache: it would hand weights cast under no_grad to a later pass that needs gradients.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=device.type == "cuda")


def train_depthwise_in_fp32(model: nn.Module) -> None:
    """Under CPU autocast, let depthwise convolutions compute gradients in fp32.

    Their bf16 backward takes half of a MobileNet's step; with it in fp32 EfficientNet-Lite0 trains 1.8 times as fast
    (docs/measurements.md). Inference keeps bf16, where the forward alone is faster.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = types.MethodType(_depthwise_forward(type(module).forward), module)  # type: ignore[method-assign]


def _depthwise_forward(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return plain(self, x)
        with torch.autocast("cpu", enabled=False):
            return plain(self, x.float())

    return forward


def fastest(candidates: Mapping[str, Callable[[], object]], *, repeats: int = 2) -> dict[str, float]:
    """Seconds of each candidate: the best of ``repeats`` after one warm-up, taken in turns against drift."""
    for run in candidates.values():
        run()
    seconds = dict.fromkeys(candidates, float("inf"))
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
