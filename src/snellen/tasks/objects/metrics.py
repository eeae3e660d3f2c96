"""What every task about objects measures, over the whole set at once: the frame that its own numbers are put in.

* ap/<class> and ap50/<class>: the average precision of one class by COCO's rules (metrics/coco_ap.py), over IoUs of
  0.5 to 0.95, and at 0.5.
* matched_iou: the mean IoU of objects that are right at 0.5, whatever their score.

Intervals are the percentile bootstrap over images, or over whole groups.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from snellen.core.estimate import Estimate
from snellen.metrics.coco import evaluate
from snellen.metrics.coco_ap import CocoResult, Matches, match_images, num_resamples, resampled, result_of
from snellen.metrics.estimates import Support, estimate
from snellen.metrics.froc import mean_matched_iou
from snellen.metrics.interval import NUM_RESAMPLES, codes_of_units, resamples
from snellen.metrics.matching import Detections, ImageResult, Objects
from snellen.tasks.objects.target import ObjectSet, ObjectsT

Floats = NDArray[np.float64]


class Judged(Sequence[ImageResult]):
    """Both sides of each image as the metrics take them, made when they are looked at: runs for COCO's rules take many
    times the memory of what they are made from.

    masked  whether masks are judged, where there are any; False: boxes are
    """

    def __init__(self, predicted: Sequence[ObjectSet], truth: Sequence[ObjectSet], *, masked: bool = True) -> None:
        self._pairs = list(zip(predicted, truth, strict=True))
        self._masked = masked

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> ImageResult:  # type: ignore[override]
        said, true = self._pairs[index]
        masks = [side.runs(true.size) if self._masked else None for side in (said, true)]
        scores = np.ones(len(said)) if said.scores is None else said.scores
        return ImageResult(
            Detections(said.boxes, scores, said.labels, masks=masks[0]),
            Objects(
                true.boxes, true.labels, crowd=true.crowd, difficult=true.difficult, areas=true.area, masks=masks[1]
            ),
        )

    def __iter__(self) -> Iterator[ImageResult]:
        return (self[index] for index in range(len(self)))


class ObjectMetrics(ABC, Generic[ObjectsT]):
    """Keeps every prediction, so that the numbers do not depend on how they were batched."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._predicted: list[ObjectsT] = []
        self._truth: list[ObjectsT] = []

    @property
    def n(self) -> int:
        """How many images were seen."""
        return len(self._truth)

    def update(self, predicted: Sequence[ObjectsT], truth: Sequence[ObjectsT]) -> None:
        """Take in a batch. ValueError if there are not as many predictions as truths."""
        if len(predicted) != len(truth):
            raise ValueError(f"as many predictions as truths are needed, got {len(predicted)} and {len(truth)}")
        self._predicted += predicted
        self._truth += truth

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str | None] | None = None, seed: int = 0
    ) -> dict[str, Estimate]:
        """Every metric by name, as the modules say; a class without true objects has none of its own.

        intervals  False: values only, and those of COCO alone, by a fast library: what training looks at every epoch
        groups     the group of each image in the order of the updates (None: a group of its own): whole groups are
                   resampled
        seed       of the bootstrap; the same seed gives the same intervals
        """
        codes = codes_of_units(self.n, groups)
        if not intervals:
            results = [evaluate(each, len(self.classes), backend="hotcoco") for each in self._judged()]
            values = self._values(results)
            return {name: Estimate(value=x, n=self.n) for name, x in values.items() if np.isfinite(x)}
        matches = self._matched()
        values = {**self._values([result_of(each) for each in matches]), **self._more(matches[0])}
        samples = self._samples(matches, codes, seed)
        support = Support(self.n, self.n if codes is None else int(codes.max()) + 1, False)
        return {
            name: self._estimate(value, support, samples.get(name), grouped=codes is not None)
            for name, value in values.items()
            if np.isfinite(value)
        }

    def resampled(self, *, groups: Sequence[str | None] | None = None, seed: int = 0) -> dict[str, Floats]:
        """What has an interval, in each bootstrap resample, name -> [num_resamples]; NaN where it is undefined."""
        codes = codes_of_units(self.n, groups)
        return self._samples(self._matched(), codes, seed)

    @abstractmethod
    def _numbers(self, results: Sequence[CocoResult]) -> dict[str, float]:
        """What is told of all classes together, by name; one result for each of ``_judged``."""

    def _more(self, matches: Matches) -> dict[str, float]:
        """What COCO does not measure, by name; ``matches`` are those of the first of ``_judged``."""
        return {"matched_iou": float(mean_matched_iou(matches)[0])}

    @abstractmethod
    def _drawn(
        self, overall: dict[str, Floats], matches: Sequence[Matches], weights: NDArray[Any]
    ) -> dict[str, Floats]:
        """Those of ``_numbers`` and ``_more`` that have an interval, name -> [b], in resamples with ``weights`` [b, n].

        overall  COCO's numbers of the first of ``matches``, as ``coco_ap.resampled`` gives them
        """

    def _judged(self) -> list[Judged]:
        """The objects by what they are; and again, for numbers that look at them in another way."""
        return [Judged(self._predicted, self._truth)]

    def _matched(self) -> list[Matches]:
        return [match_images(each, len(self.classes)) for each in self._judged()]

    def _values(self, results: Sequence[CocoResult]) -> dict[str, float]:
        values = self._numbers(results)
        for name, ap, ap50 in zip(self.classes, results[0].class_ap, results[0].class_ap50, strict=True):
            values |= {f"ap/{name}": float(ap), f"ap50/{name}": float(ap50)}
        return values

    def _samples(self, matches: Sequence[Matches], codes: NDArray[np.intp] | None, seed: int) -> dict[str, Floats]:
        parts: dict[str, list[Floats]] = {}
        num = min(num_resamples(each, NUM_RESAMPLES) for each in matches)
        for weights in resamples(self.n, groups=codes, num_resamples=num, seed=seed):
            overall, of_class = resampled(matches[0], weights)
            measured = self._drawn(overall, matches, weights)
            measured["matched_iou"] = mean_matched_iou(matches[0], weights=weights)
            measured |= {f"ap50/{name}": of_class[:, i] for i, name in enumerate(self.classes)}
            for name, values in measured.items():
                parts.setdefault(name, []).append(values)
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _estimate(self, value: float, support: Support, samples: Floats | None, *, grouped: bool) -> Estimate:
        if samples is None or not np.isfinite(samples).any():
            return Estimate(value=value, n=self.n)
        return estimate(value, support, samples, grouped=grouped)
