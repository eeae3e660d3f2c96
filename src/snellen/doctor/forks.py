"""Forks: the same training once more from its beginning with one thing changed, judged on the same images.

A fork that does better tells which thing was wrong, since nothing else differs. One seed may be lucky: what won is run
again with other seeds, and counts only when it wins in each of them.

Where a training is too long for that, all of them are shortened alike (``Training.build_short``): what is seen then is
a sign, and not a diagnosis.

Before any of that two runs say where to look: the user's network in a usual training, and a usual network in it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.special import bdtrc

from snellen.core.finding import Finding, Severity
from snellen.core.seeds import keyed_permutation
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case, Training
from snellen.doctor.changes import CHANGES, Change
from snellen.doctor.house import takes_longer
from snellen.doctor.judge import one_of_each
from snellen.doctor.learning import learn
from snellen.doctor.safety import untouched
from snellen.doctor.scores import Gain, Scores, gain, score_images
from snellen.doctor.suspicions import LESS_TELLING, QUICKENED, SUSPICIONS, Suspicion

_USUAL, _REFERENCE = CHANGES["usual training"], CHANGES["usual network"]
_MORE_SEEDS = (1, 2)
_NOTHING = 0.01  # of the score: a change that does not even do this much leaves the matter open
_MOST_JUDGED = 300  # validation images, one at a time
_TRIAGE_P = 0.05  # the only consequence is that forks are run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one training: how well it answers the validation images, and how long it took.

    val    by image, what gains are told by
    score  of all of them, what its owner goes by
    """

    change: str
    seed: int
    val: Scores
    score: float
    seconds: float


@dataclass(kw_only=True)
class Forks:
    """Every training that was run for one case; each only once.

    deadline  of ``time.monotonic()``; a training that would probably end after it is not begun
    failed    by change: what somebody's code said to it, and whether time ran out
    judged_on what is done to a training that has learnt before it is judged
    """

    case: Case
    deadline: float
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    judged_on: Callable[[Training], Training] = field(default=lambda training: training)

    def run(self, change: Change | None, seed: int = 0) -> Outcome | None:
        """None where it does not fit the training, its code cannot do it, or the time does not suffice."""
        training = self.case.training
        if training is None or training.build is None or not training.epochs:
            return None
        build = training.build_short or training.build
        name = "" if change is None else change.name
        if (name, seed) not in self.outcomes:
            longest = max((each.seconds for each in self.outcomes.values()), default=0.0)
            if name in self.failed:
                return None
            if time.monotonic() + longest > self.deadline:
                self.failed["further ones"] = "there was no time for them"
                return None
            begun = time.monotonic()
            try:
                with untouched(training):
                    fresh = build(seed) if change is None else _with(change, build(seed))
                    if fresh is None:
                        return None
                    learn(fresh, seed=seed)
                    val, score = _judged(self.judged_on(fresh))
            except Exception as error:  # of somebody's code, asked for what it was not written for
                if change is None:
                    raise
                self.failed[name] = f"{type(error).__name__}: {error}"[:200]
                return None
            seconds = time.monotonic() - begun
            self.outcomes[name, seed] = Outcome(change=name, seed=seed, val=val, score=score, seconds=seconds)
        return self.outcomes[name, seed]

    def gain(self, change: Change, seed: int = 0) -> Gain | None:
        """How much better the training is with ``change``; None as ``run``."""
        base, changed = self.run(None, seed), self.run(change, seed)
        return None if base is None or changed is None else gain(base.val, changed.val)


def _with(change: Change, fresh: Training) -> Training | None:
    """None where it does not fit, or, of a run of Snellen's own, where no settings make it."""
    is_a_rival = change in (_USUAL, _REFERENCE) and fresh.judge is None
    if fresh.changed is not None and not is_a_rival:
        return fresh.changed(change.name)
    return change.apply(fresh) if change.fits(fresh) else None


