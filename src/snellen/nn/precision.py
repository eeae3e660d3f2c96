"""fp32 or bf16: which arithmetic a step uses, and a measurement of which is faster here."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

_MOST_TURNS = 6


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


def fastest(candidates: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Seconds of each candidate, the least of some turns after a warm-up.

    Two turns where the times of one candidate lie below those of the other, more where they mingle: on a shared machine
    fp32 has come out ahead by a fifth in two turns, and behind by two fifths when it was quiet. Of a CPU the time that
    the processor spent on it, which other programs change less than the clock on the wall.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for run in candidates.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(_MOST_TURNS):
        for name, run in candidates.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
        if turn and _apart(list(seconds.values())):
            break
    return {name: min(times) for name, times in seconds.items()}


def _apart(times: Sequence[Sequence[float]]) -> bool:
    """Whether all times of one are below all times of the next."""
    ranked = sorted(times, key=min)
    return all(max(one) < min(next_) for one, next_ in pairwise(ranked))
