"""Rare classes: what is done about them, as asked, or as measured before anything is trained.

What could be done is tried on the linear probe, by cross-validation within the training images, groups unparted. Only
what is clearly better than doing nothing is chosen. To a linear model, over- and undersampling are class weights (see
nn/linear_probe.py), so that these three are measured once, and weights are what is chosen: they cost no step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.core.seeds import keyed_seed
from snellen.nn.linear_probe import Balance, cross_validated
from snellen.nn.pixel_losses import TAKE_CLASS_WEIGHTS, parse_sum
from snellen.tasks.base import Task
from snellen.train.decision import Gain, as_scores, decide, evenly, gain, held_out_decisions, scores_and_truth

NEARLY_BALANCED_TOLD = "classes are nearly balanced"
NEARLY_BALANCED = 3.0  # times as many images of the largest class as of the smallest
BETA = 0.999  # of the effective number of images: about a thousand of a class say all that there is to say
_WELL = 0.98  # balanced accuracy from which there is nothing to be won
_WORTH_SMOTE = 0.95  # and from which its import, of three seconds, is not worth it
_WORTH_DOING = 0.01  # the least gain in balanced accuracy that is acted on
_MOST_IMAGES = 1000
_FEWEST_OF_A_CLASS = 20  # that are kept when there are more images than are needed
_MOST_WORK = 3e7  # multiplications of a step of the linear model: a second for each fit

Array = NDArray[Any]
Changes = Mapping[str, Any]  # entries of a plan

_CALLED = {"weights": "class weights", "thresholds": "moved thresholds", "smote": "SMOTE"}
_WAYS: Mapping[str, Callable[[Sequence[int]], Changes]] = {
    "none": lambda counts: {},
    "oversample": lambda counts: {"sampling": "oversample"},
    "undersample": lambda counts: {"sampling": "undersample"},
    "weights": lambda counts: {"class_weights": class_weights(counts)},
    "focal": lambda counts: {"loss": "focal"},
    "smote": lambda counts: {"smote": True},
    "thresholds": lambda counts: {"move_thresholds": True},
}


def class_weights(counts: Sequence[int], beta: float = BETA) -> tuple[float, ...]:
    """A factor on the loss of each class, their mean over all images being 1.

    counts  training images of each class; a class without any gets 1
    beta    1: inverse frequency, 'balanced'. Below 1: inverse of the effective number of images,
            (1 - beta^n) / (1 - beta), after which more images of a class say little more (Cui et al. 2019,
            arXiv:1901.05555)
    """
    n = np.asarray(counts, float)
    there = n > 0
    effective = n if beta == 1 else (1 - beta**n) / (1 - beta)
    weights = np.where(there, 1 / np.where(there, effective, 1.0), 1.0)
    weights[there] *= n.sum() / (weights[there] * n[there]).sum()
    return tuple(float(weight) for weight in weights)


def settle_imbalance(
    config: Config,
    plan: Plan,
    task: Task[Any],
    features: Tensor | None,
    records: Sequence[Record],
    targets: Sequence[Any],
) -> tuple[Plan, str]:
    """The plan with what is done about rare classes, and why, in a sentence ('' where there are no classes).

    features [n, d], records and targets are of the training images alone; without features nothing can be measured.
    Raises ConfigError when what was asked for does not fit the task.
    """
    if task.dense:
        return _of_places(config, plan, task, targets)
    known = scores_and_truth(task.arrays(task.majority(targets, len(targets)), targets))
    if known is None:
        if config.imbalance not in ("auto", "none"):
            raise ConfigError(
                f"imbalance = '{config.imbalance}' needs classes, and '{task.name}' has none: leave it out"
            )
        return plan, ""
    truth = known[1]
    counts = [int(n) for n in _counts(truth, len(plan.classes))]
    if config.imbalance != "auto":
        _check(config, task, truth)
        return replace(plan, **_WAYS[config.imbalance](counts)), _asked(config.imbalance, plan.classes, counts)
    groups = [record.unit for record in records]
    way, sentence = _measured(plan, truth, counts, features, groups)
    return replace(plan, **_WAYS[way](counts), reasons={**plan.reasons, "imbalance": sentence}), sentence


def _of_places(config: Config, plan: Plan, task: Task[Any], targets: Sequence[Any]) -> tuple[Plan, str]:
    """What is asked for and fits answers about places; nothing is measured beforehand, for there is no probe.

    Where a loss counts pixels and the headline counts classes, a short course hardly learns classes of few pixels:
    weights are then what is done (docs/measurements.md).
    """
    if config.imbalance == "none":
        return plan, ""
    sizes = task.class_sizes(targets)
    if config.imbalance == "auto":
        return (plan, "") if sizes is None else _weighed(plan, sizes)
    if config.imbalance == "weights":
        if sizes is None:
            raise ConfigError(f"imbalance = 'weights' does not fit the task '{task.name}': use 'oversample'")
        changes: Changes = {"class_weights": median_frequency(sizes)}
    elif config.imbalance == "focal" and "focal" not in task.loss_names:
        raise ConfigError(f"imbalance = 'focal' does not fit the task '{task.name}': use 'oversample'")
    else:
        changes = _WAYS[config.imbalance](())
    return replace(plan, **changes), f"Rare classes: {config.imbalance}, as asked."


def _weighed(plan: Plan, sizes: Sequence[float]) -> tuple[Plan, str]:
    """The plan with class weights, where some class is much smaller than another and the loss can weigh them."""
    there = [(size, name) for size, name in zip(sizes, plan.classes, strict=True) if size > 0]
    (few, rare), (many, common) = min(there), max(there)
    if many <= NEARLY_BALANCED * few or not parse_sum(plan.loss).keys() & TAKE_CLASS_WEIGHTS:
        return plan, ""
    sentence = (
        f"pixels of rare classes count more in the loss: there are {many / few:.0f} times as many of '{common}' as of "
        f"'{rare}', and all classes count alike in the result"
    )
    # The square root: in full, classes that are rare are then found where they are not (docs/measurements.md).
    weights = tuple(np.sqrt(median_frequency(sizes)).tolist())
    return replace(plan, class_weights=weights, reasons={**plan.reasons, "imbalance": sentence}), f"{sentence}."


def median_frequency(sizes: Sequence[float]) -> tuple[float, ...]:
    """A factor on the loss of each class: the median share of the classes over its own (Eigen & Fergus 2015,
    arXiv:1411.4734). A class that is not there gets 1."""
    shares = np.asarray(sizes, float)
    there = shares > 0
    return tuple(np.where(there, np.median(shares[there]) / np.where(there, shares, 1.0), 1.0).tolist())


def _check(config: Config, task: Task[Any], truth: Array) -> None:
    if config.imbalance == "smote" and truth.ndim > 1:
        raise ConfigError(
            "imbalance = 'smote' needs one class an image, and these images have any number of labels: use 'weights'"
        )
    if config.imbalance == "focal" and config.loss not in ("auto", "focal"):
        raise ConfigError(
            f"imbalance = 'focal' and loss = '{config.loss}' contradict each other: leave one of them out"
        )


def _asked(way: str, classes: Sequence[str], counts: Sequence[int]) -> str:
    reach = " (for the linear probe: the network itself sees real images alone)" if way == "smote" else ""
    return f"Rare classes ({_span(classes, counts)}): {way}, as asked{reach}."


def _span(classes: Sequence[str], counts: Sequence[int]) -> str:
    """``15 images of bees to 120 of ants``; classes without images are none to speak of."""
    there = [(n, name) for n, name in zip(counts, classes, strict=True) if n]
    (least, rare), (most, common) = min(there), max(there)
    return f"{least} images of {rare} to {most} of {common}"


def _measured(
    plan: Plan, truth: Array, counts: Sequence[int], features: Tensor | None, groups: Sequence[str]
) -> tuple[str, str]:
    """A key of _WAYS, and the reason."""
    span = _span(plan.classes, counts)
    if _ratio(counts, truth) < NEARLY_BALANCED:
        return "none", f"{NEARLY_BALANCED_TOLD}: {span}"
    trial = None if features is None else _trial(plan, truth, features, groups)
    logits = None if trial is None else trial.held_out(Balance())
    if trial is None or logits is None:
        return "none", f"too little could be measured on these images ({span}): name what is to be done"
    name = "balanced accuracy" if truth.ndim == 1 else "mean F1 of the labels"
    where = f"in cross-validation of the linear probe on {plan.probe}, {span}"
    before = float(evenly(trial.truth, decide(as_scores(logits, trial.truth), trial.truth))[0])
    if before >= _WELL:
        return "none", f"{name} is {100 * before:.0f} % with nothing done about rare classes, {where}"
    gains = trial.gains(logits)
    tried = ", ".join(f"{_CALLED[way]} {100 * found.after:.0f} %" for way, found in gains.items())
    shown = {way: found for way, found in gains.items() if found.is_shown and found.after >= before + _WORTH_DOING}
    if not shown:
        return "none", f"nothing is shown to raise the {name} of {100 * before:.0f} % ({tried}), {where}"
    best = max(shown, key=lambda way: shown[way].after)
    low, high = 100 * shown[best].low, 100 * shown[best].high
    points = f"from {100 * before:.0f} % to {100 * shown[best].after:.0f} %, by {low:.0f} to {high:.0f} points"
    return best, f"rare classes: with {_CALLED[best]} the {name} rises {points} ({tried}), {where}"


def _ratio(counts: Sequence[int], truth: Array) -> float:
    """How many times as many images the largest class has as the smallest; of a label, those without it as with it."""
    there = np.array([n for n in counts if n], float)
    if truth.ndim == 1:
        return float(there.max() / there.min())
    rarer = np.minimum(there, len(truth) - there).clip(min=1)
    return float(((len(truth) - rarer) / rarer).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Few enough of the training images to try everything on: features [n, d], truth [n] or [n, k], groups [n]."""

    features: Tensor
    truth: Array
    groups: Sequence[str]
    num_classes: int
    seed: int

    def held_out(self, balance: Balance) -> Array | None:
        """Logits [n, k] by probes that were fitted without the image's fold; None where all are of one group."""
        targets = torch.from_numpy(self.truth if self.truth.ndim == 1 else self.truth.astype(np.float32))
        found = cross_validated(self.features, targets, self.num_classes, self.groups, self.seed, balance)
        return None if bool(found.logits.isnan().any()) else found.logits.double().numpy()

    def gains(self, plain: Array) -> dict[str, Gain]:
        """What each way comes to beside ``plain``, the logits with nothing done. Those that cost less come first."""
        gains: dict[str, Gain] = {}
        weights = class_weights([int(n) for n in _counts(self.truth, self.num_classes)])
        self._try(gains, "weights", plain, self._decided(Balance(class_weights=weights)))
        moved = held_out_decisions(as_scores(plain, self.truth), self.truth, self.groups, self.seed)
        self._try(gains, "thresholds", plain, moved)
        if self.truth.ndim == 1 and max(found.after for found in gains.values()) < _WORTH_SMOTE:
            self._try(gains, "smote", plain, self._decided(Balance(smote=True)))
        return gains

    def _decided(self, balance: Balance) -> Array:
        logits = self.held_out(balance)
        assert logits is not None, "the plain probe was held out on the same folds"
        return decide(as_scores(logits, self.truth), self.truth)

    def _try(self, gains: dict[str, Gain], way: str, plain: Array, decided: Array) -> None:
        gains[way] = gain(self.truth, decide(as_scores(plain, self.truth), self.truth), decided, self.groups, self.seed)


