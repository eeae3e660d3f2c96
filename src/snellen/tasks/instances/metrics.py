"""How well objects are found and outlined, over the whole set at once, each number with its n and a 95 % interval.

* mask_map, mask_map50, mask_map75, mask_map_small ... mask_mar_large: the twelve numbers of COCO, of masks
  (metrics/coco_ap.py).
* map, map50, map75: of the boxes of the same objects.
* ap/<class>, ap50/<class>, matched_iou: see objects/metrics.py; of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from snellen.metrics.coco_ap import CocoResult, Matches, resampled
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.objects.metrics import Floats, Judged, ObjectMetrics

_OF_BOXES = ("map", "map50", "map75")


class InstanceMetrics(ObjectMetrics[InstanceSet]):
    def _judged(self) -> list[Judged]:
        """By masks, and by boxes."""
        return [*super()._judged(), Judged(self._predicted, self._truth, masked=False)]

    def _numbers(self, results: Sequence[CocoResult]) -> dict[str, float]:
        masks, boxes = (result.numbers() for result in results)
        of_masks = {f"mask_{name}": value for name, value in masks.items()}
        return {**of_masks, **{name: boxes[name] for name in _OF_BOXES}}

    def _drawn(
        self, overall: dict[str, Floats], matches: Sequence[Matches], weights: NDArray[Any]
    ) -> dict[str, Floats]:
        of_masks = {f"mask_{name}": values for name, values in overall.items()}
        return {**of_masks, **resampled(matches[1], weights)[0]}
