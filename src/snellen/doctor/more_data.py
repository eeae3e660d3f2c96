"""Would more images help, and of which class? A model on frozen features learns from ever more of the training images,
and judges those that it has not seen.

Learning curves follow power laws over wide ranges (Hestness et al. 2017, arXiv:1712.00409), but a law that fits need
not go on (Viering and Loog 2021, arXiv:2103.10948). So no more is promised of the next doubling than the last one gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from snellen.audit.labelled import Labelled
from snellen.core.finding import Finding
from snellen.core.seeds import keyed_generator, keyed_seed
from snellen.core.thresholds import FLOORS, alpha
from snellen.metrics.interval import group_codes
from snellen.train.learning_curve import fit_law

_CODE = "more-data-would-help"
_FOLDS, _REPEATS = 5, 3
_SHARES = (1.0, 0.71, 0.5, 0.35, 0.25, 0.18)  # of what can be learnt from; each part holds the next
_HALF = _SHARES.index(0.5)
_FEWEST, _FEWEST_OF_CLASS = 120, 20  # training images
_AXES = 256  # of the kernel's space: the rest is noise, and costs
_RESAMPLES = 200
_TOLD = 3  # classes

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubling:
    """What twice the images would give: the share of right answers now and then, the gain with its 95 % interval.

    name    a class, whose images alone are asked about; "": all
    images  there are now
    p       that half of the images were as good (exact sign test, one image of each unit)
    """

    name: str
    images: int
    now: float
    then: float
    gain_low: float
    gain_high: float
    p: float

    @property
    def is_worth_it(self) -> bool:
        return self.gain_low >= FLOORS["accuracy"]

    def sentence(self) -> str:
        what = f"{self.name} (now {self.images:,} images)" if self.name else "all images"
        low, high = 100 * self.gain_low, 100 * self.gain_high
        return f"{what}: {self.then:.1%} right instead of {self.now:.1%}, {low:+.1f} to {high:+.1f} points"


def more_data_would_help(seen: Labelled | None, seed: int = 0) -> Iterator[Finding]:
    """Twice the training images make a model on frozen features better, overall or for some classes.

    A sign: the network that is trained may gain less or more, and nobody has seen the images that are to come.
    """
    rows = np.zeros(0, np.int64) if seen is None else np.flatnonzero(seen.on("train"))
    if seen is None or len(rows) < _FEWEST:
        return
    found = doublings(
        _points(seen)[rows],
        seen.codes[rows],
        group_codes([seen.units[i] for i in rows.tolist()]),
        seen.classes,
        penalty=seen.classifier.penalty,
        seed=seed,
    )
    if not found:
        return
    overall = next((each for each in found if not each.name), None)
    classes = [each for each in found if each.name][:_TOLD]
    best = max(each.gain_low for each in found)
    told = "; ".join(each.sentence() for each in ([] if overall is None else [overall]) + classes)
    ask = f"images of {', '.join(each.name for each in classes)}" if classes else "images of all classes"
    yield Finding(
        code=_CODE,
        severity="warning" if best >= FLOORS["warning"] else "info",
        certainty="observed",
        message=f"With twice the training images ({2 * len(rows):,}) a model on frozen features is expected to gain: "
        f"{told}.",
        advice=f"Collect more {ask}; look again once there are half as many more.",
        evidence={"num_train": len(rows), "doublings": [asdict(each) for each in found]},
    )


def doublings(
    points: Floats, codes: Codes, units: Codes, classes: Sequence[str], *, penalty: float, seed: int
) -> list[Doubling]:
    """What is shown to be worth it: over all images first, then for classes, those first that gain most.

    points   [n, d], what a ridge regression learns from; codes [n] the class of each image, 0..k-1
    units    [n]: images that share one are not independent
    penalty  on the squared weights
    """
    right = _right(points, codes, units, len(classes), penalty, seed)
    single = np.zeros(len(codes), np.bool_)
    single[np.unique(units, return_index=True)[1]] = True
    sizes = np.bincount(codes, minlength=len(classes))
    asked = [-1, *np.flatnonzero(sizes >= _FEWEST_OF_CLASS).tolist()]
    found = []
    for code in asked:
        rows = np.ones(len(codes), np.bool_) if code < 0 else codes == code
        p = _p_of_half(right[:, :, rows & single])
        if p <= alpha(_CODE, len(asked)):
            name = "" if code < 0 else classes[code]
            found.append(_doubling(name, right[:, :, rows], units[rows], p, keyed_generator(_CODE, seed, code)))
    worth = [each for each in found if each.is_worth_it]
    return sorted(worth, key=lambda each: (bool(each.name), -each.gain_low))


def _points(seen: Labelled) -> Floats:
    """The leading principal axes of the kernel's space, [n, at most 256]."""
    basis = seen.classifier.basis
    _, vectors = np.linalg.eigh(basis.T @ basis)
    return np.asarray(basis @ vectors[:, -_AXES:])


