"""How well a model answers each image, and whether one model answers better than another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from snellen.doctor.case import Answers, Batch, Floats, Training
from snellen.doctor.modes import in_evaluation
from snellen.metrics.interval import group_codes
from snellen.metrics.paired import mcnemar

VOID = 255  # in class maps: neither learnt nor judged
_FEWEST = 20  # images: fewer show nothing at the levels that are asked for here


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Of each image, [n]; where it is not known what the outputs answer, of each batch. Higher is better.

    values  right or wrong for one class, the share of right labels or pixels otherwise, minus the squared error of
            numbers, or minus the loss of the batch
    units   images that share one are not independent; empty: they all are
    """

    values: Floats
    units: Sequence[str] = ()

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self.values) else float("nan")

    @property
    def are_right_or_wrong(self) -> bool:
        return bool(np.isin(self.values, (0.0, 1.0)).all())


def score_images(training: Training, batches: Iterable[Batch], most: int | None = None) -> Scores:
    """The model in evaluation mode over ``batches``, ``most`` images at most; its modes are put back."""
    parts: list[Floats] = []
    seen = 0
    with in_evaluation(training.model), torch.no_grad():
        for batch in batches:
            parts.append(_of_batch(training, batch))
            seen += len(batch[0])
            if most is not None and seen >= most:
                break
    return Scores(values=np.concatenate(parts) if parts else np.zeros(0))


def answers_of(training: Training, batches: Iterable[Batch]) -> Answers | None:
    """What the model says of ``batches``, in evaluation mode; None unless each image has one class: outputs are one
    tensor [n, k] a batch, and targets [n] of 0..k-1."""
    if training.question != "classification":
        return None
    parts, truth = [], []
    with in_evaluation(training.model), torch.no_grad():
        for inputs, targets in batches:
            outputs = training.model(inputs)
            classes = _classes(outputs, targets)
            if classes is None:
                return None
            outputs = outputs.detach().float().cpu()
            parts.append(torch.nan_to_num(outputs, nan=-1e9, posinf=1e9, neginf=-1e9).double().softmax(1))
            truth.append(classes)
    if not parts:
        return None
    return Answers(probabilities=torch.cat(parts).numpy(), truth=torch.cat(truth).numpy())


def _classes(outputs: Any, targets: Any) -> Tensor | None:
    """The class of each image, [n] on the CPU; None where outputs and targets are not of that kind."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return None
    try:
        classes = torch.as_tensor(targets).cpu().long()
    except (TypeError, ValueError, RuntimeError):  # a list of dictionaries, as detectors are given
        return None
    if classes.shape != (len(outputs),) or bool(((classes < 0) | (classes >= outputs.shape[1])).any()):
        return None
    return classes


def _of_batch(training: Training, batch: Batch) -> Floats:
    inputs, targets = batch
    outputs = None if training.question == "other" else training.model(inputs)
    if not isinstance(outputs, Tensor):
        return np.array([-float(training.loss_of(batch))])  # once, not for each image: they are not independent
    targets = torch.as_tensor(targets, device=outputs.device)
    values: Floats = np.nan_to_num(
        _right(training.question, outputs.detach().float(), targets).cpu().double().numpy(), nan=-1e9, neginf=-1e9
    )
    return values


def _right(question: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """[n]."""
    if question == "classification":
        finite = torch.isfinite(outputs).all(1)
        return (outputs.argmax(1) == targets) & finite
    if question == "multilabel":
        return ((outputs > 0) == (targets > 0.5)).float().flatten(1).mean(1)
    if question == "segmentation":
        known = targets != VOID
        right = ((outputs.argmax(1) == targets) & known).flatten(1).sum(1)
        return right / known.flatten(1).sum(1).clamp(min=1)
    return -(outputs.flatten(1) - targets.float().reshape(len(outputs), -1)).square().mean(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How much better the second model is on the same images: the mean difference, and the one-sided p-value of none.

    relative  the gain in units that floors are told in: points of accuracy as they are; of other scores the share of
              what the first model was short of a perfect one
    """

    mean: float
    p: float
    relative: float


def gain(first: Scores, second: Scores) -> Gain:
    """Exact by McNemar where images are right or wrong, else by Wilcoxon's signed ranks. p is 1 for few images.

    Where several images are of one unit, the test is of the units' means.
    """
    difference = second.values - first.values
    mean = float(difference.mean()) if len(difference) else 0.0
    relative = mean if first.are_right_or_wrong or mean == 0 else _of_shortfall(first, mean)
    is_grouped = len(set(first.units)) < len(first.units) == len(difference)
    if is_grouped:
        codes = group_codes(first.units)
        difference = np.bincount(codes, difference) / np.bincount(codes)
    if len(difference) < _FEWEST or not difference.any():
        return Gain(mean=mean, p=1.0, relative=relative)
    if first.are_right_or_wrong and second.are_right_or_wrong and not is_grouped:
        worse, better = int((difference < 0).sum()), int((difference > 0).sum())
        p = mcnemar(worse, better) / 2 if better > worse else 1.0
    else:
        p = float(stats.wilcoxon(difference, alternative="greater", method="approx").pvalue)
    return Gain(mean=mean, p=p, relative=relative)


def _of_shortfall(first: Scores, mean: float) -> float:
    best = 1.0 if first.values.max() > 0 else 0.0
    shortfall = best - first.mean
    return mean / shortfall if shortfall > 0 else 0.0


def last_linear(model: nn.Module) -> nn.Linear | None:
    """The last linear layer of a model, which reads its features; None where there is none."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None
