"""The pictures of how objects are found: precision and recall, false alarms, each class and size, and what goes wrong.

What needs a threshold on the scores says which one it was drawn with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from snellen.draw.chart import Chart
from snellen.draw.charts import Line, curves, heatmap, lines
from snellen.draw.dots import dots
from snellen.draw.free_response import free_response
from snellen.draw.twin_bars import Twin, twin_bars
from snellen.metrics.coco_ap import AREAS, RECALLS, CocoResult, Matches, match_images, result_of
from snellen.metrics.detection_errors import KINDS, detection_errors
from snellen.metrics.froc import FALSE_POSITIVES, froc_curve, froc_recall
from snellen.metrics.matching import Detections, ImageResult, match, same_class
from snellen.metrics.operating_point import (
    at_every_threshold,
    best_threshold,
    false_alarms_in_empty_images,
    false_positives_in_absent_classes,
)

MAX_CURVES = 6  # more lines in one picture cannot be told apart
BACKGROUND = "background"

_IOU = 0.5
_GRID = np.linspace(0.0, 1.0, 101)
_MEANINGS = {
    "location": "the right class, but the overlap is between 0.1 and 0.5",
    "class": "it fits an object of another class",
    "duplicate": "the object was already found by a surer answer",
    "background": "there is no object",
    "both": "neither the place nor the class is right",
    "missed": "an object for which nothing was found, not even nearby or by another name",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything that the charts are drawn from.

    thresholds  of each class: from which score on something counts as found, where this has to be decided
    chosen      how the thresholds came about, as the end of a sentence
    """

    images: Sequence[ImageResult]
    classes: Sequence[str]
    matches: Matches
    result: CocoResult
    thresholds: Sequence[float]
    chosen: str

    @property
    def objects(self) -> NDArray[np.int64]:
        """True objects of each class, [C]."""
        return np.asarray(self.matches.true[0].sum(axis=0))

    @property
    def known(self) -> list[int]:
        """Classes with true objects, by their AP at IoU 0.5, the worst first."""
        ap50 = self.result.class_ap50
        return sorted(np.flatnonzero(self.objects).tolist(), key=lambda label: (ap50[label], label))

    def shown(self) -> list[ImageResult]:
        """The images with only what reaches its threshold."""
        return [ImageResult(_above(image.found, self.thresholds), image.true) for image in self.images]

    @property
    def shown_matches(self) -> Matches:
        """The same of ``matches``: a lower score never takes an object from a higher one."""
        kept = self.matches.score >= np.asarray(self.thresholds)[self.matches.label]
        columns = (field.name for field in fields(Matches) if field.name != "true")
        return replace(self.matches, **{name: getattr(self.matches, name)[..., kept] for name in columns})


def charts(
    images: Sequence[ImageResult], classes: Sequence[str], thresholds: Sequence[float] | None = None
) -> list[Chart]:
    """Precision over recall, the effect of the threshold, FROC, AP by class and by size, errors, and confusions.

    thresholds  of each class, from which score on something counts as found; None: for all classes that which is best
                on these images (F1 at IoU 0.5)
    Nothing to show, which is no true object in any image, gives an empty list.
    """
    if not images:
        return []
    matches = match_images(images, len(classes))
    if not matches.true[0].any():
        return []
    chosen = "chosen on validation images"
    if thresholds is None:
        best = best_threshold(matches)
        thresholds, chosen = (best,) * len(classes), f"{best:.2f}, which has the highest F1 on these images"
    seen = _Seen(images, classes, matches, result_of(matches), thresholds, chosen)
    return [
        _precision_over_recall(seen),
        _over_thresholds(seen),
        _false_alarms(seen),
        _by_class(seen),
        *_by_size(seen),
        _errors(seen),
        _confusion(seen),
    ]


def _precision_over_recall(seen: _Seen) -> Chart:
    precision, ap50 = seen.result.precision[0, :, :, 0], seen.result.class_ap50
    worst = seen.known[: MAX_CURVES - 1] if len(seen.known) > 1 else seen.known
    series = [Line(seen.classes[i], RECALLS, precision[:, i], f"{ap50[i]:.3f}") for i in worst]
    mean = float(np.nanmean(ap50))
    which = ""
    if len(seen.known) > 1:
        series.insert(0, Line("mean", RECALLS, precision[:, seen.known].mean(axis=1), f"{mean:.3f}"))
        which = " The mean of the classes, and each of them."
    if len(seen.known) > len(worst):
        which = f" The mean of {len(seen.known):,} classes, and the {len(worst)} worst."
    return curves(
        "Precision and recall",
        "How many of the answers are right (precision, the best that is still to be had), against how many of the "
        f"objects are found (recall). An answer is right from an overlap (IoU) of {_IOU} on. In brackets the area, "
        f"the average precision: 1 is perfect.{which}",
        series,
        x_label="recall",
        y_label="precision",
        rows=[(seen.classes[i], f"{ap50[i]:.3f}") for i in seen.known[:100]],
    )


