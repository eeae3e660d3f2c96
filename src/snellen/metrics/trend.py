"""Does a series rise or fall, beyond what chance and its own inertia do?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST = 6  # values: below this no order of them is rare enough to say anything
_MOST_INERTIA = 0.9
_LONGEST = 400  # values; longer series are averaged into this many blocks, as all pairs of them are looked at


class Trend(NamedTuple):
    """slope     change from one value to the next, by Theil and Sen
    p_rise, p_fall  chance that a series without a trend rises, or falls, as clearly
    """

    slope: float
    p_rise: float
    p_fall: float


def trend(values: ArrayLike) -> Trend:
    """The monotone trend of a series [n]; p-values are 1 for fewer than ``FEWEST`` values.

    Mann's test (Econometrica 13 (1945) 245; Kendall's tau against time) with the normal limit and a continuity
    correction, which errs on the careful side in the far tail. What lingers from one value to the next is estimated by
    the first autocorrelation around the Theil-Sen line, corrected for its bias in short series (Kendall, Biometrika 41
    (1954) 403), and widens the variance as an autoregression of that strength would (Hamed and Rao, J. Hydrology 204
    (1998) 182).
    """
    series = block_means(np.asarray(values, np.float64), _LONGEST)
    n = len(series)
    stretch = len(np.atleast_1d(values)) / max(n, 1)
    if n < 2:
        return Trend(0.0, 1.0, 1.0)
    first, second = np.triu_indices(n, 1)
    differences = series[second] - series[first]
    slope = float(np.median(differences / (second - first)))
    if n < FEWEST:
        return Trend(slope / stretch, 1.0, 1.0)
    score = float(np.sign(differences).sum())
    ties = np.unique(series, return_counts=True)[1].astype(np.float64)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0:
        return Trend(slope / stretch, 1.0, 1.0)
    inertia = _inertia(series - slope * np.arange(n))
    spread = float(np.sqrt(variance * (1 + inertia) / (1 - inertia)))
    from scipy.special import ndtr

    return Trend(slope / stretch, float(ndtr(-(score - 1) / spread)), float(ndtr((score + 1) / spread)))


def block_means(values: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    """The means of ``num`` blocks of as equal a length as can be; the values themselves where they are no more."""
    if len(values) <= num:
        return values
    edges = np.linspace(0, len(values), num + 1).astype(np.intp)
    return np.asarray(np.add.reduceat(values, edges[:-1]) / np.diff(edges), np.float64)


def _inertia(residuals: NDArray[np.float64]) -> float:
    """The first autocorrelation, 0..0.9, without its downward bias."""
    centred = residuals - residuals.mean()
    power = float((centred**2).sum())
    if power == 0:
        return 0.0
    n = len(centred)
    plain = float((centred[1:] * centred[:-1]).sum()) / power
    return float(np.clip((plain * n + 1) / (n - 4), 0, _MOST_INERTIA)) if n > 4 else _MOST_INERTIA
