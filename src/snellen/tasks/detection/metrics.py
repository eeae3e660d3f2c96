"""How well objects are found, over the whole set at once, each number with the n it rests on and a 95 % interval.

* map, map50, map75, map_small ... mar_large: the twelve numbers of COCO (metrics/coco_ap.py).
* froc: recall, mean over 1/8, 1/4, ... 8 false alarms an image.
* ap/<class>, ap50/<class>, matched_iou: see objects/metrics.py; of boxes.

There is no ROC curve of detections: boxes that are rightly not there cannot be counted. FROC is what takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from snellen.metrics.coco_ap import CocoResult, Matches
from snellen.metrics.froc import froc_recall
from snellen.tasks.detection.target import Boxes
from snellen.tasks.objects.metrics import Floats, ObjectMetrics


class DetectionMetrics(ObjectMetrics[Boxes]):
    def _numbers(self, results: Sequence[CocoResult]) -> dict[str, float]:
        return results[0].numbers()

    def _more(self, matches: Matches) -> dict[str, float]:
        return {**super()._more(matches), "froc": float(froc_recall(matches).mean())}

    def _drawn(
        self, overall: dict[str, Floats], matches: Sequence[Matches], weights: NDArray[Any]
    ) -> dict[str, Floats]:
        return {**overall, "froc": froc_recall(matches[0], weights).mean(axis=1)}
