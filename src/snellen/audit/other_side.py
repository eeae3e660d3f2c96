"""The labels of training judged by those of another side that came with the data.

What a model learns from the labels of validation is tried on images of validation that it has not seen, and on those of
training. Training images are more, so its own labels should teach at least as much; where both models tell far fewer of
the training labels than the one tells of its own side, the training labels are at fault, or its images are harder. One
of the two explanations falls where hard images would be doubted and these are denied (metrics/label_errors.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snellen.audit.labelled import FEWEST, Labelled
from snellen.core.record import Split

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FEWEST_OF_CLASS = 5  # images on the other side
_CLEARLY = 0.1  # of the images, fewer: what images that are harder by nature make of it is less
_HABIT = 0.15  # of the images that are called one class look like another, more than on the other side


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How many labels were told, and of how many images; one of each unit counts.

    of_side           labels of the other side, by a model of its other labels
    of_train          labels of training, by that model
    of_train_by_train labels of training, by a model of its other labels
    """

    side: Split
    num_side: int
    num_train: int
    of_side: int
    of_train: int
    of_train_by_train: int

    @property
    def p(self) -> float:
        """Of the larger of two exact one-sided tests (Fisher): training labels are told as often, by either model."""
        return max(_fewer(right, self.num_train, self.of_side, self.num_side) for right in self._right)

    @property
    def fewer(self) -> float:
        """By how much the share is smaller, by the model that finds less of a difference."""
        return self.of_side / self.num_side - max(self._right) / self.num_train

    @property
    def _right(self) -> tuple[int, int]:
        return self.of_train, self.of_train_by_train

    def are_worse(self, level: float) -> bool:
        return self.fewer >= _CLEARLY and self.p <= level

    def evidence(self) -> dict[str, object]:
        return {
            "side": self.side,
            "told_of_side": self.of_side / self.num_side,
            "told_of_train": self.of_train / self.num_train,
            "told_of_train_by_train": self.of_train_by_train / self.num_train,
            "p": self.p,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """Training images that are called ``called`` and look like ``looks_like`` (places in the classes).

    count, num            of them, and of all that are called so
    count_side, num_side  the same on the other side
    """

    looks_like: int
    called: int
    count: int
    num: int
    count_side: int
    num_side: int
    p: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OtherSide:
    """by_side, by_train: what a model of either side's labels says of every image, its own images held out, [n]."""

    seen: Labelled
    side: Split
    by_side: Codes
    by_train: Codes

    @classmethod
    def of(cls, seen: Labelled, sides: list[Split]) -> OtherSide | None:
        """The larger of validation and test; None where it has too few images of some class."""
        k = len(seen.classes)
        others = [side for side in sides if side != "train"]
        side = max(others, key=lambda each: int(seen.on(each).sum()), default=None)
        if side is None or "train" not in sides:
            return None
        there, train = seen.on(side), seen.on("train")
        counts = np.bincount(seen.codes[there & seen.first_of_units()], minlength=k)
        if counts.sum() < FEWEST or counts.min() < _FEWEST_OF_CLASS or train.sum() < counts.sum():
            return None
        by_side, by_train = (
            np.asarray(seen.classifier.scores(seen.codes, k, kept).argmax(1), np.int64) for kept in (there, train)
        )
        return cls(seen=seen, side=side, by_side=by_side, by_train=by_train)

    @property
    def _counted(self) -> tuple[Mask, Mask]:
        """One image of each unit on the other side, and in training."""
        first = self.seen.first_of_units()
        return first & self.seen.on(self.side), first & self.seen.on("train")

    def told(self) -> Told:
        there, train = self._counted
        codes = self.seen.codes
        return Told(
            side=self.side,
            num_side=int(there.sum()),
            num_train=int(train.sum()),
            of_side=int((there & (self.by_side == codes)).sum()),
            of_train=int((train & (self.by_side == codes)).sum()),
            of_train_by_train=int((train & (self.by_train == codes)).sum()),
        )

    def habits(self, level: float) -> Iterator[Habit]:
        """Pairs of classes of which training calls one the other, where the other side does not.

        The images of all other classes must be told on training as on the other side: else it is the images that
        differ, and not what they are called.
        """
        there, train = self._counted
        codes, k = self.seen.codes, len(self.seen.classes)
        for called in range(k):
            sides = [mask & (codes == called) for mask in (train, there)]
            for looks_like in (each for each in range(k) if each != called):
                counts = [int((mask & (self.by_side == looks_like)).sum()) for mask in sides]
                num, num_side = (int(mask.sum()) for mask in sides)
                if not num or not num_side or counts[0] / num - counts[1] / num_side < _HABIT:
                    continue
                p = _fewer(counts[1], num_side, counts[0], num)
                if p <= level and self._fit_elsewhere((called, looks_like)):
                    yield Habit(
                        looks_like=looks_like,
                        called=called,
                        count=counts[0],
                        num=num,
                        count_side=counts[1],
                        num_side=num_side,
                        p=p,
                    )

    def _fit_elsewhere(self, pair: tuple[int, int]) -> bool:
        """Whether the labels of all other classes are told on training nearly as on the other side."""
        elsewhere = ~np.isin(self.seen.codes, pair)
        shares = []
        for mask in self._counted:
            asked = mask & elsewhere
            shares.append(float((self.by_side == self.seen.codes)[asked].mean()) if asked.any() else 1.0)
        return shares[1] >= shares[0] - _CLEARLY


def _fewer(right: int, num: int, right_other: int, num_other: int) -> float:
    """That at most ``right`` of ``num`` are right, if the share is that of the others: Fisher's exact test."""
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(right, num + num_other, right + right_other, num))
