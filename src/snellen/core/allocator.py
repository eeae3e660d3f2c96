"""Telling glibc's malloc to keep the memory that it has been given back.

By default glibc returns every large block to the operating system and asks for it again at the next step; on
MobileNet-like networks the page faults cost more than the arithmetic (2 to 3 times: docs/measurements.md).
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# mallopt parameters of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_UP_TO = 2**31 - 1  # bytes; mallopt takes an int
_GROW_BY = 64 * 2**20  # bytes


@cache
def keep_memory() -> bool:
    """Set it up for this process, once. Returns whether the C library is glibc and took the settings."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):  # musl has no such knobs
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _KEEP_UP_TO, _M_TOP_PAD: _GROW_BY}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
