"""How well objects are found, over the whole set at once, each number with the n it rests on and a 95 % interval.

* map, map50, map75, map_small ... mar_large: the twelve numbers of COCO (metrics/coco_ap.py). ap/<class> and
  ap50/<class>: the same of one class.
* froc: recall, mean over 1/8, 1/4, ... 8 false alarms an image.
* matched_iou: the mean IoU of boxes that are right at 0.5, whatever their score.

There is no ROC curve of detections: boxes that are rightly not there cannot be counted. FROC is what takes its place.

Intervals are the percentile bootstrap over images, or over whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DataError
from snellen.core.estimate import Estimate
from snellen.metrics.coco import evaluate
from snellen.metrics.coco_ap import match_images, num_resamples, resampled
from snellen.metrics.froc import froc_recall, mean_matched_iou
from snellen.metrics.interval import NUM_RESAMPLES, group_codes, percentile_interval, resamples
from snellen.metrics.matching import Detections, ImageResult, Objects
from snellen.tasks.detection.target import Boxes

Floats = NDArray[np.float64]
Backend = Literal["reference", "hotcoco"]

_MANY = 500  # images, from which hotcoco's start is worth its while


def paired(predicted: Sequence[Boxes], truth: Sequence[Boxes]) -> list[ImageResult]:
    """Both sides of each image, as the metrics take them."""
    return [ImageResult(as_found(said), as_truth(true)) for said, true in zip(predicted, truth, strict=True)]


def as_found(said: Boxes) -> Detections:
    """A prediction, or the truth taken for one, as the metrics take it."""
    scores = np.ones(len(said)) if said.scores is None else said.scores
    return Detections(said.boxes, scores, said.labels)


def as_truth(true: Boxes) -> Objects:
    """A truth as the metrics take it."""
    return Objects(true.boxes, true.labels, crowd=true.crowd, difficult=true.difficult, areas=true.area)


class DetectionMetrics:
    """Keeps every prediction, so that the numbers do not depend on how they were batched."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._images: list[ImageResult] = []

    @property
    def n(self) -> int:
        """How many images were seen."""
        return len(self._images)

    def update(self, predicted: Sequence[Boxes], truth: Sequence[Boxes]) -> None:
        """Take in a batch. ValueError if there are not as many predictions as truths."""
        if len(predicted) != len(truth):
            raise ValueError(f"as many predictions as truths are needed, got {len(predicted)} and {len(truth)}")
        self._images += paired(predicted, truth)

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str | None] | None = None, seed: int = 0
    ) -> dict[str, Estimate]:
        """Every metric by name, as the module says; a class without true objects has none of its own.

        intervals  False: values only
        groups     the group of each image in the order of the updates (None: a group of its own): whole groups are
                   resampled
        seed       of the bootstrap; the same seed gives the same intervals
        """
        codes = self._codes(groups)
        values = self._values("hotcoco" if not intervals and self.n >= _MANY else "reference")
        samples = self._samples(codes, seed) if intervals and self._num_units(codes) > 1 else {}
        known = {name: value for name, value in values.items() if np.isfinite(value)}
        return {
            name: self._estimate(value, samples.get(name), grouped=groups is not None) for name, value in known.items()
        }

    def resampled(self, *, groups: Sequence[str | None] | None = None, seed: int = 0) -> dict[str, Floats]:
        """What has an interval, in each bootstrap resample, name -> [num_resamples]; NaN where it is undefined."""
        return self._samples(self._codes(groups), seed)

    def _codes(self, groups: Sequence[str | None] | None) -> NDArray[np.intp] | None:
        if self.n == 0:
            raise DataError("nothing to measure: no image was given; check that the split is not empty")
        if groups is not None and len(groups) != self.n:
            raise ValueError(f"groups must name a group for each of the {self.n} images, got {len(groups)}")
        return None if groups is None else group_codes(groups)

    def _num_units(self, codes: NDArray[np.intp] | None) -> int:
        return self.n if codes is None else int(codes.max()) + 1

    def _values(self, backend: Backend) -> dict[str, float]:
        found = evaluate(self._images, len(self.classes), backend=backend)
        of_classes: dict[str, float] = {}
        for name, ap, ap50 in zip(self.classes, found.class_ap, found.class_ap50, strict=True):
            of_classes |= {f"ap/{name}": float(ap), f"ap50/{name}": float(ap50)}
        matches = match_images(self._images, len(self.classes))
        more = {"froc": float(froc_recall(matches).mean()), "matched_iou": float(mean_matched_iou(matches)[0])}
        return {**found.numbers(), **more, **of_classes}

    def _samples(self, codes: NDArray[np.intp] | None, seed: int) -> dict[str, Floats]:
        matches = match_images(self._images, len(self.classes))
        parts: dict[str, list[Floats]] = {}
        num = num_resamples(matches, NUM_RESAMPLES)
        for weights in resamples(self.n, groups=codes, num_resamples=num, seed=seed):
            overall, of_class = resampled(matches, weights)
            named = {f"ap50/{name}": of_class[:, i] for i, name in enumerate(self.classes)}
            more = {"froc": froc_recall(matches, weights).mean(axis=1)}
            more["matched_iou"] = mean_matched_iou(matches, weights=weights)
            for name, values in {**overall, **more, **named}.items():
                parts.setdefault(name, []).append(values)
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _estimate(self, value: float, samples: Floats | None, *, grouped: bool) -> Estimate:
        if samples is None or not np.isfinite(samples).any():
            return Estimate(value=value, n=self.n)
        low, high = percentile_interval(samples)
        method = "bootstrap over groups" if grouped else "bootstrap"
        if samples.size < NUM_RESAMPLES:
            method += f", {samples.size} resamples"
        return Estimate(value=value, n=self.n, low=min(low, value), high=max(high, value), method=method)
