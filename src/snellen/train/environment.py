"""Where and with what a run was made: enough to make it again."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

from snellen.core.device import cpu_name
from snellen.core.plan import Plan
from snellen.core.run import RUN_VERSION

_PACKAGES = ("torch", "timm", "torchvision", "numpy", "pillow", "scipy", "safetensors")


def environment(plan: Plan, *, keeps_memory: bool) -> dict[str, Any]:
    """JSON-able. The command's own words are kept; nothing else of the machine's environment is."""
    import torch

    device = plan.device
    if device.startswith("cuda"):
        device = f"{device} ({torch.cuda.get_device_name(torch.device(device))})"
    return {
        "run_version": RUN_VERSION,
        "snellen": metadata.version("snellen"),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": plan.threads,
        "device": device,
        "allocator_keeps_memory": keeps_memory,
        "command": sys.argv[1:],
    }
