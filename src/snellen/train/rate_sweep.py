"""What a learning-rate range test says: losses over rates, and the rates that can be read from them, or honestly none.

Smith, Cyclical learning rates for training neural networks, 2017 (arXiv:1506.01186). No torch: the report draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SWEEP_FILE = "rate_sweep.json"  # in the run folder
FEWEST_STEPS = 20  # below which a curve says nothing
_SMOOTHING = 0.03  # of the steps: standard deviation of the smoothing kernel
_START = 1 / 8  # of the steps: rates so low that nothing is learnt yet
_CLEAR = 4.0  # standard errors: pure noise falls as far in 1 sweep of 100 with 30 steps, in 1 of 300 with 100
_WORTH = 0.05  # of the starting loss: a smaller fall is nothing to choose a rate by

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSweep:
    """A finished sweep.

    rates, losses  of the head at each step, rising, and the training loss of that step's batch; all finite
    smoothed       the same losses, averaged over neighbouring rates
    ended          why fewer steps were taken than asked for; '' when all were
    suggestions    a rate by the name of the rule that reads it; empty when the loss never falls clearly
    reason         how the suggestion was found, or why there is none
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    ended: str
    suggestions: Mapping[str, float]
    reason: str

    @property
    def suggestion(self) -> float | None:
        """The rate to train with; None when there is honestly none."""
        return self.suggestions.get("valley")

    def to_json(self) -> dict[str, Any]:
        return {"version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RateSweep:
        """Raises KeyError or TypeError when ``content`` is none."""
        fields = {name: value for name, value in content.items() if name != "version"}
        series = {name: tuple(map(float, fields[name])) for name in ("rates", "losses", "smoothed")}
        return cls(**{**fields, **series})


def read_sweep(rates: Sequence[float], losses: Sequence[float], ended: str) -> RateSweep:
    """``rates`` rising evenly on a logarithmic scale, the finite ``losses`` of as many steps."""
    raw = np.asarray(losses, float)
    smoothed = smooth(raw)
    doubt = _doubt(raw, smoothed)
    found: dict[str, float] = {}
    if not doubt:
        log_rates = np.log10(np.asarray(rates, float))
        found = {name: float(10 ** read(log_rates, smoothed)) for name, read in _READINGS.items()}
    return RateSweep(
        rates=tuple(map(float, rates)),
        losses=tuple(map(float, raw)),
        smoothed=tuple(map(float, smoothed)),
        ended=ended,
        suggestions=found,
        reason=doubt or _told(raw, smoothed, rates),
    )


def smooth(losses: Floats) -> Floats:
    """A mean over neighbours with Gaussian weights: looking both ways, it does not lag as a running mean would."""
    if not len(losses):
        return losses
    smoothed: Floats = _kernel(len(losses)) @ losses
    return smoothed


def _kernel(num: int) -> Floats:
    """Weights [num, num] of every loss in each smoothed one."""
    sigma, places = max(1.0, _SMOOTHING * num), np.arange(num)
    weights = np.exp(-0.5 * ((places[:, None] - places[None]) / sigma) ** 2)
    normalised: Floats = weights / weights.sum(1, keepdims=True)
    return normalised


def _doubt(raw: Floats, smoothed: Floats) -> str:
    """Why nothing can be read from these losses; '' when the loss clearly falls."""
    if len(raw) < FEWEST_STEPS:
        return f"no rate can be suggested: only {len(raw)} steps before the loss blew up or the sweep ended"
    num_start, lowest = int(np.ceil(_START * len(raw))), int(np.argmin(smoothed))
    start = float(raw[:num_start].mean())
    fall = start - float(smoothed[lowest])
    before = slice(0, max(lowest + 1, num_start))
    own, spread = np.diag(_kernel(len(raw))), np.square(_kernel(len(raw))).sum(1)
    # A smoothed value has followed its own noise a little: what is left of it is less than there was.
    noise = float(np.sqrt(np.mean((raw - smoothed)[before] ** 2 / (1 - 2 * own + spread)[before])))
    error = noise * float(np.sqrt(1 / num_start + spread[lowest]))
    if lowest < num_start or fall < _WORTH * abs(start) or fall < _CLEAR * error:
        return (
            f"no rate can be suggested: the loss begins at {start:.3g} and never falls clearly "
            f"(lowest {float(smoothed[lowest]):.3g}, noise {noise:.2g})"
        )
    return ""


def _told(raw: Floats, smoothed: Floats, rates: Sequence[float]) -> str:
    lowest = int(np.argmin(smoothed))
    return (
        f"in a sweep of {len(raw)} steps the loss fell from {float(smoothed[0]):.3g} to {float(smoothed[lowest]):.3g} "
        f"at {rates[lowest]:.2g}; this rate lies in the long fall before it"
    )


# --- the rules. Each takes log10 of the rates and the smoothed losses, and gives log10 of a rate.


def _steepest(log_rates: Floats, smoothed: Floats) -> float:
    """Where the loss falls fastest, within its fall."""
    lowest = int(np.argmin(smoothed))
    begun = _crossing(smoothed[: lowest + 1], 0.9)
    slopes = np.gradient(smoothed, log_rates)[begun : lowest + 1]
    return float(log_rates[begun + int(np.argmin(slopes))])


def _tenth_of_minimum(log_rates: Floats, smoothed: Floats) -> float:
    return float(log_rates[int(np.argmin(smoothed))]) - 1


def _valley(log_rates: Floats, smoothed: Floats) -> float:
    """Two thirds of the way from where a tenth of the fall is done to where a tenth is left.

    fastai's rule of that name takes the middle of the longest falling subsequence, which the noise of the flat start
    makes too long: on digits with Nesterov's momentum it chose 0.015, this one 0.16, and the best rates were 0.3 to 3.
    """
    lowest = int(np.argmin(smoothed))
    begun, done = _crossing(smoothed[: lowest + 1], 0.9), _crossing(smoothed[: lowest + 1], 0.1)
    return float(log_rates[begun] + 2 / 3 * (log_rates[done] - log_rates[begun]))


def _crossing(fall: Floats, share: float) -> int:
    """The last place where at least ``share`` of the fall is still to come."""
    return int(np.flatnonzero(fall >= fall[-1] + share * (fall[0] - fall[-1]))[-1])


_READINGS: dict[str, Callable[[Floats, Floats], float]] = {
    "valley": _valley,
    "steepest": _steepest,
    "minimum / 10": _tenth_of_minimum,
}
