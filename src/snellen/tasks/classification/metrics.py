"""How good a classifier is, over the whole set at once, each number with the n it rests on and a 95 % interval.

A class without any image in the truth has no numbers of its own and is left out of every macro mean; ``absent`` names
these classes. What is undefined is left out, never reported as 0, 1 or NaN. ``snellen.metrics.confusion`` and
``ranking`` hold the conventions for the rest, ``snellen.metrics.estimates`` those for intervals.

The ``n`` of a number is the images it was computed over; of a class's numbers, the images that have the class (for
its precision, those that were given it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DataError, DivergenceError
from snellen.core.estimate import Estimate
from snellen.metrics.calibration import calibration_errors
from snellen.metrics.confusion import (
    Counts,
    accuracy,
    balanced_accuracy,
    class_counts,
    confusion_matrix,
    f1,
    label_counts,
    macro,
    pooled,
    precision,
    recall,
    weighted,
)
from snellen.metrics.estimates import Floats, Support, Weights, estimate, num_units, sample, units_of_mean
from snellen.metrics.interval import group_codes
from snellen.metrics.log_loss import binary_log_losses, log_losses
from snellen.metrics.ranking import Ranking, members, one_vs_rest, top_k_hits
from snellen.tasks.classification.target import Label, LabelSet

TargetT = TypeVar("TargetT", Label, LabelSet)
Codes = NDArray[np.intp]

_SUM_TOLERANCE = 0.02  # probabilities made in bfloat16 are off by up to 1 in 256

_MEANS_OVER_CLASSES = frozenset(
    "balanced_accuracy precision_macro recall_macro f1_macro roc_auc average_precision mean_average_precision".split()
)


class _Metrics(ABC, Generic[TargetT]):
    """Keeps every prediction, so that the numbers do not depend on how they were batched."""

    _shares: frozenset[str]  # overall metrics that are a share of the images
    _truth: list[NDArray[Any]]  # chunks of class ids [n], or of bool [n, num_labels]
    _predicted: list[NDArray[Any]]

    def __init__(self, classes: Sequence[str]) -> None:
        if not classes:
            raise ValueError("metrics need at least one class, got none")
        self.classes = tuple(classes)
        self._scores = [np.empty((0, len(self.classes)), dtype=np.float32)]

    @property
    def n(self) -> int:
        """How many images were seen."""
        return sum(len(chunk) for chunk in self._scores)

    @property
    def scores(self) -> NDArray[np.float32]:
        """Predicted probabilities, [n, num_classes], in the order of the updates."""
        return _merge(self._scores)

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes that no image in the truth has: they are in no macro mean."""
        truth = _merge(self._truth)
        return tuple(name for index, name in enumerate(self.classes) if not members(truth, index).any())

    def update(self, predicted: Sequence[TargetT], truth: Sequence[TargetT]) -> None:
        """Take in a batch. A prediction with ``scores=None`` counts as certain.

        ValueError if the batches differ in length or a target does not fit the classes; DivergenceError for NaN scores.
        """
        if len(predicted) != len(truth):
            raise ValueError(f"as many predictions as truths are needed, got {len(predicted)} and {len(truth)}")
        if truth:
            self._take(predicted, truth)

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str | None] | None = None, seed: int = 0
    ) -> dict[str, Estimate]:
        """Every metric by name, per-class ones as ``recall/<class>``.

        intervals  False: values only, fast enough for every epoch
        groups     the group of each image in the order of the updates (None: a group of its own): images of one
                   patient or scene are not independent, so whole groups are resampled
        seed       of the bootstrap; the same seed gives the same intervals
        """
        if self.n == 0:
            raise DataError("nothing to measure: no image was given; check that the split is not empty")
        if groups is not None and len(groups) != self.n:
            raise ValueError(f"groups must name a group for each of the {self.n} images, got {len(groups)}")
        codes = None if groups is None else group_codes(groups)
        per_image = self._per_image()
        values = {
            name: float(value[0])
            for name, value in {**self._decided(per_image, None), **self._ranked(None)}.items()
            if not np.isnan(value[0])
        }
        support = self._support(values, codes)
        if not intervals:
            return {name: Estimate(value=value, n=support[name].n) for name, value in values.items()}
        samples = self._samples(codes, seed)
        return {
            name: estimate(value, support[name], samples.get(name), grouped=codes is not None)
            for name, value in values.items()
        }

    def resampled(self, *, groups: Sequence[str | None] | None = None, seed: int = 0) -> dict[str, Floats]:
        """Every metric in each bootstrap resample, name -> [num_resamples]: also those that ``compute`` leaves out."""
        return self._samples(None if groups is None else group_codes(groups), seed, at_any_cost=True)

    def _samples(self, codes: Codes | None, seed: int, *, at_any_cost: bool = False) -> dict[str, Floats]:
        decided = partial(self._decided, self._per_image())
        size = self.scores.size
        return sample(decided, self._ranked, self.n, size, groups=codes, seed=seed, at_any_cost=at_any_cost)

    @abstractmethod
    def _take(self, predicted: Sequence[TargetT], truth: Sequence[TargetT]) -> None:
        """Check a batch that is not empty, and keep it."""

    @abstractmethod
    def _per_image(self) -> dict[str, Floats]:
        """The metrics that are a mean over images: name -> [n]."""

    @abstractmethod
    def _decided(self, per_image: Mapping[str, Floats], weights: Weights | None) -> dict[str, Floats]:
        """Metrics of decisions, name -> [b], under each row of weights [b, n] (None: one row of ones)."""

    @abstractmethod
    def _ranked(self, weights: Weights | None) -> dict[str, Floats]:
        """Metrics of scores, name -> [b], under each row of weights [b, n] (None: one row of ones)."""

    def _support(self, names: Iterable[str], codes: Codes | None) -> dict[str, Support]:
        support: dict[str, Support] = {}
        units: list[int] = []
        for index, name in enumerate(self.classes):
            has, given = members(_merge(self._truth), index), members(_merge(self._predicted), index)
            if not has.any():
                continue
            n, n_given = int(np.count_nonzero(has)), int(np.count_nonzero(given))
            units.append(num_units(has, codes))
            support[f"recall/{name}"] = Support(n, units[-1], codes is None)
            support[f"precision/{name}"] = Support(n_given, num_units(given, codes), codes is None)
            support[f"f1/{name}"] = support[f"average_precision/{name}"] = Support(n, units[-1], False)
            support[f"roc_auc/{name}"] = Support(n, min(units[-1], num_units(~has, codes)), False)
        total = num_units(np.ones(self.n, dtype=bool), codes)
        for name in names:
            if name not in support:
                of_mean = min(total, units_of_mean(units)) if name in _MEANS_OVER_CLASSES else total
                support[name] = Support(self.n, of_mean, name in self._shares and codes is None)
        return support