def _over_thresholds(seen: _Seen) -> Chart:
    curve = at_every_threshold(seen.matches)
    # Scores fall: how many of them are let through by each place of the grid.
    count = np.searchsorted(-curve.scores, -_GRID, side="right")
    row = np.maximum(count - 1, 0)
    none = count == 0
    at = {
        "precision": np.where(none, np.nan, curve.precision[row] if len(curve.scores) else np.nan),
        "recall": np.where(none, 0.0, curve.recall[row] if len(curve.scores) else 0.0),
        "F1": np.where(none, 0.0, curve.f1[row] if len(curve.scores) else 0.0),
    }
    best = best_threshold(seen.matches)
    return lines(
        "What the threshold does",
        "Answers with a score below the threshold are not shown: a higher one makes those that are left more often "
        f"right (precision) and finds fewer objects (recall). All classes together, at an overlap (IoU) of {_IOU}.",
        [Line(name, _GRID, values) for name, values in at.items()],
        x_label="threshold of the score",
        y_label="precision, recall, F1",
        mark=(best, f"best F1 at {best:.2f}"),
    )


def _false_alarms(seen: _Seen) -> Chart:
    matches = seen.matches
    labels = sorted(seen.known, key=lambda label: float(np.mean(froc_recall(matches, label=label))))
    overall = froc_recall(matches)[0]
    series = [_free_response_line("all classes", matches, None, float(overall.mean()))]
    if len(labels) > 1:
        series += [
            _free_response_line(seen.classes[i], matches, i, float(froc_recall(matches, label=i).mean()))
            for i in labels[: MAX_CURVES - 1]
        ]
    which = f" Of the classes, the {MAX_CURVES - 1} worst." if len(labels) >= MAX_CURVES else ""
    return free_response(
        "Objects found and false alarms (FROC)",
        "How many of the objects are found, against how many false alarms an image brings, as the threshold falls. In "
        f"brackets the mean recall at the marked places.{which}{_empty_images(seen)}",
        series,
        overall.tolist(),
        rates=FALSE_POSITIVES,
    )


def _free_response_line(name: str, matches: Matches, label: int | None, score: float) -> Line:
    curve = froc_curve(matches, label)
    return Line(name, curve.false_positives, curve.recall, f"{score:.3f}")


def _empty_images(seen: _Seen) -> str:
    """What was found where there is nothing, as a sentence; nothing where every image shows an object."""
    empty, alarmed = false_alarms_in_empty_images(seen.shown_matches, -np.inf)
    if not empty.any():
        return ""
    return (
        f" {_images_show(int(empty.sum()))} no object; in {int(alarmed.sum()):,} of them "
        f"something was found, with the threshold {seen.chosen}."
    )


def _images_show(count: int) -> str:
    return "One image shows" if count == 1 else f"{count:,} images show"


def _by_class(seen: _Seen) -> Chart:
    named = {i: f"{seen.classes[i]} ({seen.objects[i]:,})" for i in seen.known}
    return dots(
        "Average precision by class",
        "The worst class first; in brackets how many objects it has. AP is the mean over overlaps (IoU) of 0.5 to "
        f"0.95, for which what is found must fit closely.{_absent_classes(seen)}",
        {
            "AP": {name: float(seen.result.class_ap[i]) for i, name in named.items()},
            "AP at IoU 0.5": {name: float(seen.result.class_ap50[i]) for i, name in named.items()},
        },
        x_label="average precision",
        about="class",
    )


def _absent_classes(seen: _Seen) -> str:
    absent = [i for i, count in enumerate(seen.objects) if not count]
    if not absent:
        return ""
    alarms = false_positives_in_absent_classes(seen.shown_matches, -np.inf)
    told = [f"{seen.classes[i]} ({alarms[i]:,})" for i in sorted(absent, key=lambda i: -alarms[i])]
    more = f" and {len(told) - 5:,} more" if len(told) > 5 else ""
    return (
        f" Without an object here, and so without an AP: {', '.join(told[:5])}{more}; in brackets how often they were "
        f"wrongly found, with the threshold {seen.chosen}."
    )


