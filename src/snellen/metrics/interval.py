"""How sure a metric is: Wilson's interval for proportions, the bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snellen.core.errors import DataError

NUM_RESAMPLES = 1000

# Resamples are handed out in blocks of about this many weights (one byte each): arrays made from a block then stay
# near the processor's cache. A block has some rows in any case, for what is done once per block (sorting).
_BLOCK_SIZE, _MIN_BLOCK_LENGTH = 2**22, 16


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion of ``successes`` out of ``n`` independent trials.

    It keeps its promise for small n and near 0 and 1, where the textbook interval fails; n = 0 gives (0, 1).
    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209; recommended by Brown, Cai and DasGupta, Statist. Sci. 16
    (2001) 101.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: successes must be between 0 and n, got {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def group_codes(groups: Sequence[str | None]) -> NDArray[np.intp]:
    """Number the groups 0, 1, ... in order of appearance, [n]. ``None`` is a group of its own each time."""
    codes: dict[Hashable, int] = {}
    return np.array(
        [codes.setdefault(i if group is None else group, len(codes)) for i, group in enumerate(groups)], dtype=np.intp
    )


def codes_of_units(n: int, groups: Sequence[str | None] | None) -> NDArray[np.intp] | None:
    """``group_codes`` of the groups of n images; None where each image stands for itself.

    Raises DataError for no image, ValueError for as many groups as there are not images.
    """
    if n == 0:
        raise DataError("nothing to measure: no image was given; check that the split is not empty")
    if groups is not None and len(groups) != n:
        raise ValueError(f"groups must name a group for each of the {n} images, got {len(groups)}")
    return None if groups is None else group_codes(groups)


def resamples(
    n: int, *, groups: NDArray[np.intp] | None = None, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Bootstrap resamples of n items, as blocks [b, n]: how often each item was drawn in each of b resamples.

    ``groups`` (codes from ``group_codes``) are drawn whole, as many as there are: the cluster bootstrap
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The same arguments give the same
    resamples, and fewer of them are the first of more.
    """
    rng = np.random.default_rng(seed)
    num_units = n if groups is None else int(groups.max(initial=-1)) + 1
    block_length = max(_MIN_BLOCK_LENGTH, _BLOCK_SIZE // max(n, 1))
    for start in range(0, num_resamples, block_length):
        block = np.empty((min(block_length, num_resamples - start), n), dtype=np.uint8)
        for row in block:
            # One byte is enough: a unit is drawn more than 255 times less often than once in 255! resamples.
            drawn = np.bincount(rng.integers(num_units, size=num_units), minlength=num_units).astype(np.uint8)
            row[:] = drawn if groups is None else drawn[groups]
        yield block


def percentile_interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Efron's percentile interval of one statistic's bootstrap values [num_resamples], in the statistic's units.

    Chosen because it never leaves the statistic's range and is the same on every monotone scale. Resamples where the
    statistic is undefined (NaN) are left out; quantiles interpolate linearly between order statistics. Where nothing
    is left, both ends are NaN. Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    defined = values[~np.isnan(values)]
    if defined.size == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], ArrayLike],
    n: int,
    *,
    groups: Sequence[str | None] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``statistic(weights)``, weights [n] being how often each item was drawn.

    ``groups`` [n] names the cluster of each item; clusters are then drawn whole. Deterministic in ``seed``.
    """
    if n < 1:
        raise ValueError("bootstrap: there is nothing to resample, n must be at least 1")
    if groups is not None and len(groups) != n:
        raise ValueError(f"bootstrap: groups must name a group for each of the {n} items, got {len(groups)}")
    codes = None if groups is None else group_codes(groups)
    values = [
        statistic(weights.astype(np.int64))
        for block in resamples(n, groups=codes, num_resamples=num_resamples, seed=seed)
        for weights in block
    ]
    return percentile_interval(np.asarray(values, dtype=np.float64), confidence)
