"""A checkpoint made ready to use on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from snellen.core.checkpoint import Checkpoint
from snellen.core.device import available_cores, choose_device
from snellen.core.errors import RunError
from snellen.core.plan import Plan
from snellen.tasks.base import Task, create_task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The network in evaluation mode, its task, and its plan with this machine's device and threads."""

    network: nn.Module
    task: Task[Any]
    plan: Plan


def load_model(checkpoint: Checkpoint, *, device: str = "auto") -> LoadedModel:
    """Raises ConfigError when the device is not there, RunError when the weights do not fit their own plan."""
    import torch

    from snellen.nn.placement import to_layout

    plan = replace(checkpoint.plan, device=choose_device(device), threads=available_cores())
    task = create_task(plan.task, plan.classes, checkpoint.decision).configured(plan)
    torch.set_num_threads(plan.threads)
    network: nn.Module = task.build_model(plan)
    try:
        network.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        raise RunError(f"the checkpoint does not fit its own plan: {str(error).splitlines()[0]}") from None
    return LoadedModel(to_layout(network.to(torch.device(plan.device)), plan.channels_last).eval(), task, plan)
