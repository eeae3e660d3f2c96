"""After training, on the validation images alone: how sure the model may be, and how rare classes are decided.

Nothing here ever sees a test image: the functions get scores and truth of the validation side, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from snellen.core.checkpoint import Checkpoint
from snellen.core.plan import Plan
from snellen.core.seeds import keyed_seed
from snellen.evaluate import score
from snellen.metrics.confusion import balanced_accuracy, class_counts, f1, label_counts, macro
from snellen.metrics.decisions import THRESHOLD, class_decisions, label_decisions
from snellen.metrics.interval import group_codes, resamples
from snellen.metrics.log_loss import binary_log_losses, log_losses
from snellen.metrics.paired import paired_bootstrap
from snellen.tasks.base import Task, create_task

_HEAD = ("head.weight", "head.bias")
_TEMPERATURES = (0.05, 20.0)
_NO_CHANGE = 0.005  # of the logarithm of a temperature: less than any image can tell
_EXPONENTS = np.linspace(0.0, 1.5, 31)  # 0: as usual; 1: best for balanced accuracy if the probabilities are right
_PRIOR_IMAGES = 5  # with so many images of a label, its threshold lies halfway between the fitted one and 0.5
_FOLDS = 5
_TINY = 1e-30  # a probability whose logarithm is still a number in float32

Array = NDArray[Any]
Floats = NDArray[np.float64]
Fit = Callable[[Array, Array], tuple[float, ...]]


class Gain(NamedTuple):
    """Balanced accuracy (of labels: the mean of their F1) before and after, and the 95 % interval of the difference."""

    before: float
    after: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        return self.low > 0

    def told(self, name: str) -> str:
        span = f"{100 * self.low:+.0f} to {100 * self.high:+.0f} points"
        return f"{name} {100 * self.before:.0f} % before, {100 * self.after:.0f} % after (95 % interval {span})"


def settle_decision(
    plan: Plan,
    task: Task[Any],
    checkpoint: Checkpoint,
    predictions: Sequence[Any],
    truth: Sequence[Any],
    *,
    groups: Sequence[str] | None = None,
) -> tuple[Checkpoint, list[str]]:
    """The checkpoint as the plan wants it decided, and what was found, in sentences.

    predictions, truth, groups  of the validation images, by the checkpoint's weights
    A temperature is divided out of the head, so that whatever runs the network needs to know nothing of it; moved
    thresholds are written beside the weights. The checkpoint itself comes back where the plan asks for neither.
    """
    if plan.calibrate != "temperature" and not plan.move_thresholds:
        return checkpoint, []
    known = scores_and_truth(task.arrays(predictions, truth))
    if known is None:
        return checkpoint, ["Confidence and decisions stay as they are: this task gives no probabilities of classes."]
    logits, true = as_logits(*known), known[1]
    weights, decision, told = checkpoint.weights, checkpoint.decision, []
    if plan.calibrate == "temperature":
        temperature = fit_temperature(logits, true)
        weights, logits = _cooled(weights, temperature), logits / temperature
        told.append(_told_temperature(temperature, logits, true))
    if plan.move_thresholds:
        decision, sentence = _moved(as_scores(logits, true), true, groups, plan)
        told.append(sentence)
    metrics = _scored(create_task(plan.task, plan.classes, decision), logits, truth, groups, plan.seed)
    return replace(checkpoint, weights=weights, decision=decision, metrics=metrics), told


def fit_temperature(logits: Floats, truth: Array) -> float:
    """The number to divide ``logits`` [n, k] by so that their log loss is least (Guo et al. 2017, arXiv:1706.04599).

    truth  class ids [n], or 0/1 [n, k] for independent labels
    One more image, of which nothing is known, keeps it finite where every answer is right. 1 where no temperature
    lowers the loss of the images themselves.
    """
    from scipy.optimize import minimize_scalar

    blank = 1 / (len(logits) + 1)

    def objective(log_temperature: float) -> float:
        scaled = logits * np.exp(-log_temperature)
        return (1 - blank) * _log_loss(scaled, truth) + blank * _unknown_loss(scaled, truth)

    found = minimize_scalar(objective, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    temperature = float(np.exp(found.x))
    if abs(found.x) < _NO_CHANGE or _log_loss(logits / temperature, truth) >= _log_loss(logits, truth):
        return 1.0
    return temperature


def fit_thresholds(scores: Array, truth: Array) -> tuple[float, ...]:
    """A decision (tasks/base.py) for ``scores`` [n, k] of probabilities, from class ids [n] or labels 0/1 [n, k].

    Classes: factors frequency**-t, with the t that gives the highest balanced accuracy. It is a single number, so that
    few images do for many classes (logit adjustment: Menon et al. 2021, arXiv:2007.07314). Labels: the threshold of
    the highest F1, drawn towards 0.5 the fewer images have the label (Lipton et al. 2014, arXiv:1402.1892).
    """
    if truth.ndim == 1:
        return _class_factors(scores, truth)
    return tuple(_label_threshold(scores[:, i], truth[:, i].astype(bool)) for i in range(scores.shape[1]))


def held_out_decisions(scores: Array, truth: Array, groups: Sequence[str] | None, seed: int) -> Array:
    """Decisions on each image with thresholds fitted without its fold: class ids [n], or bool [n, k]."""
    decided = decide(scores, truth)
    folds = _folds(truth, groups, seed)
    for fold in np.unique(folds) if folds.max(initial=0) else ():
        held = folds == fold
        decided[held] = decide(scores[held], truth[held], fit_thresholds(scores[~held], truth[~held]))
    return decided


def decide(scores: Array, truth: Array, decision: Sequence[float] = ()) -> Array:
    """Class ids [n] where ``truth`` has one an image, labels bool [n, k] where it has any number."""
    return class_decisions(scores, decision) if truth.ndim == 1 else label_decisions(scores, decision)


def gain(truth: Array, before: Array, after: Array, groups: Sequence[str] | None, seed: int) -> Gain:
    """Two ways to decide the same images, compared on the same resamples of them, or of their groups."""
    codes = None if groups is None else group_codes(groups)
    drawn: list[tuple[Floats, Floats]] = [
        (evenly(truth, before, weights), evenly(truth, after, weights))
        for weights in resamples(len(truth), groups=codes, seed=seed)
    ]
    was, now = float(evenly(truth, before)[0]), float(evenly(truth, after)[0])
    if np.array_equal(before, after):
        return Gain(was, now, 0.0, 0.0)
    first, second = (np.concatenate(each) for each in zip(*drawn, strict=True))
    units = len(truth) if codes is None else int(codes.max()) + 1
    return Gain(was, now, *paired_bootstrap(now - was, first, second, units))


def evenly(truth: Array, decided: Array, weights: Array | None = None) -> Floats:
    """Balanced accuracy of classes [n], mean F1 of labels [n, k], under each row of weights [b, n]: [b]."""
    if truth.ndim == 1:
        return balanced_accuracy(class_counts(truth, decided, int(max(truth.max(), decided.max())) + 1, weights))
    return macro(f1(label_counts(truth.astype(bool), decided, weights)))


def as_logits(scores: Array, truth: Array) -> Floats:
    """Raw outputs with these probabilities, [n, k]; of classes, up to a constant that changes none."""
    chances = np.clip(scores.astype(np.float64), _TINY, 1.0)
    if truth.ndim == 1:
        return np.log(chances)
    top = 1 - np.finfo(np.float32).eps / 2
    chances = np.minimum(chances, top)
    return np.log(chances) - np.log1p(-chances)


def as_scores(logits: Floats, truth: Array) -> Floats:
    """The probabilities [n, k] of raw outputs."""
    if truth.ndim == 1:
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def scores_and_truth(arrays: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """None for a task whose predictions are not a probability for each class or label."""
    scores, truth = arrays.get("scores"), arrays["truth"]
    if scores is None or scores.ndim != 2 or truth.shape not in (scores.shape[:1], scores.shape):
        return None
    return scores, truth


def _cooled(weights: Mapping[str, Tensor], temperature: float) -> dict[str, Tensor]:
    return {name: tensor / temperature if name in _HEAD else tensor for name, tensor in weights.items()}


def _log_loss(logits: Floats, truth: Array) -> float:
    scores = as_scores(logits, truth)
    losses = log_losses(scores, truth) if truth.ndim == 1 else binary_log_losses(scores, truth.astype(bool))
    return float(losses.mean())


def _unknown_loss(logits: Floats, truth: Array) -> float:
    """The mean loss if each class were as likely, or each label present and absent."""
    if truth.ndim == 1:
        normal = logits.max(1) + np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1))
        return float((normal - logits.mean(1)).mean())
    return float((np.logaddexp(0, logits) - logits / 2).mean())


def _told_temperature(temperature: float, logits: Floats, truth: Array) -> str:
    n = len(logits)
    if temperature == 1:
        return f"Confidence stays as it is: no temperature lowers the log loss of the {n} validation images."
    sure = "too sure of itself" if temperature > 1 else "not sure enough"
    before, after = _log_loss(logits * temperature, truth), _log_loss(logits, truth)
    return (
        f"Confidence: the model was {sure}. A temperature of {temperature:.2f}, fitted on {n} validation images, takes "
        f"their log loss from {before:.3f} to {after:.3f}; no decision changes by it."
    )


def _moved(scores: Floats, truth: Array, groups: Sequence[str] | None, plan: Plan) -> tuple[tuple[float, ...], str]:
    """Thresholds fitted on all validation images, if cross-validation within them shows that such a fit helps.

    Where the training images have shown that already (the plan then gives its reason), it is enough that they agree.
    """
    found = gain(truth, decide(scores, truth), held_out_decisions(scores, truth, groups, plan.seed), groups, plan.seed)
    measured = found.told("balanced accuracy" if truth.ndim == 1 else "mean F1 of the labels")
    how = f"in cross-validation within {len(truth)} validation images: {measured}"
    if not (found.is_shown or ("imbalance" in plan.reasons and found.after > found.before)):
        return (), f"Decisions stay as usual: moved thresholds are not shown to help {how}."
    return fit_thresholds(scores, truth), f"Decisions: thresholds are moved for the sake of what is rare, {how}."


def _scored(
    task: Task[Any], logits: Floats, truth: Sequence[Any], groups: Sequence[str] | None, seed: int
) -> dict[str, Any]:
    import torch

    decoded = task.decode(torch.from_numpy(logits.astype(np.float32)))
    numbers = score(task, decoded, truth, groups=groups, seed=seed)
    return {name: estimate for name, estimate in numbers.items() if np.isfinite(estimate.value)}


def _class_factors(scores: Array, truth: Array) -> tuple[float, ...]:
    counts = np.bincount(truth, minlength=scores.shape[1]) + 1.0  # a class without images is rare, not impossible
    rarity = counts.max() / counts
    reached = np.array([evenly(truth, class_decisions(scores, rarity**exponent))[0] for exponent in _EXPONENTS])
    best = np.flatnonzero(reached >= reached.max() - 1e-9)
    # The middle of what is equally good is the safest; unless nothing is to be gained at all.
    exponent = 0.0 if best[0] == 0 else float(_EXPONENTS[best[len(best) // 2]])
    return tuple(float(factor) for factor in rarity**exponent)


def _label_threshold(scores: Array, present: NDArray[np.bool_]) -> float:
    num = int(present.sum())
    if num == 0 or num == len(present):
        return THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), np.cumsum(present[order])
    below = np.append(ranked[1:], 0.0)
    cuts = np.flatnonzero(ranked > below)  # equal scores are decided alike
    reached = 2 * hits[cuts] / (cuts + 1 + num)
    best = cuts[reached.argmax()]
    fitted = np.clip((ranked[best] + below[best]) / 2, 1e-4, 1 - 1e-4)
    odds = np.log(fitted / (1 - fitted)) * num / (num + _PRIOR_IMAGES)
    return float(1 / (1 + np.exp(-odds)))


def _folds(truth: Array, groups: Sequence[str] | None, seed: int) -> NDArray[np.intp]:
    """A fold for each image, [n]: groups stay together, and those that begin with one class are dealt out evenly."""
    names = [str(i) for i in range(len(truth))] if groups is None else groups
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    kinds = truth if truth.ndim == 1 else truth.argmax(axis=1)
    dealt = sorted(first, key=lambda name: (int(kinds[first[name]]), keyed_seed("decision", seed, name)))
    fold = {name: i % _FOLDS for i, name in enumerate(dealt)}
    return np.array([fold[name] for name in names])