def _right(points: Floats, codes: Codes, units: Codes, num_classes: int, penalty: float, seed: int) -> Mask:
    """Whether each image is told rightly by a model that has not seen its unit, [shares, repeats, n]."""
    right = np.zeros((len(_SHARES), _REPEATS, len(codes)), np.bool_)
    wanted = np.eye(num_classes)[codes] - 1 / num_classes
    for repeat in range(_REPEATS):
        lot = np.array([keyed_seed(_CODE, seed, repeat, int(unit)) for unit in range(int(units.max()) + 1)], float)
        order = lot[units]
        fold = lot.argsort().argsort()[units] % _FOLDS
        for number in range(_FOLDS):
            rank = _rank_in_class(codes, order, fold != number)
            for i, share in enumerate(_SHARES):
                learnt = rank < share
                inner = points[learnt].T @ points[learnt]
                inner[np.diag_indices_from(inner)] += penalty
                said = points[fold == number] @ np.linalg.solve(inner, points[learnt].T @ wanted[learnt])
                right[i, repeat, fold == number] = said.argmax(1) == codes[fold == number]
    return right


def _rank_in_class(codes: Codes, order: Floats, among: Mask) -> Floats:
    """Where each image stands among those of its class, 0 up to below 1, [n]; infinite for those not ``among`` them."""
    rank = np.full(len(codes), np.inf)
    for code in np.unique(codes[among]):
        rows = np.flatnonzero(among & (codes == code))
        rank[rows[np.argsort(order[rows], kind="stable")]] = np.arange(len(rows)) / len(rows)
    return rank


def _p_of_half(right: Mask) -> float:
    """That images are told rightly no oftener after all than after half, each by the mean of its repeats."""
    from scipy.special import bdtrc

    difference = right[0].astype(int).sum(0) - right[_HALF].astype(int).sum(0)
    up, down = int((difference > 0).sum()), int((difference < 0).sum())
    return float(bdtrc(up - 1, up + down, 0.5)) if up else 1.0


def _doubling(name: str, right: Mask, units: Codes, p: float, rng: np.random.Generator) -> Doubling:
    """right [shares, repeats, n] of the images that are asked about. The interval is of resampled units and repeats."""
    n = right.shape[2]
    _, units = np.unique(units, return_inverse=True)
    now, gain = _law_gain(right.mean((1, 2)), n)
    gains = []
    for _ in range(_RESAMPLES):
        weights = np.bincount(rng.integers(units.max() + 1, size=units.max() + 1), minlength=units.max() + 1)[units]
        repeats = rng.integers(_REPEATS, size=_REPEATS)
        if weights.any():
            gains.append(_law_gain(right[:, repeats].mean(1) @ weights / weights.sum(), n)[1])
    low, high = np.quantile(gains, (0.025, 0.975))
    return Doubling(
        name=name, images=n, now=now, then=min(1.0, now + gain), gain_low=float(low), gain_high=float(high), p=p
    )


def _law_gain(values: Floats, n: int) -> tuple[float, float]:
    """What the law through the shares of right answers says of n images, and the gain of twice as many, which is no
    more than that from half of what was learnt from to all of it."""
    sizes = np.array(_SHARES) * n * (1 - 1 / _FOLDS)
    law = fit_law(sizes[::-1], values[::-1], 1.0)
    now, then = (float(law.at(each)) for each in (n, 2 * n))
    return now, min(then - now, float(values[0] - values[_HALF]))
