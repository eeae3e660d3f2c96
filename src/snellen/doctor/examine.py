"""The examination: what is certain first, then signals, then the experiments that tell causes apart, then forks.

That is the order of cost and of what tells most. A contract that is broken explains the rest, so where one is, forks
are left for the next examination, after the cure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from snellen.core.console import Advance
from snellen.core.finding import CERTAINTIES, SEVERITIES, Check, Finding
from snellen.doctor.answers.checks import ANSWER_CHECKS
from snellen.doctor.case import Case
from snellen.doctor.contracts.table import CONTRACTS
from snellen.doctor.curves.checks import CURVE_CHECKS
from snellen.doctor.experiments.table import EXPERIMENTS
from snellen.doctor.forks import explained_by_forks


@dataclass(frozen=True, kw_only=True)
class Examination:
    """findings: the most telling first. skipped: what there was no time for. seconds: what it took."""

    findings: Sequence[Finding]
    skipped: Sequence[str]
    seconds: float

    @property
    def diagnoses(self) -> list[Finding]:
        """What is known to be wrong: no mere signs, and nothing that is only good to know."""
        return [each for each in self.findings if each.is_diagnosis]


def examine(
    case: Case, *, confirm: bool = True, seconds: float = 60.0, advance: Advance = lambda done, total: None
) -> Examination:
    """Everything that can be said about ``case``. Leaves its training untouched, to the bit.

    confirm  whether experiments are run; without them there are contracts, and signs in curves and answers
    seconds  no experiment is begun after them
    advance  is told how many of the checks are done
    """
    begun = time.monotonic()
    findings: list[Finding] = []
    skipped: list[str] = []

    deadline = begun + seconds
    cheap: list[Check[Case]] = [*CONTRACTS, *CURVE_CHECKS, *ANSWER_CHECKS]
    forks: Check[Case] = partial(_forks_unless_explained, findings=findings, deadline=deadline, skipped=skipped)
    costly = [*EXPERIMENTS, forks] if confirm else []
    for number, check in enumerate((*cheap, *costly), start=1):
        if number > len(cheap) and time.monotonic() > deadline:
            skipped.append(f"{_name(check)}: there was no time for it")
        else:
            findings.extend(_found(check, case, skipped))
        advance(number, len(cheap) + len(costly))
    return Examination(findings=ranked(findings), skipped=skipped, seconds=time.monotonic() - begun)


def _forks_unless_explained(
    case: Case, findings: Sequence[Finding], deadline: float, skipped: list[str]
) -> Iterator[Finding]:
    if not any(_explains_training(each) for each in findings):
        failed: dict[str, str] = {}
        yield from explained_by_forks(case, deadline, failed)
        skipped += [f"fork '{name}': {what}" for name, what in failed.items()]


def _name(check: Check[Case]) -> str:
    name: str = getattr(check, "__name__", "forks")
    return name.replace("_", " ")


def _found(check: Check[Case], case: Case, skipped: list[str]) -> list[Finding]:
    """Somebody's code may fail where it is asked what it was not written for: that is told, and the rest goes on."""
    try:
        return list(check(case))
    except Exception as error:
        skipped.append(f"{_name(check)}: {type(error).__name__}: {error}"[:300])
        return []


# They speak of images, labels or numbers; how the network learns may be wrong beside them.
_BESIDE = frozenset(
    {"images-on-both-sides", "same-image-other-target", "metric-wrong", "batches-not-shuffled", "loss-not-finite"}
)
# What a fault does to the answers, whichever it is: told after the causes, and no reason not to look for them.
_CONSEQUENCES = frozenset({"miscalibrated", "failing-slice", "threshold-unfit", "high-variance", "class-collapse"})

# Where labels are all wrong, those of an image that is there twice contradict each other: leaving it out cures nothing.
_FOLLOWS_FROM = dict.fromkeys(
    ("conflicting-labels", "same-image-other-target"), frozenset({"labels-shifted", "labels-carry-nothing"})
)


def _explains_training(finding: Finding) -> bool:
    return finding.is_diagnosis and finding.code not in _BESIDE | _CONSEQUENCES


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Diagnoses before signs, causes before consequences, what is serious first; what is certain before what
    experiments confirmed; else in the order in which they were found. Of one code only the first stays."""
    first = {finding.code: finding for finding in reversed(list(findings))}
    kept = list(first.values())[::-1]
    diagnosed = {finding.code for finding in kept if finding.is_diagnosis}

    def order(finding: Finding) -> tuple[bool, bool, int, int]:
        return (
            not finding.is_diagnosis,
            finding.code in _CONSEQUENCES or not diagnosed.isdisjoint(_FOLLOWS_FROM.get(finding.code, ())),
            -SEVERITIES.index(finding.severity),
            -CERTAINTIES.index(finding.certainty),
        )

    return sorted(kept, key=order)