def _judged(training: Training) -> tuple[Scores, float]:
    """(scores, score) of validation images; where a judge judges, minus the loss of each, and the owner's number."""
    if training.judge is None:
        val = replace(score_images(training, training.val), units=training.units.get("val", ()))
        return val, val.mean
    drawn = keyed_permutation(training.judge.count("val"), "forks").tolist()
    rows = sorted(one_of_each(drawn, training.units.get("val", ()))[:_MOST_JUDGED])
    with torch.no_grad():
        judged = training.judge.judged("val", rows)
    return Scores(values=np.nan_to_num(-judged.losses, nan=-1e9, neginf=-1e9)), judged.score


def explained_by_forks(case: Case, deadline: float, failed: dict[str, str] | None = None) -> Iterator[Finding]:
    """Where to look, then what helps there: one finding, or none where a usual training does no better.

    ``failed`` is filled as that of ``Forks``.
    """
    forks = Forks(case=case, deadline=deadline, failed={} if failed is None else failed)
    if case.training is not None and case.training.build_short is not None:
        yield from _seen_in_short_trainings(forks, case.training)
        return
    usual, reference = forks.gain(_USUAL), forks.gain(_REFERENCE)
    is_worth_it = any(each is not None and _is_worth_a_look(each) for each in (usual, reference))
    best = _best(forks, [each for each in SUSPICIONS if is_worth_it or each.alone])
    if best is not None:
        yield best
    if best is not None or not is_worth_it:
        return
    if case.training is None or (case.training.judge is None and takes_longer(case.training)):
        return
    for change, code, words in (
        (_USUAL, "unknown-cause", "with usual settings the same network"),
        (_REFERENCE, "network-unfit", "a usual network"),
    ):
        found = _confirmed(forks, change, code, 1)
        if found is not None and found[0] >= FLOORS["unnamed"]:
            yield _without_name(code, words, change, found)
            return


def _seen_in_short_trainings(forks: Forks, training: Training) -> Iterator[Finding]:
    """As far as shortened trainings can tell: signs, of faults that do not merely slow learning down, for whatever
    quickens it wins there. Nothing where the training as it is learns nothing in so few steps."""
    is_known = training.question == "classification" or training.judge is not None
    base = forks.run(None) if is_known else None
    if base is None:
        return
    if not _learns(training, base.val):
        yield _too_short(training, base.score)
        return
    usual, reference = forks.gain(_USUAL), forks.gain(_REFERENCE)
    if any(each is not None and _is_worth_a_look(each) for each in (usual, reference)):
        best = _best(forks, [each for each in SUSPICIONS if each.code not in QUICKENED])
        if best is not None:
            told = f" (seen in trainings shortened to {training.shortened:.0%} of their steps)"
            message = best.message.removesuffix(".") + told + "."
            evidence = {**best.evidence, "shortened": training.shortened}
            yield replace(best, certainty="observed", message=message, evidence=evidence)


def _learns(training: Training, val: Scores) -> bool:
    """Whether more validation images are right than by guessing their most frequent class, by the binomial test; with a
    judge, whether they are judged better than before the first step."""
    if training.judge is not None and training.build is not None:
        with untouched(training):
            before, _ = _judged(training.build(0))
        return gain(before, val).p < _TRIAGE_P
    truth = [int(each) for _, targets in training.val for each in targets]
    guess = max(Counter(truth).values()) / len(truth)
    return bool(bdtrc(int(val.values.sum()) - 1, len(truth), guess) < _TRIAGE_P)


def _too_short(training: Training, score: float) -> Finding:
    return Finding(
        code="forks-too-short",
        severity="info",
        message=f"Forks were shortened to {training.shortened:.0%} of the steps, and in so few the training as it is "
        f"learns nothing (it reaches {_told(score)} on the validation images): what would help is not known.",
        advice="Try a change on the whole training: snellen doctor --treat, or a run with other settings.",
        evidence={"shortened": training.shortened, "score": score},
        certainty="observed",
    )


def _is_worth_a_look(found: Gain) -> bool:
    return found.relative >= FLOORS["accuracy"] and found.p < _TRIAGE_P


