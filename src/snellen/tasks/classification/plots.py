"""The pictures of how a classifier answers: who is taken for whom, what each threshold would give, and is it sure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.draw.chart import INK, SERIES, WIDTH, Chart, figure, finish
from snellen.draw.charts import Line, bars, curves, heatmap
from snellen.metrics.calibration import calibration_errors, error_by_chance, plain_calibration_error, reliability
from snellen.metrics.confusion import confusion_matrix
from snellen.metrics.decisions import class_decisions, label_decisions
from snellen.metrics.ranking import precision_recall_curve, roc_curve

MAX_CURVES = 6  # more lines in one picture cannot be told apart
_GRID = np.linspace(0.0, 1.0, 201)
_FEWEST_ANSWERS = 10  # of which something can be said about confidence

Array = NDArray[Any]


def charts(
    truth: Array, scores: Array, classes: Sequence[str], multi_label: bool, decided: Array | None = None
) -> list[Chart]:
    """Confusion matrix (positives and misses of each class when multi-label), ROC, precision-recall, reliability.

    truth    int [n], class indices 0 to k-1; or 0/1 [n, k] when multi-label
    scores   float [n, k], probabilities; rows with a NaN are left out
    decided  what the model said, like ``truth``; None: the most probable class, or labels from 0.5 on
    Classes without a positive or without a negative image have no curves. Nothing to show gives an empty list.
    Raises ValueError for shapes or class indices that do not fit together.
    """
    num_truths = scores.shape if multi_label else scores.shape[:1]
    if scores.ndim != 2 or scores.shape[1] != len(classes) or truth.shape != num_truths:
        raise ValueError(
            f"{len(classes)} classes, scores {list(scores.shape)} and truth {list(truth.shape)} do not fit"
        )
    if not multi_label and truth.size and not 0 <= truth.min() <= truth.max() < len(classes):
        raise ValueError(f"{len(classes)} classes, but class indices from {truth.min()} to {truth.max()}")
    if decided is None:
        decided = label_decisions(scores) if multi_label else class_decisions(scores)
    usable = np.isfinite(scores).all(axis=1)
    if not usable.all():
        truth, scores, decided = truth[usable], scores[usable], decided[usable]
    if not len(truth):
        return []
    first = _answers(truth, decided, classes) if multi_label else _confusion(truth, decided, classes)
    if multi_label:
        sure = _reliability(scores.ravel(), truth.ravel().astype(bool), "a label's probability", "the label was there")
    else:
        sure = _reliability(scores[np.arange(len(truth)), decided], truth == decided, "confidence", "it was right")
    return [first, *_threshold_charts(truth, scores, classes, multi_label), *sure]


def _confusion(truth: Array, decided: Array, names: Sequence[str]) -> Chart:
    counts = confusion_matrix(truth, decided, len(names))
    right = int(np.trace(counts))
    caption = (
        f"Rows are the true classes, columns what the model said; {right:,} of {len(truth):,} images lie on the "
        "diagonal, which is right. The darker, the larger the share of its row."
    )
    return heatmap("Confusion matrix", caption, counts, names)


def _answers(truth: Array, decided: Array, names: Sequence[str]) -> Chart:
    """Multi-label answers have no single confusion: each label is right or wrong for itself."""
    said, there = decided.astype(bool), truth.astype(bool)
    parts = {"found": said & there, "missed": ~said & there, "wrongly said": said & ~there}
    counts = {part: dict(zip(names, cells.sum(axis=0).tolist(), strict=True)) for part, cells in parts.items()}
    caption = f"For each label, over {len(truth):,} images: how often the model said it, and was right."
    return bars("Right and wrong answers", caption, counts, x_label="images")


def _reliability(confidence: Array, right: Array, x_name: str, y_name: str) -> list[Chart]:
    """How often answers of like confidence were right, and where a calibrated model would lie."""
    if len(confidence) < _FEWEST_ANSWERS:
        return []
    shown = reliability(confidence, right)
    plain, chance = plain_calibration_error(confidence, right), error_by_chance(confidence)
    left = float(calibration_errors(confidence[:, None], right[:, None])[0])
    caption = (
        f"Answers of like {x_name}, and how often {y_name}. Bars: where 95 of 100 perfectly calibrated models would "
        f"lie. The points are {100 * plain:.1f} % off the diagonal (root mean square); by chance alone a calibrated "
        f"model would show {100 * chance:.1f} % on {len(right):,} answers. Without chance, {100 * left:.1f} % are left."
    )
    with figure(WIDTH, 330) as (canvas, axes):
        start = np.floor(10 * min(part.min() for part in (shown.confidence, shown.right, shown.low))) / 10
        axes.plot((start, 1), (start, 1), color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.6)
        axes.vlines(shown.confidence, shown.low, shown.high, color=INK, linewidth=7, alpha=0.18)
        axes.plot(shown.confidence, shown.right, color=SERIES[0], linewidth=1.8, marker="o", markersize=4)
        axes.set(xlabel=x_name, ylabel=f"how often {y_name}", xlim=(start - 0.01, 1.01), ylim=(start - 0.01, 1.02))
        axes.grid()
        rows = [
            [f"{mean:.3f}", f"{share:.3f}", f"{n:,}", f"{low:.3f} to {high:.3f}"]
            for mean, share, n, low, high in zip(*shown, strict=True)
        ]
        header = (x_name, f"how often {y_name}", "answers", "if calibrated")
        return [finish(canvas, title="Reliability", caption=caption, header=header, rows=rows)]


@dataclass(frozen=True, slots=True)
class _Curves:
    """One class: false positive rate, true positive rate (recall) and precision as its threshold falls."""

    name: str
    false_positive: Array
    recall: Array
    precision: Array

    @property
    def roc_area(self) -> float:
        return float(np.trapezoid(self.recall, self.false_positive))

    @property
    def average_precision(self) -> float:
        """Precision weighted by the gain in recall: no interpolation, which would be too kind (Davis 2006)."""
        return float(np.sum(np.diff(self.recall) * self.precision[1:]))


def _curves_of_classes(truth: Array, scores: Array, names: Sequence[str], multi_label: bool) -> Iterator[_Curves]:
    for first in range(0, len(names), 16):  # 16 float32 are a cache line: reading one column costs as much as all
        columns = np.ascontiguousarray(scores[:, first : first + 16].T)
        for i, score in enumerate(columns, start=first):
            positive = truth[:, i].astype(bool) if multi_label else truth == i
            if 0 < positive.sum() < len(positive):
                yield _curves_of(names[i], positive, score)


def _curves_of(name: str, positive: Array, score: Array) -> _Curves:
    num_negative = len(positive) - int(positive.sum())
    # Once all positives are found only the corner (1, 1) is left: a good model spares most of the sorting.
    reached = score >= score[positive].min()
    score, positive = score[reached], positive[reached]
    roc, pr = roc_curve(score, positive), precision_recall_curve(score, positive)
    false_positive = np.nan_to_num(roc.false_positive_rate) * (np.count_nonzero(~positive) / num_negative)
    return _Curves(
        name,
        np.append(false_positive, 1.0),
        np.append(roc.true_positive_rate, 1.0),
        np.append(pr.precision, pr.precision[-1]),
    )


def _threshold_charts(truth: Array, scores: Array, names: Sequence[str], multi_label: bool) -> list[Chart]:
    """ROC and precision-recall. Many classes: their mean, and the five worst."""
    areas: list[tuple[str, float, float]] = []
    kept: dict[str, list[_Curves]] = {"roc": [], "pr": []}
    mean = np.zeros((2, len(_GRID)))
    for each in _curves_of_classes(truth, scores, names, multi_label):
        areas.append((each.name, each.roc_area, each.average_precision))
        mean += np.interp(_GRID, each.false_positive, each.recall), _precision_at(each)
        for kind, worst in kept.items():
            worst.append(each)
            if len(names) > MAX_CURVES:
                worst.sort(key=lambda one: one.roc_area if kind == "roc" else one.average_precision)
                del worst[MAX_CURVES - 1 :]
    if not areas:
        return []
    if len(names) == 2 and not multi_label:  # one threshold decides between two: the second curve mirrors the first
        areas, kept = areas[-1:], {kind: worst[-1:] for kind, worst in kept.items()}
    roc, pr = (_with_mean(kept[kind], kind, mean[i] / len(areas), areas) for i, kind in enumerate(kept))
    which = "" if len(names) <= MAX_CURVES else f" The mean of {len(areas):,} classes, and the five worst."
    return [_roc_chart(roc, areas, which), _pr_chart(pr, areas, which)]


def _precision_at(each: _Curves) -> Array:
    """At each recall of the grid, the precision of the first threshold that reaches it."""
    first = np.searchsorted(each.recall, _GRID, side="left").clip(max=len(each.recall) - 1)
    return np.asarray(each.precision[first])


def _with_mean(worst: list[_Curves], kind: str, mean: Array, areas: list[tuple[str, float, float]]) -> list[Line]:
    column = 1 if kind == "roc" else 2
    area = dict(zip((name for name, *_ in areas), (row[column] for row in areas), strict=True))
    found = [
        Line(
            each.name,
            each.false_positive if kind == "roc" else each.recall,
            each.recall if kind == "roc" else each.precision,
            f"{area[each.name]:.3f}",
        )
        for each in worst
    ]
    if len(areas) > len(worst):
        found.insert(0, Line("mean", _GRID, mean, f"{np.mean([row[column] for row in areas]):.3f}"))
    return found


def _roc_chart(series: list[Line], areas: list[tuple[str, float, float]], which: str) -> Chart:
    caption = (
        "The share of a class that is found, against the share of the others taken for it, as the threshold falls. "
        f"In brackets the area below the curve: 1 is perfect, 0.5 is chance (dotted).{which}"
    )
    return curves(
        "ROC",
        caption,
        series,
        x_label="false positive rate",
        y_label="true positive rate",
        rows=_worst_rows([(name, area) for name, area, _ in areas]),
        chance=True,
    )


def _pr_chart(series: list[Line], areas: list[tuple[str, float, float]], which: str) -> Chart:
    caption = (
        "How many of the images called a class are of it (precision), against how many of the class are found "
        f"(recall). In brackets the average precision: 1 is perfect.{which}"
    )
    return curves(
        "Precision and recall",
        caption,
        series,
        x_label="recall",
        y_label="precision",
        rows=_worst_rows([(name, area) for name, _, area in areas]),
    )


def _worst_rows(areas: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """The 100 worst; what is left would only lengthen the page."""
    return [(name, f"{area:.3f}") for name, area in sorted(areas, key=lambda row: row[1])[:100]]
