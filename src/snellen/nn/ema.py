"""The exponential moving average of the weights (Polyak & Juditsky, 1992), better than its last step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Keeps ``average = decay * average + (1 - decay) * weights``, buffers (batch-norm statistics) included.

    The decay warms up as (1 + t) / (10 + t), so that the random start is forgotten in short runs as well.
    Integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        current = model.state_dict()
        floats = [name for name, tensor in self.average.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floats], [current[name] for name in floats], 1 - decay)
        for name, tensor in self.average.items():
            if not tensor.is_floating_point():
                tensor.copy_(current[name])

    def load(self, average: Mapping[str, Tensor], num_updates: int) -> None:
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
        self.num_updates = num_updates
