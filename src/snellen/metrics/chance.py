"""Exact or careful answers to: could chance alone have done this?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def at_least(count: float, chances: Floats) -> float:
    """At most how likely ``count`` or more of independent events are, of which each has its own chance, [n].

    Chernoff's bound (Ann. Math. Statist. 23 (1952) 493), never too small: about 4.1 standard deviations are needed
    where the exact tail needs 3.5. The tail "count or fewer" is that of the events that do not happen.
    """
    from scipy.optimize import minimize_scalar

    chances = np.clip(np.asarray(chances, np.float64), 0, 1)
    if count <= chances.sum():
        return 1.0
    if count > np.count_nonzero(chances):
        return 0.0
    grown = minimize_scalar(
        lambda tilt: float(np.log1p(chances * np.expm1(tilt)).sum() - tilt * count), bounds=(0, 60), method="bounded"
    )
    return float(min(1.0, math.exp(min(0.0, float(grown.fun)))))


class Excess(NamedTuple):
    """p         chance of so many events inside, or more, were they spread within each stratum by lot
    events, n     inside
    expected      events inside if they were as frequent as outside, in the same strata
    """

    p: float
    events: int
    n: int
    expected: float


def stratified_excess(inside: Mask, event: Mask, strata: NDArray[np.integer]) -> Excess:
    """Are events more frequent inside than among comparable images outside? All [n]; ``strata`` say what is comparable.

    The exact conditional test of several 2 x 2 tables: given how many events each stratum has, those inside are a sum
    of independent hypergeometric numbers, and its tail is computed (Cochran 1954 and Mantel and Haenszel 1959 give the
    normal limit of it; one stratum: Fisher's exact test). A stratum that lies inside as a whole says nothing and
    expects the events that it has.
    """
    from scipy.stats import hypergeom

    law, least, expected = np.ones(1), 0, 0.0
    for stratum in np.unique(strata[inside]):
        here = strata == stratum
        n, events, drawn = (int(np.count_nonzero(part)) for part in (here, here & event, here & inside))
        low, high = max(0, drawn - (n - events)), min(drawn, events)
        law = np.convolve(law, np.asarray(hypergeom.pmf(np.arange(low, high + 1), n, events, drawn), np.float64))
        least += low
        outside = n - drawn
        rate = np.count_nonzero(here & event & ~inside) / outside if outside else events / n
        expected += drawn * rate
    seen = int(np.count_nonzero(inside & event))
    return Excess(float(min(1.0, law[seen - least :].sum())), seen, int(np.count_nonzero(inside)), float(expected))
