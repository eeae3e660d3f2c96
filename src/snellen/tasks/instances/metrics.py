"""How well objects are found and outlined, over the whole set at once, each number with its n and a 95 % interval.

* mask_map, mask_map50, mask_map75, mask_map_small ... mask_mar_large: the twelve numbers of COCO, of masks
  (metrics/coco_ap.py). ap/<class> and ap50/<class>: the same of one class, of masks.
* map, map50, map75: of the boxes of the same objects.
* matched_iou: the mean IoU of masks that are right at 0.5, whatever their score.

Intervals are the percentile bootstrap over images, or over whole groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DataError
from snellen.core.estimate import Estimate
from snellen.metrics.coco_ap import Matches, match_images, num_resamples, resampled, result_of
from snellen.metrics.estimates import Support, estimate
from snellen.metrics.froc import mean_matched_iou
from snellen.metrics.interval import NUM_RESAMPLES, group_codes, resamples
from snellen.metrics.matching import Detections, ImageResult, Objects
from snellen.tasks.instances.target import InstanceSet

Floats = NDArray[np.float64]

_OF_BOXES = ("map", "map50", "map75")


class Judged(Sequence[ImageResult]):
    """Both sides of each image as the metrics take them, made when they are looked at: runs for COCO's rules take many
    times the memory of what they are made from."""

    def __init__(self, predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet], *, masked: bool = True) -> None:
        self._pairs = list(zip(predicted, truth, strict=True))
        self._masked = masked

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> ImageResult:  # type: ignore[override]
        said, true = self._pairs[index]
        masks = [[mask.rle(true.size) for mask in side.masks] if self._masked else None for side in (said, true)]
        scores = np.ones(len(said)) if said.scores is None else said.scores
        return ImageResult(
            Detections(said.boxes, scores, said.labels, masks=masks[0]),
            Objects(
                true.boxes, true.labels, crowd=true.crowd, difficult=true.difficult, areas=true.area, masks=masks[1]
            ),
        )

    def __iter__(self) -> Iterator[ImageResult]:
        return (self[index] for index in range(len(self)))


class InstanceMetrics:
    """Keeps every prediction, so that the numbers do not depend on how they were batched."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._predicted: list[InstanceSet] = []
        self._truth: list[InstanceSet] = []

    @property
    def n(self) -> int:
        """How many images were seen."""
        return len(self._truth)

    def update(self, predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet]) -> None:
        """Take in a batch. ValueError if there are not as many predictions as truths."""
        if len(predicted) != len(truth):
            raise ValueError(f"as many predictions as truths are needed, got {len(predicted)} and {len(truth)}")
        self._predicted += predicted
        self._truth += truth

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
        masks, boxes = self._matched()
        samples = self._samples(masks, boxes, codes, seed) if intervals else {}
        units = self.n if codes is None else int(codes.max()) + 1
        found = {}
        for name, value in self._values(masks, boxes).items():
            drawn = samples.get(name)
            if drawn is None or not np.isfinite(drawn).any():
                found[name] = Estimate(value=value, n=self.n)
            else:
                found[name] = estimate(value, Support(self.n, units, False), drawn, grouped=codes is not None)
        return found

    def resampled(self, *, groups: Sequence[str | None] | None = None, seed: int = 0) -> dict[str, Floats]:
        """What has an interval, in each bootstrap resample, name -> [num_resamples]; NaN where it is undefined."""
        codes = self._codes(groups)
        return self._samples(*self._matched(), codes, seed)

    def _codes(self, groups: Sequence[str | None] | None) -> NDArray[np.intp] | None:
        if self.n == 0:
            raise DataError("nothing to measure: no image was given; check that the split is not empty")
        if groups is not None and len(groups) != self.n:
            raise ValueError(f"groups must name a group for each of the {self.n} images, got {len(groups)}")
        return None if groups is None else group_codes(groups)

    def _matched(self) -> tuple[Matches, Matches]:
        """By masks, and by boxes."""
        masks, boxes = (
            match_images(Judged(self._predicted, self._truth, masked=masked), len(self.classes))
            for masked in (True, False)
        )
        return masks, boxes

    def _values(self, masks: Matches, boxes: Matches) -> dict[str, float]:
        of_masks, of_boxes = result_of(masks), result_of(boxes).numbers()
        values = {f"mask_{name}": value for name, value in of_masks.numbers().items()}
        values |= {name: of_boxes[name] for name in _OF_BOXES}
        values["matched_iou"] = float(mean_matched_iou(masks)[0])
        for name, ap, ap50 in zip(self.classes, of_masks.class_ap, of_masks.class_ap50, strict=True):
            values |= {f"ap/{name}": float(ap), f"ap50/{name}": float(ap50)}
        return {name: value for name, value in values.items() if np.isfinite(value)}

    def _samples(self, masks: Matches, boxes: Matches, codes: NDArray[np.intp] | None, seed: int) -> dict[str, Floats]:
        parts: dict[str, list[Floats]] = {}
        num = min(num_resamples(masks, NUM_RESAMPLES), num_resamples(boxes, NUM_RESAMPLES))
        for weights in resamples(self.n, groups=codes, num_resamples=num, seed=seed):
            of_masks, of_class = resampled(masks, weights)
            measured = {f"mask_{name}": values for name, values in of_masks.items()}
            measured |= resampled(boxes, weights)[0]
            measured["matched_iou"] = mean_matched_iou(masks, weights=weights)
            measured |= {f"ap50/{name}": of_class[:, i] for i, name in enumerate(self.classes)}
            for name, values in measured.items():
                parts.setdefault(name, []).append(values)
        return {name: np.concatenate(values) for name, values in parts.items()}
