"""Runs, or arms of runs that differ only in their seed, held against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snellen.compare.judged import Judged, Match, match, read_judged
from snellen.compare.pairing import Comparison, Pairing
from snellen.core.errors import ConfigError, DataError
from snellen.core.estimate import Estimate, is_share, spoken, told
from snellen.core.run import RunFolder
from snellen.metrics.interval import percentile_interval
from snellen.metrics.paired import (
    Difference,
    Floats,
    corrected_t_interval,
    images_for,
    images_for_mcnemar,
    mcnemar,
    paired_bootstrap,
    seeds_interval,
)
from snellen.tasks.base import Task

_IMMATERIAL = frozenset(("seed", "device", "threads", "workers", "cache", "checkpoint_every"))


@dataclass(frozen=True, slots=True)
class _Scored:
    """The headline of one run on the shared images.

    samples  in each bootstrap resample, the same for every run
    wrong    places of the wrong answers; None where no answer is simply right or wrong
    """

    estimate: Estimate
    samples: Floats
    wrong: frozenset[int] | None


def compare_runs(runs: Sequence[RunFolder], *, seed: int = 0) -> Comparison:
    """Each of the runs against the first, which is the baseline; ``seed`` is of the bootstrap.

    Raises ConfigError for fewer than two runs, DataError when they answer different questions or share no image that
    both were judged on, RunError for a run without answers.
    """
    if len(runs) < 2:
        raise ConfigError("give two runs or more: the first is the baseline")
    judged = read_judged(runs)
    pairings = tuple(_compare_two(judged[0], other, seed) for other in judged[1:])
    notes: tuple[str, ...] = ()
    if len(pairings) > 1:
        notes = ("Each comparison stands by itself: of twenty with nothing to find, one shows something by chance.",)
    return Comparison(task=judged[0].task.name, metric=judged[0].task.headline, pairings=pairings, notes=notes)


def compare_answers(
    task: Task[Any],
    answers: Mapping[str, Sequence[Any]],
    truth: Sequence[Any],
    *,
    side: str,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Pairing:
    """Two ways to answer for the same images, by name, the baseline first; ``side`` as in ``Pairing``.

    Raises DataError where the headline of the task is undefined on them.
    """
    scored = [_scored(task, predicted, truth, groups, seed) for predicted in answers.values()]
    return _paired(task, list(answers), scored, Match(side, [range(len(truth))] * 2, groups, ()))


def compare_arms(first: Sequence[RunFolder], second: Sequence[RunFolder], *, seed: int = 0) -> Comparison:
    """Two arms, each of runs that differ only in their seed; the first is the baseline.

    Where all runs were judged on the same images (they share a ``split_seed``, or their sides were given), the interval
    is over seeds and images (``metrics.paired.seeds_interval``). Where each seed divided the data anew, runs of the
    same seed are paired on the images that they share, and the interval is over these pairs
    (``metrics.paired.corrected_t_interval``).

    Raises ConfigError for an arm of one run, or of runs that differ in more; otherwise as ``compare_runs`` does.
    """
    for arm in (first, second):
        _check_arm(arm)
    judged = read_judged([*first, *second])
    arms = judged[: len(first)], judged[len(first) :]
    shared = match(judged)
    if shared is not None and shared.n >= 0.9 * max(len(run.sides[shared.side]) for run in judged):
        pairing = _over_seeds_and_images(*arms, shared, seed)
    else:
        pairing = _over_divisions(*arms, seed)
    return Comparison(task=judged[0].task.name, metric=judged[0].task.headline, pairings=(pairing,))


def _check_arm(arm: Sequence[RunFolder]) -> None:
    if len(arm) < 2:
        raise ConfigError(
            "an arm needs two runs or more that differ only in their seed: name them, or leave out --with"
        )
    settings = [_material(run) for run in arm]
    if len({run.config.seed_of_sides for run in arm}) == 1:  # written out, or that of the first run by default
        settings = [{**each, "split_seed": None} for each in settings]
    for run, other in zip(arm[1:], settings[1:], strict=True):
        odd = sorted(name for name in other if other[name] != settings[0][name])
        if odd:
            raise ConfigError(
                f"{arm[0].path} and {run.path} differ in {', '.join(odd)}: the runs of an arm differ only in their seed"
            )
    if len({run.config.seed for run in arm}) < len(arm):
        raise ConfigError(f"two runs of an arm have the same seed: give each its own, as {arm[0].path} has")


def _material(run: RunFolder) -> dict[str, Any]:
    return {name: value for name, value in run.config.model_dump().items() if name not in _IMMATERIAL}


# ---- one run against another


def _compare_two(first: Judged, second: Judged, seed: int) -> Pairing:
    shared = match([first, second])
    if shared is None:
        raise _nothing_shared(first, second)
    scored = [_score(run, shared, i, seed) for i, run in enumerate((first, second))]
    return _paired(first.task, (first.name, second.name), scored, shared)


def _paired(task: Task[Any], names: Sequence[str], scored: Sequence[_Scored], shared: Match) -> Pairing:
    ours, theirs = scored
    value = theirs.estimate.value - ours.estimate.value
    units = len(set(shared.groups)) if shared.groups is not None else shared.n
    low, high = paired_bootstrap(value, ours.samples, theirs.samples, units)
    error = float(np.nanstd(theirs.samples - ours.samples, ddof=1))
    only_first = only_second = p = None
    needed = images_for(value, error, shared.n)
    if ours.wrong is not None and theirs.wrong is not None:
        only_first, only_second = len(theirs.wrong - ours.wrong), len(ours.wrong - theirs.wrong)
        if shared.groups is None:  # images of one group are no independent coin tosses
            p = mcnemar(only_first, only_second)
            needed = images_for_mcnemar(only_first, only_second, shared.n)
    method = "paired bootstrap" if shared.groups is None else "paired bootstrap over groups"
    return Pairing(
        metric=task.headline,
        baseline=names[0],
        challenger=names[1],
        side=shared.side,
        n=shared.n,
        first=ours.estimate,
        second=theirs.estimate,
        difference=_difference(value, (low, high), p=p, needed=needed, method=method),
        only_first=only_first,
        only_second=only_second,
        notes=shared.notes,
    )


def _difference(
    value: float, span: tuple[float, float], *, method: str, p: float | None = None, needed: int | None = None
) -> Difference:
    # An interval without width claims certainty: nothing can be said of the spread.
    low, high = span if np.isfinite(span).all() and span[0] < span[1] else (None, None)
    shown = Difference(value=value, low=low, high=high, p=p, method=method)
    # How many images would show it is asked only where these did not.
    return (
        shown
        if shown.is_shown
        else Difference(value=value, low=low, high=high, p=p, images_needed=needed, method=method)
    )


def _nothing_shared(first: Judged, second: Judged) -> DataError:
    return DataError(
        f"{first.name} and {second.name} share no image that both were judged on: compare runs on the same data, "
        "divided alike (the same --split and --split-seed, or --seed without it, or sides given by you)"
    )


def _score(run: Judged, shared: Match, number: int, seed: int) -> _Scored:
    """``number`` is that of the run in ``shared``."""
    predicted, truth = run.answers(shared.side)
    places = shared.places[number]
    return _scored(run.task, [predicted[i] for i in places], [truth[i] for i in places], shared.groups, seed)


def _scored(
    task: Task[Any], predicted: Sequence[Any], truth: Sequence[Any], groups: Sequence[str] | None, seed: int
) -> _Scored:
    metrics = task.metrics()
    metrics.update(predicted, truth)
    estimate = metrics.compute(groups=groups, seed=seed).get(task.headline)
    if estimate is None:
        raise DataError(
            f"the {spoken(task.headline)} is undefined on the {len(truth)} images that the runs share: "
            "there are too few to judge by"
        )
    samples = metrics.resampled(groups=groups, seed=seed)[task.headline]
    return _Scored(estimate, np.asarray(samples, float), _wrong(task, predicted, truth, estimate))


def _wrong(
    task: Task[Any], predicted: Sequence[Any], truth: Sequence[Any], estimate: Estimate
) -> frozenset[int] | None:
    """Places of the wrong answers, where the headline is the share of those that are right."""
    if not is_share(task.headline):
        return None
    wrong = frozenset(mistake["index"] for mistake in task.mistakes(predicted, truth, len(truth)))
    return wrong if abs(1 - len(wrong) / len(truth) - estimate.value) < 1e-9 else None


# ---- one arm against another


def _over_seeds_and_images(first: Sequence[Judged], second: Sequence[Judged], shared: Match, seed: int) -> Pairing:
    scored = [_score(run, shared, i, seed) for i, run in enumerate((*first, *second))]
    arms = scored[: len(first)], scored[len(first) :]
    values = [[each.estimate.value for each in arm] for arm in arms]
    samples = [np.mean([each.samples for each in arm], axis=0) for arm in arms]
    image_variance = float(np.nanvar(samples[1] - samples[0], ddof=1))
    units = len(set(shared.groups)) if shared.groups is not None else shared.n
    span = seeds_interval(values[0], values[1], image_variance, units)
    value = float(np.mean(values[1]) - np.mean(values[0]))
    means = [
        Estimate(value=float(np.mean(each)), n=shared.n, low=low, high=high, method="bootstrap, mean of the runs")
        for each, (low, high) in zip(values, map(percentile_interval, samples), strict=True)
    ]
    return Pairing(
        metric=first[0].task.headline,
        baseline=_arm_name(first),
        challenger=_arm_name(second),
        side=shared.side,
        n=shared.n,
        first=means[0],
        second=means[1],
        difference=_difference(
            value,
            span,
            needed=_needed_beside_seeds(value, values, image_variance, shared.n),
            method="t over seeds and images",
        ),
        notes=(
            *shared.notes,
            _spread(first[0].task.headline, values),
            "Assumed: the runs of an arm differ by chance alone.",
        ),
    )


def _needed_beside_seeds(value: float, values: Sequence[Sequence[float]], image_variance: float, n: int) -> int | None:
    """Images for 80 % power with as many seeds as there are; None where the seeds alone vary too much for it."""
    whole = images_for(value, 1.0, 1)  # images of variance 1 that would do: what may be left of the variance
    if whole is None:
        return None
    left = 1 / whole - sum(float(np.var(arm, ddof=1)) / len(arm) for arm in values)
    return None if left <= 0 else int(np.ceil(n * image_variance / left))


def _over_divisions(first: Sequence[Judged], second: Sequence[Judged], seed: int) -> Pairing:
    """Runs of one seed in pairs: each pair has test images of its own."""
    by_seed = {run.folder.config.seed: run for run in second}
    pairs = [(run, by_seed[run.folder.config.seed]) for run in first if run.folder.config.seed in by_seed]
    found = [_compare_two(*pair, seed) for pair in pairs]
    if len(found) < 2 or len({pairing.side for pairing in found}) > 1:
        raise DataError(
            f"the runs were judged on different images, and {len(found)} seeds are in both arms: train both arms with "
            "the same two seeds or more, or all with one --split-seed, or give the sides yourself"
        )
    judged_share = float(
        np.mean([p.n / max(1, len(run.manifest.ids("train"))) for p, (run, _) in zip(found, pairs, strict=True)])
    )
    differences = [pairing.difference.value for pairing in found]
    estimates = []
    for values in ([pairing.first.value for pairing in found], [pairing.second.value for pairing in found]):
        low, high = corrected_t_interval(values, judged_share)
        method = f"corrected resampled t over {len(found)} divisions"
        n = sum(pairing.n for pairing in found)
        estimates.append(Estimate(value=float(np.mean(values)), n=n, low=low, high=high, method=method))
    span = corrected_t_interval(differences, judged_share)
    notes = [note for pairing in found for note in pairing.notes if note.startswith("Warning")]
    return Pairing(
        metric=first[0].task.headline,
        baseline=_arm_name([run for run, _ in pairs]),
        challenger=_arm_name([run for _, run in pairs]),
        side=found[0].side,
        n=estimates[0].n,
        first=estimates[0],
        second=estimates[1],
        difference=_difference(float(np.mean(differences)), span, method="corrected resampled t over divisions"),
        notes=(
            *dict.fromkeys(notes),
            f"Each of the {len(found)} seeds divided the data anew: runs of one seed are compared with each other, and "
            "the interval allows for the training images that the divisions share.",
        ),
    )


def _arm_name(arm: Sequence[Judged]) -> str:
    names = [run.name for run in arm]
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _spread(metric: str, values: Sequence[Sequence[float]]) -> str:
    spread = " and ".join(told(metric, float(np.std(arm, ddof=1))) for arm in values)
    return f"Over the seeds of each arm the standard deviation is {spread}."
