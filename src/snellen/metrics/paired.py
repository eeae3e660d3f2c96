"""Is one model better than another? Statistics over the same images, over seeds, and over folds.

Two models that are judged on the same images share the luck of the draw, so it is their difference that gets an
interval: two intervals that overlap say little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.interval import percentile_interval, wilson

Floats = NDArray[np.float64]

SIGNIFICANCE, POWER = 0.05, 0.80


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much higher a metric of the second model is than that of the first.

    value, low, high  in the metric's own units, with its 95 % interval; no interval where nothing can be said
    p                 of the exact McNemar test; None where it does not fit
    images_needed     independent images that would show a difference of this size with 80 % power; None for no
                      difference at all, and where more images would not help
    method            how the interval was made
    """

    value: float
    low: float | None
    high: float | None
    p: float | None = None
    images_needed: int | None = None
    method: str

    @property
    def is_shown(self) -> bool:
        """Whether the interval, and the test where there is one, leave no doubt at the level of 5 %."""
        if self.low is None or self.high is None or (self.p is not None and self.p >= SIGNIFICANCE):
            return False
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value that two models are equally often right.

    only_first, only_second  images that only the first, or only the second, names rightly

    Where both are right or both wrong nothing is learnt; the others are coin tosses if the models are equally good:
    McNemar, Psychometrika 12 (1947) 153, with the binomial distribution instead of its chi-square limit.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"mcnemar: counts must be 0 or more, got {only_first} and {only_second}")
    from scipy.special import bdtr

    n = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0


def images_for_mcnemar(only_first: int, only_second: int, n: int, power: float = POWER) -> int | None:
    """Images with which McNemar's test would show the observed difference with this power; None for no difference.

    Connor, Biometrics 43 (1987) 207, equation 3: with psi the share of images that only one of the models gets right
    and delta the difference, (z_alpha sqrt(psi) + z_beta sqrt(psi - delta^2))^2 / delta^2.
    """
    share, difference = (only_first + only_second) / n, (only_second - only_first) / n
    if difference == 0:
        return None
    z_alpha, z_beta = _quantiles(power)
    root = z_alpha * math.sqrt(share) + z_beta * math.sqrt(share - difference**2)
    return math.ceil((root / difference) ** 2)


def images_for(difference: float, standard_error: float, n: int, power: float = POWER) -> int | None:
    """The same for any metric, from its standard error on n images, which shrinks with the square root of n.

    n ((z_alpha + z_beta) standard_error / difference)^2, as in Cohen, Statistical Power Analysis, 1988, section 2.
    """
    if difference == 0 or standard_error == 0:
        return None
    return math.ceil(n * (sum(_quantiles(power)) * standard_error / difference) ** 2)


def _quantiles(power: float) -> tuple[float, float]:
    normal = NormalDist()
    return normal.inv_cdf(1 - SIGNIFICANCE / 2), normal.inv_cdf(power)


def paired_bootstrap(difference: float, first: Floats, second: Floats, n: int) -> tuple[float, float]:
    """The 95 % percentile interval of a difference of two models' metric.

    first, second  the metric of each in the same resamples of images, or of groups [num_resamples]
    n              independent images or groups

    Where every resample gives the same, the bootstrap would claim certainty; Wilson's bound on what was never seen in
    n trials is given instead.
    """
    differences = second - first
    low, high = percentile_interval(differences)
    if math.isnan(low):
        return -math.inf, math.inf
    if low == high:
        unseen = wilson(0, n)[1]
        return difference - unseen, difference + unseen
    return min(low, difference), max(high, difference)


def seeds_interval(
    first: Sequence[float], second: Sequence[float], image_variance: float, num_images: int
) -> tuple[float, float]:
    """The 95 % interval of the difference of two arms' means over seeds, all judged on the same images.

    first, second   the metric of each run of an arm, two runs or more
    image_variance  of the difference of the two means, when the images are drawn again (by bootstrap)

    Assumed: the runs of an arm differ by chance alone, and the images were drawn independently of them. The variances
    of both arms over seeds and that over images are added, with the degrees of freedom of Welch and Satterthwaite
    (Biometrika 34 (1947) 28; Biometrics Bulletin 2 (1946) 110). What seed and image do together is counted twice, so
    the interval errs on the wide side.
    """
    arms = [np.asarray(arm, float) for arm in (first, second)]
    if min(map(len, arms)) < 2:
        raise ValueError("seeds_interval: each arm needs two runs or more")
    parts = [(float(arm.var(ddof=1)) / len(arm), len(arm) - 1) for arm in arms] + [(image_variance, num_images - 1)]
    total = sum(variance for variance, _ in parts)
    middle = float(arms[1].mean() - arms[0].mean())
    if total == 0:
        unseen = wilson(0, num_images)[1]
        return middle - unseen, middle + unseen
    freedom = total**2 / sum(variance**2 / max(1, degrees) for variance, degrees in parts)
    half = _t_quantile(freedom) * math.sqrt(total)
    return middle - half, middle + half


def corrected_t_interval(values: Sequence[float], judged_share: float) -> tuple[float, float]:
    """The 95 % interval of a mean over folds, or over random divisions of the same data.

    values        one for each fold or division, two or more
    judged_share  images that each was judged on for every image it was trained on: 1 / (k - 1) for k folds

    The folds' models share training images, so their values vary less than those of independent runs would; the
    variance of the mean is taken to be (1 / k + judged_share) times the variance of the values, with k - 1 degrees of
    freedom: the corrected resampled t of Nadeau and Bengio, Machine Learning 52 (2003) 239.
    """
    k = len(values)
    if k < 2:
        raise ValueError(f"corrected_t_interval: two values or more are needed, got {k}")
    middle, variance = float(np.mean(values)), float(np.var(values, ddof=1))
    half = _t_quantile(k - 1) * math.sqrt((1 / k + judged_share) * variance)
    return middle - half, middle + half


def _t_quantile(degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - SIGNIFICANCE / 2))
