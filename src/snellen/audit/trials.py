"""Trials of another reading of what is marked: one vote for each group of images, and the exact sign test.

Scores are 0 by chance and 1 at most. If marks are right, hardly any image prefers another reading; if they are
anywhere, it is a coin toss. A trial speaks when far more images prefer the other reading than a coin would have it,
and that reading fits well where the stated one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.audit.edges import Floats
from snellen.audit.subject import MAX_IMAGES

_WON = 0.6  # of the images prefer the other reading
_FITS = 0.1  # mean score of what is right: on photographs 0.2 and more, and of what is wrong below 0.05
_GAIN = 0.08  # in the mean score
_HALF = 0.5  # of what the better reading scores: as much may the stated one have


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One other reading, tried.

    words           says of the marks what they are by it
    won, total      votes for it, and votes in all
    stated, better  mean scores of the marks as they are, and by this reading
    gain            of the mean scores; of several kinds that must gain each, the least
    left            what the stated score is of the better one, 1 for all of it; of several kinds the most
    by_little       whether it moves marks by little, so that the stated ones may fit in part
    images          that gain the most
    """

    name: str
    words: str
    won: int
    total: int
    stated: float
    better: float
    gain: float
    left: float
    by_little: bool
    images: tuple[str, ...]

    @property
    def p(self) -> float:
        """The exact one-sided sign test; no difference counts against the reading."""
        from scipy.special import bdtrc  # not at the top: its import takes longer than most audits

        return float(bdtrc(self.won - 1, self.total, 0.5)) if self.won else 1.0

    def speaks(self, level: float) -> bool:
        fits = self.better >= _FITS and self.gain >= _GAIN
        clearly = self.by_little or self.left <= _HALF
        return fits and clearly and self.won >= _WON * self.total and self.p < level

    def evidence(self) -> dict[str, object]:
        return {
            "reading": self.name,
            "num_better": self.won,
            "num_images": self.total,
            "p": self.p,
            "score_as_read": round(self.stated, 3),
            "score_better": round(self.better, 3),
        }


def best_trial(trials: Sequence[Trial], level: float) -> Trial | None:
    """Of those that speak, the one that gains the most."""
    found = [each for each in trials if each.speaks(level)]
    return max(found, key=lambda each: each.gain, default=None)


def trial(
    name: str,
    words: str,
    images: Sequence[str],
    units: NDArray[np.intp],
    scores: tuple[Floats, Floats],
    *,
    each_gains: bool = False,
    by_little: bool = False,
) -> Trial:
    """The trial of one reading.

    units       the group of each image, 0, 1, ...
    scores      of the marks as they are, and by the reading, [images, kinds] each; NaN: nothing to compare
    each_gains  whether each kind must gain for itself: the votes are those of the one that gains the least often
    """
    gains = scores[1] - scores[0]
    of_images = mean_over(gains, 1)
    won, total = min(
        (_votes(units, column) for column in (gains.T if each_gains else [of_images])),
        key=lambda votes: votes[0] / max(1, votes[1]),
    )
    order = [i for i in np.argsort(-of_images, kind="stable") if of_images[i] > 0]
    stated, better = (np.where(np.isfinite(gains), each, np.nan).ravel() for each in scores)
    kinds = gains.shape[1] if each_gains else 1
    means = [np.nan_to_num(mean_over(each.reshape(-1, kinds), 0)) for each in (stated, better)]
    return Trial(
        name=name,
        words=words,
        won=won,
        total=total,
        stated=float(np.nan_to_num(mean_over(stated, 0))),
        better=float(np.nan_to_num(mean_over(better, 0))),
        gain=float((means[1] - means[0]).min()),
        left=float((means[0] / np.maximum(means[1], 1e-9)).max()),
        by_little=by_little,
        images=tuple(images[i] for i in order[:MAX_IMAGES]),
    )


def mean_over(values: Floats, axis: int) -> Floats:
    """Of what is known; NaN where nothing is."""
    count = np.isfinite(values).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0))


def _votes(units: NDArray[np.intp], gains: Floats) -> tuple[int, int]:
    """How many units gain, of how many that can tell; a unit has the mean of its images."""
    known = np.isfinite(gains)
    length = int(units.max()) + 1
    total = np.bincount(units[known], gains[known], minlength=length)
    voting = np.bincount(units[known], minlength=length) > 0
    return int(np.count_nonzero(total[voting] > 0)), int(np.count_nonzero(voting))
