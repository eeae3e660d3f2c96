"""The learning rate at every step, as a function of the step alone, so that a resumed run needs no history."""

from __future__ import annotations

import math

_FLOOR = 0.01  # of the peak, where the cosine ends


def rate_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor on the peak rate at ``step`` of a phase, 0 <= step < total_steps: linear warm-up, then a cosine.

    Loshchilov & Hutter, SGDR, 2017 (arXiv:1608.03983), without restarts.
    """
    warmup_steps = min(warmup_steps, max(1, total_steps // 4))
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
