"""How well the pixels of a whole set are told apart, each metric with the n it rests on and a 95 % interval.

All are made from the pixels of all images together, void pixels left out (metrics/class_maps.py): mean_iou, mean_dice,
pixel_accuracy, mean_class_accuracy, frequency_weighted_iou, and of each class in the truth iou/<class> and
dice/<class>. boundary_iou is the mean over classes of Boundary IoU (metrics/boundary.py); it takes longer than all
others and is left out where no intervals are asked for, as after each epoch.

Intervals are the percentile bootstrap over images, or over whole groups: pixels of one image are anything but
independent. n is the number of images, of a class those that show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.core.estimate import Estimate
from snellen.metrics.boundary import boundary_counts
from snellen.metrics.class_maps import dice, drawn, iou, of_pixels, pixel_confusion, pixel_counts
from snellen.metrics.confusion import Counts, macro
from snellen.metrics.estimates import Floats, Support, Weights, estimate, num_units, sample, units_of_mean
from snellen.metrics.interval import codes_of_units
from snellen.tasks.segmentation.target import ClassMap

_OF_EACH = {"iou": iou, "dice": dice}
_OVER_PIXELS = ("pixel_accuracy", "frequency_weighted_iou")


class SegmentationMetrics:
    """Keeps the counts of each image, and the maps themselves for the contours."""

    def __init__(self, classes: Sequence[str]) -> None:
        if not classes:
            raise ValueError("metrics need at least one class, got none")
        self.classes = tuple(classes)
        self._counts: list[Counts] = []
        self._pairs: list[tuple[ClassMap, ClassMap]] = []
        self._near: list[Counts] = []  # of as many of the pairs as have been asked for

    @property
    def n(self) -> int:
        """How many images were seen."""
        return len(self._counts)

    def update(self, predicted: Sequence[ClassMap], truth: Sequence[ClassMap]) -> None:
        """Take in a batch. ValueError if the batches differ in length, or maps in size or in their classes."""
        if len(predicted) != len(truth):
            raise ValueError(f"as many predictions as truths are needed, got {len(predicted)} and {len(truth)}")
        for pair in zip(predicted, truth, strict=True):
            self._counts.append(image_counts(*pair, len(self.classes)))
            self._pairs.append(pair)

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str | None] | None = None, seed: int = 0
    ) -> dict[str, Estimate]:
        """Every metric by name, as the module says.

        intervals  False: values only, fast enough for every epoch
        groups     the group of each image in the order of the updates (None: a group of its own): whole groups are
                   resampled
        seed       of the bootstrap; the same seed gives the same intervals
        """
        codes = codes_of_units(self.n, groups)
        measured = self._measure(np.ones((1, self.n), np.uint8), self._tables(contours=intervals))
        values = {name: float(value[0]) for name, value in measured.items() if not np.isnan(value[0])}
        support = self._support(values, codes)
        if not intervals:
            return {name: Estimate(value=value, n=support[name].n) for name, value in values.items()}
        samples = self._samples(codes, seed)
        return {
            name: estimate(value, support[name], samples.get(name), grouped=codes is not None)
            for name, value in values.items()
        }

    def resampled(self, *, groups: Sequence[str | None] | None = None, seed: int = 0) -> dict[str, Floats]:
        """Every metric in each bootstrap resample, name -> [num_resamples]; NaN where it is undefined."""
        return self._samples(codes_of_units(self.n, groups), seed)

    def _samples(self, codes: NDArray[np.intp] | None, seed: int) -> dict[str, Floats]:
        tables = self._tables(contours=True)
        return sample(lambda w: self._measure(w, tables), lambda w: {}, self.n, self.n, groups=codes, seed=seed)

    def _tables(self, *, contours: bool) -> tuple[Counts, Counts | None]:
        """Counts of each image [n, C]: of all pixels, and of those near contours."""
        near = None
        if contours:
            if len(self._near) < self.n:
                self._near.extend(_contours(*pair, len(self.classes)) for pair in self._pairs[len(self._near) :])
            near = stacked(self._near)
        return stacked(self._counts), near

    def _measure(self, weights: Weights, tables: tuple[Counts, Counts | None]) -> dict[str, Floats]:
        """Metric name -> [b], under each row of weights [b, n]."""
        pixels, near = tables
        counts = drawn(pixels, weights)
        measured = of_pixels(counts)
        if near is not None:
            measured["boundary_iou"] = macro(iou(drawn(near, weights)))
        for metric, of in _OF_EACH.items():
            rates = of(counts)
            measured |= {f"{metric}/{name}": rates[:, i] for i, name in enumerate(self.classes)}
        return measured

    def _support(self, names: Iterable[str], codes: NDArray[np.intp] | None) -> dict[str, Support]:
        shown: NDArray[np.bool_] = stacked(self._counts).truth > 0
        judged: NDArray[np.bool_] = np.any(shown, axis=1)
        units = [num_units(shown[:, i], codes) for i in range(len(self.classes))]
        everything = num_units(judged, codes)
        of_mean = min(everything, units_of_mean([each for each in units if each]))
        support = {}
        for name in names:
            metric, _, of = name.partition("/")
            if of:
                i = self.classes.index(of)
                support[name] = Support(int(shown[:, i].sum()), units[i], False)
            else:
                support[name] = Support(int(judged.sum()), everything if metric in _OVER_PIXELS else of_mean, False)
        return support


def image_counts(predicted: ClassMap, truth: ClassMap, num_classes: int) -> Counts:
    """Counts [C] of the pixels of one image; a prediction of a single pixel stands for the whole image."""
    return pixel_counts(pixel_confusion(truth.array, predicted.filling(truth.size), num_classes))


def stacked(counts: Sequence[Counts]) -> Counts:
    """Counts [C] of each image -> [n, C]."""
    return Counts(*(np.stack(part) for part in zip(*counts, strict=True)))


def _contours(predicted: ClassMap, truth: ClassMap, num_classes: int) -> Counts:
    return boundary_counts(truth.array, predicted.filling(truth.size), num_classes)
