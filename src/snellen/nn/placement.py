"""Where tensors are and how they lie in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from snellen.core.plan import Plan
from snellen.core.sample import Batch

TargetT = TypeVar("TargetT")


def to_layout(model: nn.Module, channels_last: bool) -> nn.Module:
    return model.to(memory_format=torch.channels_last) if channels_last else model


def to_device(batch: Batch[TargetT], plan: Plan) -> Batch[TargetT]:
    """The batch with its pixels where, and laid out as, the network wants them."""
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    return replace(batch, images=batch.images.to(torch.device(plan.device)).contiguous(memory_format=layout))
