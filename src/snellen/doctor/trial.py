"""Does the treatment help? A paired re-run beside a placebo, judged by a rule that is written down before it begins.

Three arms of as many seeds: as it was, treated, and once more as it was with other seeds. The last one shows how far
two arms come apart when nothing was done: a rule that takes that for a cure is no rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS
from snellen.doctor.case import Case
from snellen.doctor.changes import Change, change_of
from snellen.doctor.forks import Forks, Outcome
from snellen.metrics.paired import Difference, seeds_interval

Word = Literal["helped", "harmed", "not shown"]
_METHOD = "over seeds and images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What counts as a cure.

    seeds  runs of each arm
    floor  the least gain of the mean that is worth the name
    """

    seeds: int = 3
    floor: float = FLOORS["cure"]

    def sentence(self) -> str:
        return (
            f"Helped: over {self.seeds} seeds and all validation images the 95 % interval of the gain lies above 0, "
            f"and the gain is at least {self.floor:g}. Harmed: the interval lies below 0. Otherwise, or where "
            "untreated runs with other seeds seem to help as well: not shown."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """treatment, rule: what was tried and how it was to be judged; gain, placebo: of the treated and of the untreated
    arm over the control; before, after: mean scores of the control and of the treated arm."""

    treatment: str
    rule: Rule
    word: Word
    gain: Difference
    placebo: Difference
    before: float
    after: float

    def sentence(self) -> str:
        low, high = self.gain.low, self.gain.high
        span = "no interval" if low is None or high is None else f"95 % interval {low:+.3f} to {high:+.3f}"
        return (
            f"{self.treatment}: {self.word}. {self.before:.3f} before, {self.after:.3f} after, a difference of "
            f"{self.gain.value:+.3f} ({span}; {self.placebo.value:+.3f} without treatment)."
        )

    def to_json(self) -> dict[str, Any]:
        return {"version": 1, **asdict(self), "rule_in_words": self.rule.sentence(), "sentence": self.sentence()}


def decide(rule: Rule, gain: Difference, placebo: Difference) -> Word:
    """The word that ``rule`` gives."""
    if gain.low is None or gain.high is None:
        return "not shown"
    if gain.high < 0:
        return "harmed"
    placebo_seems_to_help = placebo.low is not None and placebo.low > 0 and placebo.value >= rule.floor
    helped = gain.low > 0 and gain.value >= rule.floor and not placebo_seems_to_help
    return "helped" if helped else "not shown"


def change_to_try(findings: Iterable[Finding]) -> Change | None:
    """Of the first finding that is treated by a change which the scores of a model can show to help."""
    known = (change_of(each.treatment) for each in findings)
    return next((each for each in known if each is not None and not each.mends_number), None)


def try_change(case: Case, change: Change, rule: Rule, deadline: float = math.inf) -> Trial | None:
    """The trial of a change to somebody's training. None where it cannot be built anew, or there is no time for it."""
    forks = Forks(case=case, deadline=deadline, judged_on=change.judged_on)
    seeds = range(rule.seeds)
    control = _arm(forks, None, seeds)
    treated = _arm(forks, change, seeds)
    placebo = _arm(forks, None, range(rule.seeds, 2 * rule.seeds))
    if control is None or treated is None or placebo is None:
        return None
    gain, nothing = _difference(control, treated), _difference(control, placebo)
    return Trial(
        treatment=change.says[:1].upper() + change.says[1:],
        rule=rule,
        word=decide(rule, gain, nothing),
        gain=gain,
        placebo=nothing,
        before=_mean(control),
        after=_mean(treated),
    )


def _arm(forks: Forks, change: Change | None, seeds: Sequence[int]) -> list[Outcome] | None:
    outcomes = [forks.run(change, seed) for seed in seeds]
    known = [each for each in outcomes if each is not None]
    return known if len(known) == len(outcomes) else None


def _mean(arm: Sequence[Outcome]) -> float:
    return float(np.mean([each.val.mean for each in arm]))


def _difference(first: Sequence[Outcome], second: Sequence[Outcome]) -> Difference:
    of_images = np.mean([each.val.values for each in second], 0) - np.mean([each.val.values for each in first], 0)
    n = len(of_images)
    if n < 2:
        return Difference(value=float(of_images.sum()), low=None, high=None, method=_METHOD)
    low, high = seeds_interval(
        [each.val.mean for each in first], [each.val.mean for each in second], float(of_images.var(ddof=1)) / n, n
    )
    return Difference(value=float(of_images.mean()), low=low, high=high, method=_METHOD)
