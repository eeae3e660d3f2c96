"""Parts of the images that the model fails on: found on one half, confirmed on the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.doctor.answers.independent import first_half, independent
from snellen.doctor.case import Answers, Case
from snellen.doctor.changes import MORE_OF
from snellen.metrics.chance import Excess, stratified_excess
from snellen.metrics.interval import wilson
from snellen.metrics.slices import (
    FEWEST,
    MORE,
    TIMES,
    Candidate,
    by_facts,
    by_features,
    confidence_strata,
    expected_errors,
    most_telling,
)

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

_FEWEST_IMAGES = 100
_FEWEST_ERRORS = 8
_MOST = 4  # candidates of each kind and direction that are put to the test
_LOOKS = 4 * _MOST  # two kinds, two directions
_MOST_IMAGES = 20_000  # features of more are not searched, as similarities to all of them would not fit in memory
_UNSURE = 0.25  # of the images, the least sure answers: where classes meet, and no network is good
_FEWEST_TO_SHOW = 5  # training images of a part: fewer would be learnt by heart
_MOST_TIMES, _LEAST_TIMES = 4.0, 1.5  # how much oftener they are seen
_MOST_SHARE = 0.5  # of what is seen
_TOLD = 3
_MAX_IMAGES = 24


@dataclass(frozen=True, eq=False)
class FailingPart:
    """A candidate that held: its rule in words, who belongs to it [n], which images it was found on [n], which judged
    it [n], and what these said."""

    words: str
    members: Mask
    learned: Mask
    judged: Mask
    excess: Excess


def failing_slice(case: Case) -> Iterator[Finding]:
    """Parts of the validation images (else of the test images) that the model fails on."""
    told = case.answers.get("val", case.answers.get("test"))
    if told is not None:
        for part in failing_parts(told, case.classes, case.seed):
            yield _finding(case, told, part)


def failing_parts(told: Answers, classes: Sequence[str] = (), seed: int = 0) -> list[FailingPart]:
    """Parts with twice the errors that are to be expected and 10 points more, on images that had no say in finding
    them; the surest first, at most three, none of which is half within another.

    Of parts by facts, as many errors are expected as other images of the same classes have; of regions in the
    features, as many as other images that are answered with the same confidence, and the quarter of the images that
    are answered with the least is left out: a model is less sure, and oftener wrong, wherever classes meet, and that is
    no slice. Both tests are exact. Each half searches once and judges once.
    """
    if len(told) < _FEWEST_IMAGES or int((~told.correct).sum()) < _FEWEST_ERRORS:
        return []
    half = first_half(told, seed, "failing-slice")
    single = np.zeros(len(told), np.bool_)
    single[independent(told, seed)] = True
    parts = [part for learned in (half, ~half) for part in _confirmed(told, classes, learned, ~learned & single)]
    kept: list[FailingPart] = []
    for part in sorted(parts, key=lambda part: part.excess.p):
        if len(kept) < _TOLD and all(_apart(part, other) for other in kept):
            kept.append(part)
    return kept


def _confirmed(told: Answers, classes: Sequence[str], learned: Mask, judged: Mask) -> Iterator[FailingPart]:
    wrong = ~told.correct
    limit = alpha("failing-slice", _LOOKS)
    for candidates, strata in _searches(told, classes, learned):
        expected = expected_errors(wrong, strata, learned)
        for candidate in most_telling(candidates, wrong, expected, learned, _MOST):
            inside = candidate.members[judged]
            excess = stratified_excess(inside, wrong[judged], strata[judged])
            if excess.n < FEWEST or excess.p > limit:
                continue
            if excess.events >= TIMES * excess.expected and excess.events >= excess.expected + MORE * excess.n:
                yield FailingPart(candidate.words, candidate.members, learned, judged, excess)


def _searches(told: Answers, classes: Sequence[str], learned: Mask) -> Iterator[tuple[list[Candidate], Codes]]:
    """Candidates, and the strata within which they are judged."""
    if told.facts:
        yield by_facts(told.facts, told.truth, classes, learned), told.truth
    if told.features is not None and len(told) <= _MOST_IMAGES:
        confidence = told.probabilities.max(axis=1)
        strata = confidence_strata(confidence)
        sure = confidence >= np.quantile(confidence, _UNSURE)
        residual = ~told.correct - expected_errors(~told.correct, strata, learned)
        found = by_features(np.asarray(told.features, np.float64), told.probabilities, residual, learned & sure)
        yield [Candidate(each.words, each.members & sure) for each in found], strata


def _apart(part: FailingPart, other: FailingPart) -> bool:
    both = np.count_nonzero(part.members & other.members)
    return bool(both < 0.5 * min(np.count_nonzero(part.members), np.count_nonzero(other.members)))


def _finding(case: Case, told: Answers, part: FailingPart) -> Finding:
    excess = part.excess
    rest = part.judged & ~part.members
    inside = wilson(excess.events, excess.n)
    outside = wilson(int(np.count_nonzero(rest & ~told.correct)), int(np.count_nonzero(rest)))
    return Finding(
        code="failing-slice",
        severity="warning",
        message=f"The model fails on {part.words} {_description(case, told, part.members & part.judged)}: of "
        f"{excess.n} that had no say in finding them, {excess.events} are answered wrongly, where "
        f"{excess.expected:.1f} are to be expected.",
        evidence={
            "rule": part.words,
            "p": excess.p,
            "images": excess.n,
            "errors": excess.events,
            "expected_errors": excess.expected,
            "error_rate_interval": inside,
            "error_rate_interval_outside": outside,
            "images_in_all": int(np.count_nonzero(part.members)),
        },
        images=_worst(told, part.members),
        advice="Look at these images for what they share, collect more of their kind for training, and check their "
        "labels.",
        certainty="confirmed",
        treatment=_more_of(case, told, part),
    )


def _more_of(case: Case, told: Answers, part: FailingPart) -> dict[str, Any]:
    """More of the training images that the rule holds for; nothing where there are none, or they are many already."""
    if case.training is None or case.training.plain is None:
        return {}
    rows = np.flatnonzero(_in_training(case, told, part))
    times = min(_MOST_TIMES, _MOST_SHARE * len(case.answers["train"]) / len(rows)) if len(rows) else 0.0
    if len(rows) < _FEWEST_TO_SHOW or times < _LEAST_TIMES:
        return {}
    return {"change": MORE_OF, "rows": rows.tolist(), "times": round(times, 2)}


def _in_training(case: Case, told: Answers, part: FailingPart) -> Mask:
    """Which training images a rule about facts holds for; none for another rule, or where the facts are not known."""
    train = case.answers.get("train")
    if train is None or not told.facts or set(train.facts) != set(told.facts):
        return np.zeros(0, np.bool_)
    facts = {name: [*values, *train.facts[name]] for name, values in told.facts.items()}
    learned = np.concatenate([part.learned, np.zeros(len(train), np.bool_)])
    for other in by_facts(facts, np.concatenate([told.truth, train.truth]), case.classes, learned):
        if other.words == part.words and np.array_equal(other.members[: len(told)], part.members):
            return other.members[len(told) :]
    return np.zeros(0, np.bool_)


def _description(case: Case, told: Answers, inside: Mask) -> str:
    """What most images of the part are and what they are taken for."""
    wrong = inside & ~told.correct
    truth = int(np.bincount(told.truth[wrong]).argmax())
    answer = int(np.bincount(told.predicted[wrong]).argmax())
    pair = np.mean((told.truth[wrong] == truth) & (told.predicted[wrong] == answer))
    return f"({pair:.0%} of the errors are {case.named(truth)} taken for {case.named(answer)})"


def _worst(told: Answers, members: Mask) -> tuple[str, ...]:
    """The images of the part, those first to whose true class the model gives the least."""
    rows = np.flatnonzero(members)
    given = told.probabilities[rows, told.truth[rows]]
    return tuple(told.ids[row] for row in rows[np.argsort(given, kind="stable")][:_MAX_IMAGES]) if len(told.ids) else ()
