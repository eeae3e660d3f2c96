"""Would more images help? A linear model on the probe's features, learnt from ever larger parts of the training side.

Learning curves follow power laws over wide ranges (Hestness et al., Deep Learning Scaling is Predictable, Empirically,
2017; arXiv:1712.00409): value(n) = limit - b * n^-c. The law is fitted to the measured sizes and drawn on to twice and
four times the images, with a band from bootstrap resamples of the images that judge and of the parts learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.estimate import is_at_most_one, is_share, spoken, told
from snellen.core.plan import Plan
from snellen.core.seeds import keyed_generator
from snellen.data.image_sets import ImageSet
from snellen.nn.held_out import fit_linear, held_out, keyed_groups, one_thread
from snellen.tasks.base import Task
from snellen.train.probe import Probe, group_names

NUM_SIZES, REPEATS = 6, 3
FACTORS = (2, 4)
_SMALLEST = 0.1  # of the training images
_MOST_LEARNT, _MOST_JUDGED = 10_000, 2000  # images
_RESAMPLES = 200
_STEEPEST, _FLATTEST = 2.0, 0.05  # exponents: beyond these a law is a step or a line
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """value(n) = limit - b * n^-c."""

    limit: float
    b: float
    c: float

    def at(self, n: float | Floats) -> Floats:
        return np.asarray(self.limit - self.b * np.asarray(n, float) ** -self.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the law expects of ``images``, and of the gain over now; each with its 95 % band."""

    factor: int
    images: int
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """metric: the task's headline, higher is better; values: its mean over the repeats at each of ``sizes`` (images).

    low, high  the law's 95 % band at each of ``drawn`` sizes, which go on to four times the images
    """

    metric: str
    judged_on: int
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    law: Law
    drawn: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    outlook: tuple[Outlook, ...]

    @property
    def is_rising(self) -> bool:
        """Whether twice the images are shown to give more."""
        return self.outlook[0].gain_low > 0

    def sentence(self) -> str:
        """What it means for the user, claiming no more than the band allows."""
        first, name = self.outlook[0], spoken(self.metric)
        low, high = (told(self.metric, value).removesuffix(" %") for value in (first.low, first.high))
        now, share = float(self.law.at(self.sizes[-1])), is_share(self.metric)
        gains, unit = (first.gain, first.gain_low, first.gain_high), " points" if share else ""
        gain, least, most = (f"{100 * each:+.1f}" if share else f"{each:+.3g}" for each in gains)
        more = f"a gain of {gain}{unit} ({least} to {most})" if self.is_rising else f"no gain shown ({least} to {most})"
        return (
            f"With twice the images ({first.images:,}) a linear model is expected to reach "
            f"{told(self.metric, first.value)} {name} ({low} to {high}), after {told(self.metric, now)} now: {more}."
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_rising": self.is_rising, "sentence": self.sentence()}


def learning_curve(task: Task[Any], sides: Mapping[str, ImageSet], probe: Probe, plan: Plan) -> LearningCurve | None:
    """Judged on the validation images. None where there is nothing to fit, or too little to draw a line through."""
    train, val = sides["train"], sides.get("val")
    numbers = task.numbers(train.targets)
    groups = group_names(train)
    if numbers is None or val is None or len(set(groups)) < 2 * NUM_SIZES:
        return None
    features = probe.features["train"]
    found = held_out(features, numbers, groups, plan.seed)
    if found is None:
        return None
    judge = _Judge(task, val, probe.features["val"], plan)
    most = min(len(train), _MOST_LEARNT)
    wanted = np.unique(np.geomspace(max(NUM_SIZES, _SMALLEST * most), most, NUM_SIZES).round().astype(int))
    sizes, values, samples = [], [], []
    for size in wanted:
        parts = [keyed_groups(groups, int(size), "curve", plan.seed, i) for i in range(REPEATS if size < most else 1)]
        with one_thread():
            judged = [judge(*fit_linear(features[part], numbers[part], found.penalty)) for part in parts]
        sizes.append(float(np.mean([len(part) for part in parts])))
        values.append([value for value, _ in judged])
        samples.append([resampled for _, resampled in judged])
    if not np.isfinite(np.concatenate(values)).all():
        return None
    rng = keyed_generator("curve", plan.seed)
    return curve_through(task.headline, len(judge.targets), np.array(sizes), values, samples, len(train), rng)


class _Judge:
    """The headline of a linear model on the same images each time, and in the same bootstrap resamples of them."""

    def __init__(self, task: Task[Any], images: ImageSet, features: Tensor, plan: Plan) -> None:
        groups = group_names(images)
        chosen = keyed_groups(groups, _MOST_JUDGED, "judges", plan.seed)
        self.task, self.seed, self.features = task, plan.seed, features[chosen]
        self.targets = [images.targets[i] for i in chosen]
        self.groups = [groups[i] for i in chosen]

    def __call__(self, weight: Tensor, bias: Tensor) -> tuple[float, Floats]:
        metrics = self.task.metrics()
        metrics.update(self.task.decode(self.features @ weight.T + bias), self.targets)
        estimate = metrics.compute(intervals=False).get(self.task.headline)
        if estimate is None:
            return float("nan"), np.full(_RESAMPLES, np.nan)
        resampled = metrics.resampled(groups=self.groups, seed=self.seed)[self.task.headline]
        return estimate.value, np.resize(resampled, _RESAMPLES)


def curve_through(
    metric: str,
    judged_on: int,
    sizes: Floats,
    values: Sequence[Sequence[float]],
    samples: Sequence[Sequence[Floats]],
    num_train: int,
    rng: np.random.Generator,
) -> LearningCurve:
    """values[i][j] at sizes[i] in repeat j, samples[i][j] the same in each bootstrap resample of the judging images."""
    top = 1.0 if is_at_most_one(metric) else np.inf
    means = np.array([float(np.mean(each)) for each in values])
    law = fit_law(sizes, means, top)
    laws = []
    for i in range(_RESAMPLES):
        drawn = [rng.integers(len(each), size=len(each)) for each in samples]
        at = [np.mean([each[j][i] for j in chosen]) for each, chosen in zip(samples, drawn, strict=True)]
        if np.isfinite(at).all():
            laws.append(fit_law(sizes, np.array(at), top))
    places = np.geomspace(sizes[0], max(FACTORS) * num_train, 24)
    band = _quantiles(np.array([each.at(places) for each in laws]))
    outlook = tuple(_outlook(factor, num_train, law, laws) for factor in FACTORS)
    return LearningCurve(
        metric=metric,
        judged_on=judged_on,
        sizes=tuple(round(float(size)) for size in sizes),
        values=tuple(means.tolist()),
        law=law,
        drawn=tuple(places.tolist()),
        low=tuple(band[0].tolist()),
        high=tuple(band[1].tolist()),
        outlook=outlook,
    )


def _outlook(factor: int, num_train: int, law: Law, laws: Sequence[Law]) -> Outlook:
    images = factor * num_train
    values = np.array([float(each.at(images)) for each in laws])
    gains = values - np.array([float(each.at(num_train)) for each in laws])
    low, high = _quantiles(values)
    gain_low, gain_high = _quantiles(gains)
    return Outlook(
        factor=factor,
        images=images,
        value=float(law.at(images)),
        low=float(low),
        high=float(high),
        gain=float(law.at(images) - law.at(num_train)),
        gain_low=float(gain_low),
        gain_high=float(gain_high),
    )


def _quantiles(values: Floats) -> Floats:
    return np.asarray(np.quantile(values, (0.025, 0.975), axis=0))


def fit_law(sizes: Floats, values: Floats, top: float = np.inf) -> Law:
    """Least squares; a size counts as much as it has images, for parts of few images differ more by luck.

    top: what no value can be above, as 1 for a share. A falling curve has a negative ``b``.
    """
    from scipy.optimize import minimize_scalar

    weights = np.sqrt(sizes / sizes.max())

    def line(c: float) -> tuple[Law, float]:
        """The best limit and slope for an exponent: a straight line over n^-c."""
        x = sizes**-c
        design = np.stack([np.ones_like(x), -x / x.max()], 1)
        limit, slope = np.linalg.lstsq(design * weights[:, None], values * weights, rcond=None)[0]
        if limit > top:
            limit = top
            slope = float((weights**2 * design[:, 1] * (values - top)).sum() / (weights**2 * design[:, 1] ** 2).sum())
        law = Law(limit=float(limit), b=float(slope / x.max()), c=float(c))
        return law, float((weights**2 * (law.at(sizes) - values) ** 2).sum())

    best = minimize_scalar(lambda c: line(c)[1], bounds=(_FLATTEST, _STEEPEST), method="bounded")
    return line(float(best.x))[0]