class ClassificationMetrics(_Metrics[Label]):
    """One class per image.

    accuracy, balanced_accuracy, top5_accuracy (with more than 5 classes), log_loss, brier_score (half the squared
    distance of probabilities and truth: 0 to 1, and with two classes the usual one), calibration_error (of the
    probability of the decided class); precision, recall and f1 as ``_macro``, ``_micro`` (equal to accuracy) and
    ``_weighted`` (by images per class); roc_auc: one class against the rest, mean over classes, with two classes that
    of the second; average_precision: mean over classes; and ``precision/``, ``recall/``, ``f1/``, ``roc_auc/`` and
    ``average_precision/<class>``.
    """

    _shares = frozenset(("accuracy", "top5_accuracy", "precision_micro", "recall_micro", "f1_micro", "recall_weighted"))

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self._truth = [np.empty(0, dtype=np.int64)]
        self._predicted = [np.empty(0, dtype=np.int64)]

    @property
    def truth(self) -> NDArray[np.int64]:
        """True class ids, [n]."""
        return _merge(self._truth)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Decided class ids, [n]."""
        return _merge(self._predicted)

    def confusion(self) -> NDArray[np.int64]:
        """Images of true class i (row) that were given class j (column), [num_classes, num_classes]."""
        return confusion_matrix(self.truth, self.predicted, len(self.classes))

    def _take(self, predicted: Sequence[Label], truth: Sequence[Label]) -> None:
        num_classes = len(self.classes)
        ids = np.array([[label.index for label in labels] for labels in (truth, predicted)], dtype=np.int64)
        if ids.min() < 0 or ids.max() >= num_classes:
            raise ValueError(f"class ids must be 0 to {num_classes - 1}, got {ids.min()} to {ids.max()}")
        scores = np.stack([_scores(label.scores, label.index, num_classes) for label in predicted])
        _check_probabilities(scores)
        sums = scores.sum(axis=1)
        if np.abs(sums - 1).max() > _SUM_TOLERANCE:
            raise ValueError(f"the scores of a prediction must sum to 1, got {sums[np.abs(sums - 1).argmax()]:.4g}")
        self._truth.append(ids[0])
        self._predicted.append(ids[1])
        self._scores.append(scores)

    def _support(self, names: Iterable[str], codes: Codes | None) -> dict[str, Support]:
        support = super()._support(names, codes)
        if len(self.classes) == 2 and "roc_auc" in support:
            support["roc_auc"] = support[f"roc_auc/{self.classes[1]}"]._replace(n=self.n)
        return support

    def _per_image(self) -> dict[str, Floats]:
        per_image = {
            "log_loss": log_losses(self.scores, self.truth),
            "brier_score": _distances(self.scores, self.truth),
        }
        if len(self.classes) > 5:
            per_image["top5_accuracy"] = top_k_hits(self.scores, self.truth, 5)
        return per_image

    def _decided(self, per_image: Mapping[str, Floats], weights: Weights | None) -> dict[str, Floats]:
        counts = class_counts(self.truth, self.predicted, len(self.classes), weights)
        return {
            "accuracy": accuracy(counts),
            "balanced_accuracy": balanced_accuracy(counts),
            **_means(per_image, weights),
            **_rates(counts, self.classes),
            **{f"{name}_weighted": weighted(rate(counts), counts) for name, rate in _RATES.items()},
        }

    def _ranked(self, weights: Weights | None) -> dict[str, Floats]:
        ranking = one_vs_rest(self.scores, self.truth, weights)
        confidence = np.take_along_axis(self.scores, self.predicted[:, None], axis=1)
        return {
            "calibration_error": calibration_errors(confidence, (self.predicted == self.truth)[:, None], weights),
            "roc_auc": ranking.roc_auc[:, 1] if len(self.classes) == 2 else macro(ranking.roc_auc),
            "average_precision": macro(ranking.average_precision),
            **_areas(ranking, self.classes),
        }


class MultiLabelMetrics(_Metrics[LabelSet]):
    """Any number of labels per image.

    mean_average_precision; precision, recall and f1 as ``_macro`` (mean over labels) and ``_micro`` (all decisions
    pooled); subset_accuracy: images with every label right; label_accuracy: label decisions that are right; log_loss,
    brier_score and roc_auc: mean over labels; calibration_error: over the probabilities of all labels together; and
    ``average_precision/``, ``precision/``, ``recall/``, ``f1/`` and ``roc_auc/<label>``. Labels that no image has are
    in no mean over labels but log_loss, brier_score and label_accuracy.
    """

    _shares = frozenset(("subset_accuracy",))

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self._truth = [np.empty((0, len(self.classes)), dtype=bool)]
        self._predicted = [np.empty((0, len(self.classes)), dtype=bool)]

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Which labels each image has, bool [n, num_labels]."""
        return _merge(self._truth)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Which labels each image was given, bool [n, num_labels]."""
        return _merge(self._predicted)

    def confusion(self) -> NDArray[np.int64]:
        """Per label, images without (row 0) and with it (row 1) that were not given it, or were: [num_labels, 2, 2]."""
        hits, truth, predicted = (part[0] for part in label_counts(self.truth, self.predicted))
        matrix = np.array([[self.n - truth - predicted + hits, predicted - hits], [truth - hits, hits]])
        return matrix.transpose(2, 0, 1).astype(np.int64)

    def _take(self, predicted: Sequence[LabelSet], truth: Sequence[LabelSet]) -> None:
        num_labels = len(self.classes)
        for labels in (*truth, *predicted):
            if labels.present.shape != (num_labels,):
                raise ValueError(f"present must be of shape ({num_labels},), got {labels.present.shape}")
        scores = np.stack([_scores(labels.scores, labels.present, num_labels) for labels in predicted])
        _check_probabilities(scores)
        self._truth.append(np.stack([labels.present for labels in truth]).astype(bool))
        self._predicted.append(np.stack([labels.present for labels in predicted]).astype(bool))
        self._scores.append(scores)

    def _per_image(self) -> dict[str, Floats]:
        right = self.truth == self.predicted
        return {
            "subset_accuracy": right.all(axis=1).astype(np.float64),
            "label_accuracy": right.mean(axis=1),
            "log_loss": binary_log_losses(self.scores, self.truth),
            "brier_score": np.square(self.scores - self.truth, dtype=np.float64).mean(axis=1),
        }

    def _decided(self, per_image: Mapping[str, Floats], weights: Weights | None) -> dict[str, Floats]:
        counts = label_counts(self.truth, self.predicted, weights)
        return {**_means(per_image, weights), **_rates(counts, self.classes)}

    def _ranked(self, weights: Weights | None) -> dict[str, Floats]:
        ranking = one_vs_rest(self.scores, self.truth, weights)
        return {
            "calibration_error": calibration_errors(self.scores, self.truth, weights),
            "mean_average_precision": macro(ranking.average_precision),
            "roc_auc": macro(ranking.roc_auc),
            **_areas(ranking, self.classes),
        }


_RATES = {"precision": precision, "recall": recall, "f1": f1}


def _rates(counts: Counts, classes: Sequence[str]) -> dict[str, Floats]:
    rates: dict[str, Floats] = {}
    for name, rate in _RATES.items():
        per_class = rate(counts)
        rates[f"{name}_macro"] = macro(per_class)
        rates[f"{name}_micro"] = rate(pooled(counts))[:, 0]
        rates |= _by_class(name, per_class, classes)
    return rates


def _areas(ranking: Ranking, classes: Sequence[str]) -> dict[str, Floats]:
    return {
        **_by_class("roc_auc", ranking.roc_auc, classes),
        **_by_class("average_precision", ranking.average_precision, classes),
    }


def _by_class(name: str, values: Floats, classes: Sequence[str]) -> dict[str, Floats]:
    return {f"{name}/{label}": values[:, index] for index, label in enumerate(classes)}


def _means(per_image: Mapping[str, Floats], weights: Weights | None) -> dict[str, Floats]:
    if weights is None:
        return {name: values.mean(keepdims=True) for name, values in per_image.items()}
    summed = weights.astype(np.float64) @ np.stack(list(per_image.values()), axis=1)
    return dict(zip(per_image, summed.T / weights.sum(axis=1), strict=True))


def _distances(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> Floats:
    """Half the squared distance of each image's probabilities and its truth, 0..1, [n]: |p|^2 - 2 p_true + 1."""
    given = np.take_along_axis(scores, truth[:, None], axis=1)[:, 0].astype(np.float64)
    squares = np.einsum("ij,ij->i", scores, scores, dtype=np.float64)
    return np.asarray(np.maximum(0.5 * (squares - 2 * given + 1), 0.0))


