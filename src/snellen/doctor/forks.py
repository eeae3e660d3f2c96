"""Forks: the same training once more from its beginning with one thing changed, judged on the same images.

A fork that does better tells which thing was wrong, since nothing else differs. One seed may be lucky: what won is run
again with other seeds, and counts only when it wins in each of them.

Before any of that two runs say where to look: the user's network in a usual training, and a usual network in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from snellen.core.finding import Finding, Severity
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case, Training
from snellen.doctor.changes import CHANGES, Change
from snellen.doctor.clipping import clips_hard
from snellen.doctor.house import takes_longer
from snellen.doctor.learning import learn
from snellen.doctor.safety import untouched
from snellen.doctor.scores import Gain, Scores, gain, score_images

_USUAL, _REFERENCE = CHANGES["usual training"], CHANGES["usual network"]
_MORE_SEEDS = (1, 2)
_TRIAGE_P = 0.05  # the only consequence is that forks are run


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A cause, and the changes of which each would cure it if it were the one. holds: what else must be so."""

    code: str
    changes: tuple[str, ...]
    message: str
    advice: str
    holds: Callable[[Training], bool] = field(default=lambda training: True)


SUSPICIONS = (
    Suspicion(
        code="rate-too-high",
        changes=("rate/3", "rate/10", "rate/100"),
        message="The learning rate is too high",
        advice="Train with the lower rate, or warm up to this one.",
    ),
    Suspicion(
        code="rate-too-low",
        changes=("rate*3", "rate*10", "rate*100", "rate*1000"),
        message="The learning rate is too low for this many steps",
        advice="Train with the higher rate.",
    ),
    Suspicion(
        code="decay-too-strong",
        changes=("no decay",),
        message="The weight decay holds the weights down",
        advice="Lower the weight decay by a factor of ten or more.",
    ),
    Suspicion(
        code="dropout-too-strong",
        changes=("no dropout",),
        message="Dropout takes away more than the network can miss",
        advice="Lower the dropout, or leave it out.",
    ),
    Suspicion(
        code="bad-initialisation",
        changes=("new weights",),
        message="The network begins with weights that it cannot learn from",
        advice="Leave the weights as torch makes them, or draw them by He's rule.",
    ),
    Suspicion(
        code="inputs-not-scaled",
        changes=("standardised inputs",),
        message="The numbers that the network gets are on a scale that it learns badly from",
        advice="Standardise the inputs by the mean and deviation of the training images.",
    ),
    Suspicion(
        code="augmentation-hurts",
        changes=("plain images",),
        message="The augmentation takes away what the classes are told by",
        advice="Leave out the augmentation, then bring its operations back one by one.",
    ),
    Suspicion(
        code="batches-in-a-bad-order",
        changes=("shuffle",),
        message="The order of the training images holds training up",
        advice="Shuffle the training images in each epoch.",
    ),
    Suspicion(
        code="batch-too-small",
        changes=("batch*8",),
        message="The batches are too small for the normalisation or the rate",
        advice="Use larger batches, accumulate gradients, or replace batch norms by group norms.",
    ),
    Suspicion(
        code="clipping-too-strong",
        changes=("house step",),
        message="Gradients are clipped to less than a tenth of their length in most steps",
        advice="Clip at about the 90th percentile of the gradients' norms, or not at all.",
        holds=clips_hard,
    ),
    Suspicion(
        code="step-does-not-fit",
        changes=("house step",),
        message="Something in the training step holds training up: clipping, scaling or the order of its calls",
        advice="Clear the gradients, take the loss, go backward, update; then bring back one thing at a time.",
    ),
    Suspicion(
        code="loss-unfit",
        changes=("house loss",),
        message="The loss does not lead to what is asked for",
        advice="Use the usual loss of this question.",
    ),
    Suspicion(
        code="batch-norms-stand-still",
        changes=("usual momentum",),
        message="The batch norms do not follow what they normalise",
        advice="Give the batch norms their usual momentum of 0.1.",
    ),
    Suspicion(
        code="schedule-unfit",
        changes=("full schedule",),
        message="The schedule ends, falls or rises at the wrong time",
        advice="Fit the schedule to the number of steps that are taken.",
    ),
    Suspicion(
        code="stopped-too-early",
        changes=("twice as long",),
        message="Training ended while the network was still getting better",
        advice="Train for twice as many epochs.",
    ),
)
# These make up for other faults as well: what is more particular goes before them when both help. Augmentation comes
# last, as it slows learning: where another rate or more time does as much, it is not at fault.
_LESS_TELLING = (
    "rate-too-high",
    "step-does-not-fit",
    "loss-unfit",
    "rate-too-low",
    "stopped-too-early",
    "augmentation-hurts",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one training: how well it answers the validation images, and how long it took."""

    change: str
    seed: int
    val: Scores
    seconds: float


@dataclass(kw_only=True)
class Forks:
    """Every training that was run for one case; each only once.

    deadline  of ``time.monotonic()``; a training that would probably end after it is not begun
    """

    case: Case
    deadline: float
    outcomes: dict[tuple[str, int], Outcome] = field(default_factory=dict)

    def run(self, change: Change | None, seed: int = 0) -> Outcome | None:
        """None where it does not fit the training, or the time does not suffice."""
        training = self.case.training
        if training is None or training.build is None or not training.epochs:
            return None
        name = "" if change is None else change.name
        if (name, seed) not in self.outcomes:
            longest = max((each.seconds for each in self.outcomes.values()), default=0.0)
            if time.monotonic() + longest > self.deadline:
                return None
            begun = time.monotonic()
            with untouched(training):
                fresh = training.build(seed)
                if change is not None:
                    if not change.fits(fresh):
                        return None
                    fresh = change.apply(fresh)
                learn(fresh, seed=seed)
                val = score_images(fresh, fresh.val)
            seconds = time.monotonic() - begun
            self.outcomes[name, seed] = Outcome(change=name, seed=seed, val=val, seconds=seconds)
        return self.outcomes[name, seed]

    def gain(self, change: Change, seed: int = 0) -> Gain | None:
        """How much better the training is with ``change``; None as ``run``."""
        base, changed = self.run(None, seed), self.run(change, seed)
        return None if base is None or changed is None else gain(base.val, changed.val)


def explained_by_forks(case: Case, deadline: float) -> Iterator[Finding]:
    """Where to look, then what helps there: one finding, or none where a usual training does no better."""
    forks = Forks(case=case, deadline=deadline)
    usual, reference = forks.gain(_USUAL), forks.gain(_REFERENCE)
    if not any(each is not None and _is_worth_a_look(each) for each in (usual, reference)):
        return
    best = _best(forks)
    if best is not None:
        yield best
        return
    if case.training is None or takes_longer(case.training):
        return
    for change, code, words in (
        (_USUAL, "unknown-cause", "with usual settings the same network"),
        (_REFERENCE, "network-unfit", "a usual network"),
    ):
        found = _confirmed(forks, change, code, 1)
        if found is not None and found[0] >= FLOORS["unnamed"]:
            yield _without_name(code, words, change, found)
            return


def _is_worth_a_look(found: Gain) -> bool:
    return found.relative >= FLOORS["accuracy"] and found.p < _TRIAGE_P


def _best(forks: Forks) -> Finding | None:
    """The suspicion whose change helps most, if it helps in every seed."""
    found: list[tuple[float, Suspicion, Change]] = []
    for suspicion in SUSPICIONS:
        change, most = _best_change(forks, suspicion)
        if change is not None and most is not None and most.relative >= FLOORS["accuracy"] and most.p < _TRIAGE_P:
            found.append((most.relative, suspicion, change))
    for _, suspicion, change in _most_telling_first(found):
        shown = _confirmed(forks, change, suspicion.code, len(suspicion.changes))
        if shown is not None:
            return _finding(suspicion, change, shown)
    return None


def _best_change(forks: Forks, suspicion: Suspicion) -> tuple[Change | None, Gain | None]:
    """Of the changes of one kind, in rising strength, for as long as more of it helps more."""
    best: tuple[Change | None, Gain | None] = (None, None)
    training = forks.case.training
    if training is None or training.build is None or not suspicion.holds(training.build(0)):
        return best
    for name in suspicion.changes:
        found = forks.gain(CHANGES[name])
        if found is None:
            break
        if best[1] is not None and found.mean <= best[1].mean:
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
        return (not is_close, _LESS_TELLING.index(code) + 1 if code in _LESS_TELLING else 0, -each[0])

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
        base.append(one.val.mean)
        changed.append(other.val.mean)
    if min(gains) < FLOORS["accuracy"] or min(changed) <= max(base):
        return None
    return min(gains), sum(base) / len(base), sum(changed) / len(changed), first.p


def _severity(least: float) -> Severity:
    return "serious" if least >= FLOORS["serious"] else "warning" if least >= FLOORS["warning"] else "info"


def _finding(suspicion: Suspicion, change: Change, shown: tuple[float, float, float, float]) -> Finding:
    least, base, changed, p = shown
    return Finding(
        code=suspicion.code,
        severity=_severity(least),
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