def _trial(plan: Plan, truth: Array, features: Tensor, groups: Sequence[str]) -> _Trial | None:
    """The images that there is time for, or None where the classes are too many for it.

    Rare classes are kept whole up to a number, so that something can be said of them; they are then a little less rare
    than they are, which makes it harder to show that anything has to be done.
    """
    num_classes = len(plan.classes)
    most = min(_MOST_IMAGES, int(max((_MOST_WORK / num_classes) ** 0.5, _MOST_WORK / num_classes / features.shape[1])))
    if most < 4 * num_classes:
        return None
    ranks = np.array([keyed_seed("imbalance", plan.seed, group, i) for i, group in enumerate(groups)])
    kinds = truth if truth.ndim == 1 else truth.argmax(1)
    counts, share = np.bincount(kinds), most / len(truth)
    fewest = min(_FEWEST_OF_A_CLASS, most // (2 * num_classes))
    kept = np.zeros(len(truth), bool)
    for kind in np.flatnonzero(counts):
        of_kind = np.flatnonzero(kinds == kind)
        kept[of_kind[ranks[of_kind].argsort()[: max(fewest, round(share * len(of_kind)))]]] = True
    chosen = np.flatnonzero(kept)
    return _Trial(
        features=features[torch.from_numpy(chosen)],
        truth=truth[chosen],
        groups=[groups[i] for i in chosen.tolist()],
        num_classes=num_classes,
        seed=plan.seed,
    )


def _counts(truth: Array, num_classes: int) -> Array:
    """Images of each class or label, int [k]."""
    return np.bincount(truth, minlength=num_classes) if truth.ndim == 1 else truth.sum(0, dtype=np.int64)