def _scores(
    scores: NDArray[np.float32] | None, certain: int | NDArray[np.bool_], num_classes: int
) -> NDArray[np.float32]:
    if scores is None:
        scores = np.zeros(num_classes, dtype=np.float32)
        scores[certain] = 1
    if scores.shape != (num_classes,):
        raise ValueError(f"scores must be of shape ({num_classes},), got {scores.shape}")
    return scores.astype(np.float32)


def _check_probabilities(scores: NDArray[np.float32]) -> None:
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise DivergenceError(
            f"the scores of prediction {row} of a batch of {len(scores)} are not finite; "
            "the model's weights or the image hold NaN or infinity"
        )
    if scores.min() < -_SUM_TOLERANCE or scores.max() > 1 + _SUM_TOLERANCE:
        raise ValueError(f"scores must be probabilities in 0..1, got {scores.min():.4g} to {scores.max():.4g}")


def _merge(chunks: list[NDArray[Any]]) -> NDArray[Any]:
    """Join the chunks in place; each is let go once copied, so that large scores are not held twice."""
    if len(chunks) > 1:
        merged = np.empty((sum(map(len, chunks)), *chunks[0].shape[1:]), dtype=chunks[0].dtype)
        end = len(merged)
        while chunks:
            chunk = chunks.pop()
            merged[end - len(chunk) : end] = chunk
            end -= len(chunk)
        chunks.append(merged)
    return chunks[0]