def _by_size(seen: _Seen) -> list[Chart]:
    counts = dict(zip(AREAS, seen.matches.true.sum(axis=(1, 2)).tolist(), strict=True))
    numbers = seen.result.numbers()
    sizes = [size for size in AREAS if size != "all" and counts[size]]
    if len(sizes) < 2:  # of one size is what the whole says already
        return []
    named = {size: f"{size} ({counts[size]:,})" for size in sizes}
    return [
        dots(
            "By the size of the objects",
            "Small objects have an area below 32 x 32 pixels of the image, large ones above 96 x 96; in brackets how "
            "many there are. Recall is the most that is found with a hundred answers of a class in an image.",
            {
                "AP": {name: numbers[f"map_{size}"] for size, name in named.items()},
                "recall": {name: numbers[f"mar_{size}"] for size, name in named.items()},
            },
            x_label="mean over classes and overlaps",
            about="size",
        )
    ]


def _errors(seen: _Seen) -> Chart:
    """Counts at the threshold, for below it errors are countless; costs over all scores, as they are defined."""
    counts = detection_errors(seen.shown(), len(seen.classes)).counts
    found = detection_errors(seen.images, len(seen.classes))
    rows = [Twin(kind, counts[kind], found.costs[kind], _MEANINGS[kind]) for kind in (*KINDS, "missed")]
    rows.sort(key=lambda row: -row.right)
    meanings = "; ".join(f"{row.name}: {row.meaning}" for row in rows)
    return twin_bars(
        "What goes wrong",
        f"How many errors there are of each kind, with the threshold {seen.chosen}; and by how much the mAP at IoU "
        f"0.5, {found.map50:.3f}, would rise if all of that kind were put right. Costs do not add up. {meanings}.",
        rows,
        labels=("errors", "cost in mAP at IoU 0.5"),
        about="kind",
    )


def _confusion(seen: _Seen) -> Chart:
    return heatmap(
        "What was taken for what",
        f"Rows are true objects, columns what was found in their place (IoU of {_IOU} or more), with the threshold "
        f"{seen.chosen}. The column '{BACKGROUND}' counts objects that were missed, the row '{BACKGROUND}' answers "
        "where there is no such object. The darker, the larger the share of its row.",
        confusion(seen.shown(), len(seen.classes)),
        [*seen.classes, BACKGROUND],
    )


def confusion(images: Sequence[ImageResult], num_classes: int) -> NDArray[np.int64]:
    """True classes (rows) against found ones (columns), [C + 1, C + 1]; the last row and column are background.

    Objects are matched to what was found of their own class first, as for the metrics; what is left on both sides is
    then matched whatever its class. What is not judged by the metrics (on a crowd, or on a difficult object, of its
    class) counts nowhere.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image in images:
        found, true = image
        order = np.argsort(-np.asarray(found.scores, np.float64), kind="stable")
        labels, truth = np.asarray(found.labels, np.intp)[order], np.asarray(true.labels, np.intp)
        overlap = image.overlap()[order]
        own = _matched(same_class(overlap, labels, truth), true.is_crowd, true.uncounted)
        left = np.where(true.uncounted | np.isin(np.arange(len(truth)), own), -1.0, overlap)
        other = _matched(np.where(own[:, None] >= 0, -1.0, left), true.is_crowd, true.uncounted)
        about = np.where(own >= 0, own, other)
        uncounted = np.append(true.uncounted, False)  # the last is for -1, nothing
        judged = ~uncounted[about]
        rows = np.append(truth, num_classes)[about]
        np.add.at(counts, (rows[judged], labels[judged]), 1)
        missed = ~true.uncounted & ~np.isin(np.arange(len(truth)), about)
        np.add.at(counts[:, num_classes], truth[missed], 1)
    return counts


def _matched(overlap: NDArray[np.float64], crowd: NDArray[np.bool_], uncounted: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.asarray(match(overlap, crowd, uncounted[None], np.array([_IOU]))[0, 0])


def _above(found: Detections, thresholds: Sequence[float]) -> Detections:
    kept = np.flatnonzero(found.scores >= np.asarray(thresholds)[found.labels])
    masks = None if found.masks is None else [found.masks[i] for i in kept.tolist()]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept], masks)
