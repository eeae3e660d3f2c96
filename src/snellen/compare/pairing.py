"""The result of a comparison, and the sentence that says no more than the numbers allow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from snellen.core.estimate import Estimate, is_share
from snellen.metrics.paired import Difference

_CHOSEN = {
    "val": "These are validation images, which also chose the models.",
    "out-of-fold": "These are images of the folds, each judged by a model that had not learned from it.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """A baseline and what is held against it, on the images that both were judged on.

    baseline, challenger    names of the runs, or of the arms
    side                    'test', 'out-of-fold' or 'val'
    n                       images
    first, second           the metric of the baseline and of the challenger; of an arm, its mean over the runs
    difference              of the challenger over the baseline
    only_first, only_second  images that only the one names rightly; None where no answer is simply right or wrong
    notes                   what must be known to read the numbers
    """

    metric: str
    baseline: str
    challenger: str
    side: str
    n: int
    first: Estimate
    second: Estimate
    difference: Difference
    only_first: int | None = None
    only_second: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Who is better and by how much, or that it is not shown."""
        gap, span = points(self.metric, self.difference.value), self._span()
        if self.difference.is_shown:
            better = "better" if self.difference.value > 0 else "worse"
            words = f"{self.challenger} is {better} than {self.baseline}: {gap} {span}."
        else:
            words = f"Not shown that {self.challenger} and {self.baseline} differ: {gap} {span}{self._needed()}."
        return " ".join([words, _CHOSEN[self.side]] if self.side in _CHOSEN else [words])

    def _span(self) -> str:
        low, high = self.difference.low, self.difference.high
        if low is None or high is None:
            return "(no interval can be given)"
        return f"({_signed(self.metric, low).lstrip('+')} to {_signed(self.metric, high).lstrip('+')})"

    def _needed(self) -> str:
        if self.difference.images_needed is None:
            return ""
        return (
            f"; it would take about {rounded(self.difference.images_needed):,} images to show a difference of this size"
        )

    def rows(self) -> list[tuple[str, str]]:
        """Names and numbers, for a table."""
        rows = [
            (self.baseline, self.first.told(self.metric)),
            (self.challenger, self.second.told(self.metric)),
            ("  difference", f"{points(self.metric, self.difference.value)} {self._span()}, {self.difference.method}"),
        ]
        if self.only_first is not None and self.only_second is not None:
            test = "" if self.difference.p is None else f"; exact McNemar p = {self.difference.p:.3g}"
            only = f"{self.only_first} only by {self.baseline}, {self.only_second} only by {self.challenger}"
            rows.append(("  named rightly", only + test))
        return rows

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The pairings, each with the same baseline; ``metric`` is the headline of the task."""

    task: str
    metric: str
    pairings: tuple[Pairing, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """All verdicts, one after the other."""
        return " ".join(pairing.verdict for pairing in self.pairings)

    def lines(self) -> Iterator[str]:
        """For a reader: the verdicts, then the numbers under each other, then what must be known beside them."""
        yield from (pairing.verdict for pairing in self.pairings)
        rows = [row for pairing in self.pairings for row in pairing.rows()]
        wide = max(len(name) for name, _ in rows)
        yield from (f"  {name:{wide}}  {told}" for name, told in dict.fromkeys(rows))
        yield from dict.fromkeys([*(note for pairing in self.pairings for note in pairing.notes), *self.notes])

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "task": self.task,
            "metric": self.metric,
            "pairings": [pairing.to_json() for pairing in self.pairings],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"Comparison({self.verdict!r})"


def points(metric: str, difference: float) -> str:
    """``+3.1 points`` of a share, ``+0.031`` of anything else."""
    return f"{_signed(metric, difference)} points" if is_share(metric) else _signed(metric, difference)


def _signed(metric: str, difference: float) -> str:
    text = f"{100 * difference:+.1f}" if is_share(metric) else f"{difference:+.3f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("+-")


def rounded(number: int) -> int:
    """To two figures: the size of an observed difference is not known better than that."""
    step: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step