def _best(forks: Forks, suspicions: Sequence[Suspicion]) -> Finding | None:
    """The suspicion whose change helps most, if it helps in every seed."""
    found: list[tuple[float, Suspicion, Change]] = []
    for suspicion in suspicions:
        change, most = _best_change(forks, suspicion)
        if change is not None and most is not None and most.relative >= FLOORS["accuracy"] and most.p < _TRIAGE_P:
            found.append((most.relative, suspicion, change))
    for _, suspicion, change in _most_telling_first(found):
        shown = _confirmed(forks, change, suspicion.code, len(suspicion.changes))
        if shown is not None:
            return _finding(suspicion, change, shown)
    return None


def _best_change(forks: Forks, suspicion: Suspicion) -> tuple[Change | None, Gain | None]:
    """Of the changes of one kind, in rising strength, for as long as more of it helps more, or nothing helps yet.

    A rate that is a hundred times too high is as bad at a tenth.
    """
    best: tuple[Change | None, Gain | None] = (None, None)
    training = forks.case.training
    if training is None or training.build is None:
        return best
    with untouched(training):  # of the random states
        if not suspicion.holds(training.build(0)):
            return best
    for name in suspicion.changes:
        found = forks.gain(CHANGES[name])
        if found is None:
            break
        if best[1] is not None and found.mean <= best[1].mean:
            if max(abs(found.mean), abs(best[1].mean)) < _NOTHING:
                continue
            break
        best = (CHANGES[name], found)
    return best


def _most_telling_first(
    found: Sequence[tuple[float, Suspicion, Change]],
) -> list[tuple[float, Suspicion, Change]]:
    """By what they gain; those that make up for other faults only after those that come close to them."""
    most = max((each[0] for each in found), default=0.0)

    def order(each: tuple[float, Suspicion, Change]) -> tuple[bool, int, float]:
        code = each[1].code
        is_close = each[0] >= 0.8 * most
        return (not is_close, LESS_TELLING.index(code) + 1 if code in LESS_TELLING else 0, -each[0])

    return sorted(found, key=order)


def _confirmed(forks: Forks, change: Change, code: str, looks: int) -> tuple[float, float, float, float] | None:
    """(least gain, mean score without, mean score with, p): shown in the first seed, and in each of the others."""
    first = forks.gain(change)
    if first is None or first.p >= alpha(code, looks):
        return None
    base, changed, gains = [], [], []
    for seed in (0, *_MORE_SEEDS):
        again, one, other = forks.gain(change, seed), forks.run(None, seed), forks.run(change, seed)
        if again is None or one is None or other is None:
            return None
        gains.append(again.relative)
        base.append(one.score)
        changed.append(other.score)
    if min(gains) < FLOORS["accuracy"] or min(changed) <= max(base):
        return None
    return min(gains), sum(base) / len(base), sum(changed) / len(changed), first.p


def _severity(least: float) -> Severity:
    return "serious" if least >= FLOORS["serious"] else "warning" if least >= FLOORS["warning"] else "info"


def _finding(suspicion: Suspicion, change: Change, shown: tuple[float, float, float, float]) -> Finding:
    least, base, changed, p = shown
    return Finding(
        code=suspicion.code,
        severity=_severity(least / suspicion.costs),
        message=f"{suspicion.message}: with {change.says} the same training reaches {_told(changed)} instead of "
        f"{_told(base)} on the validation images, and does so in each of {1 + len(_MORE_SEEDS)} seeds.",
        advice=suspicion.advice,
        evidence={"change": change.name, "without": base, "with": changed, "least_gain": least, "p": p},
        certainty="confirmed",
        treatment={"change": change.name},
    )


def _without_name(code: str, words: str, change: Change, shown: tuple[float, float, float, float]) -> Finding:
    least, base, changed, p = shown
    return Finding(
        code=code,
        severity=_severity(least),
        message=f"Something holds this training up that none of the single changes explains: {words} reaches "
        f"{_told(changed)} instead of {_told(base)} on the same images.",
        advice="Begin with the usual settings and bring yours back one at a time."
        if code == "unknown-cause"
        else "Use a network of known make, and look for what differs in yours.",
        evidence={"change": change.name, "without": base, "with": changed, "least_gain": least, "p": p},
        certainty="confirmed",
        treatment={"change": change.name},
    )


def _told(score: float) -> str:
    return f"{score:.1%}" if 0 <= score <= 1 else f"a score of {score:.3g}"
