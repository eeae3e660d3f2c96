"""What this process does before torch does any work: keep its memory, and wait without burning the processor.

And how it ends while a thread is still at work."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from threading import Thread
from typing import NoReturn
from weakref import WeakSet

# mallopt parameters of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_UP_TO = 2**31 - 1  # bytes; mallopt takes an int
_GROW_BY = 64 * 2**20  # bytes

_GIVEN_UP: WeakSet[Thread] = WeakSet()


@cache
def prepare_process() -> bool:
    """Set both up, once. Returns whether the allocator was told to keep its memory."""
    # GNU OpenMP reads this when torch is loaded. Its threads would otherwise spin while they wait for each other, which
    # halves the speed as soon as anything else runs on the machine, our own image loading included.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return _keep_memory()


def _keep_memory() -> bool:
    """Tell glibc's malloc to keep the blocks that it is given back. False where the C library is another one.

    By default it returns every large block to the operating system and asks for it again at the next step; on
    MobileNet-like networks the page faults then cost more than the arithmetic (docs/measurements.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):  # musl has no such knobs
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _KEEP_UP_TO, _M_TOP_PAD: _GROW_BY}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def give_up(thread: Thread) -> None:
    """Say that the process may end before this daemon thread does, which may be at work in a runtime."""
    _GIVEN_UP.add(thread)


def leave(code: int) -> NoReturn:
    """End the process. The interpreter cannot be taken down in good order beneath a thread inside a C++ runtime: when
    that thread comes back, the whole process is aborted, and its exit status lost."""
    if any(thread.is_alive() for thread in _GIVEN_UP):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)
