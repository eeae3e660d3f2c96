"""Are the members of two samples ranked by chance? Within strata, so that what parts the strata does not count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stratified_auc(scores: NDArray[Any], positive: NDArray[Any], strata: NDArray[Any]) -> tuple[float, float]:
    """The share of pairs of a stratum, one of each sample, that are ranked right, and its one-sided p-value.

    scores    of each member, [n]; ties count half
    positive  bool [n]: of the sample that should score higher
    strata    int [n]

    The sum of the ranks of the positive ones over the strata, each weighted by 1 / (its size + 1), by its mean and
    variance over all orders within the strata (Wilcoxon 1945; van Elteren 1960), with the normal distribution. 0.5 and
    1 where no stratum has both.
    """
    from scipy.stats import rankdata

    right = pairs = excess = variance = 0.0
    for stratum in np.unique(strata):
        inside = strata == stratum
        ranks, member = rankdata(scores[inside]), positive[inside]
        n, m = len(ranks), int(member.sum())
        if m in (0, n):
            continue
        above = float(ranks[member].sum()) - m * (m + 1) / 2
        right, pairs = right + above, pairs + m * (n - m)
        weight = 1 / (n + 1)
        excess += weight * (float(ranks[member].sum()) - m * (n + 1) / 2)
        variance += weight**2 * m * (n - m) / n * float(np.var(ranks, ddof=1))
    if variance == 0:
        return 0.5, 1.0
    return right / pairs, 0.5 * math.erfc(excess / math.sqrt(2 * variance))
