"""Which processor does the arithmetic, and how many threads it may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.core.errors import ConfigError

if TYPE_CHECKING:
    import torch


def available_cores() -> int:
    """CPU cores this process may use: what it is pinned to, within what its container is allowed."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(pinned, _container_cores() or pinned))


def _container_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, round(int(quota) / int(period)))


def available_memory() -> int:
    """Bytes of memory that are free for use now; 2 GiB where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2 * 2**30


def choose_device(wish: str) -> str:
    """'auto' -> cuda, else mps, else cpu. Raises ConfigError when a named device is not there."""
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if has[name])
    kind, _, index = wish.partition(":")
    if not has[kind]:
        there = ", ".join(name for name, present in has.items() if present)
        raise ConfigError(f"device = '{wish}' is not available on this machine; use auto or one of: {there}")
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError(
            f"device = '{wish}': this machine has {torch.cuda.device_count()} CUDA device(s), from cuda:0"
        )
    return wish


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix instructions exist (AMX or AVX-512 BF16 on x86); whether they pay is for a measurement."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return ""


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
