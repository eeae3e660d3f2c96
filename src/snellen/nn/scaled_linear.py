"""A linear layer that learns at the scale of one and speaks in the units of what it predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledLinear(nn.Linear):
    """features [n, d] -> float32 [n, k] in the units of the target, for an optimizer that knows of no units.

    A step of Adam moves every weight by about the learning rate. To predict prices in the thousands with plain weights
    that is far too little, to predict lengths in metres far too much; so the parameters are what one standard deviation
    of the target takes. In ``state_dict`` they are multiplied out: to whoever reads a checkpoint, or puts a fitted head
    in, this is a plain linear layer in the target's units.

    The factor is the power of two next to the standard deviation: multiplying by it and dividing again gives the same
    bits, so that a run which is saved and resumed goes on as if nothing had happened.
    """

    scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, mean: Sequence[float] = (), std: Sequence[float] = ()
    ) -> None:
        super().__init__(in_features, out_features)
        factors = [2.0 ** round(math.log2(each)) for each in std] or [1.0] * out_features
        self.register_buffer("scale", torch.tensor(factors), persistent=False)
        with torch.no_grad():  # at first it answers with the mean, or nearly so
            self.weight.mul_(0.1)
            self.bias.copy_(torch.tensor(list(mean) or [0.0] * out_features) / self.scale)

    def forward(self, features: Tensor) -> Tensor:
        # bfloat16 has three digits: a year as 1990 + 13 would lose the 3.
        device = features.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return F.linear(features.float(), self.weight, self.bias) * self.scale
        return F.linear(features, self.weight, self.bias) * self.scale

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination[f"{prefix}weight"] * self.scale[:, None]
        destination[f"{prefix}bias"] = destination[f"{prefix}bias"] * self.scale

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        own = dict(state_dict)
        for name, scale in (("weight", self.scale[:, None]), ("bias", self.scale)):
            if f"{prefix}{name}" in own:
                given = own[f"{prefix}{name}"]
                own[f"{prefix}{name}"] = given / scale.to(given.device)
        super()._load_from_state_dict(own, prefix, *rest)
