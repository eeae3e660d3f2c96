"""COCO's evaluation by whichever code is asked for: the numbers are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snellen.metrics.coco_ap import CocoResult, match_images, result_of
from snellen.metrics.matching import ImageResult

Backend = Literal["reference", "hotcoco"]


def evaluate(images: Sequence[ImageResult], num_classes: int, *, backend: Backend = "reference") -> CocoResult:
    """By ``coco_ap``, which can be read, or by hotcoco, which is made for sets of thousands of images."""
    if backend == "hotcoco":
        from snellen.metrics.hotcoco_ap import evaluate_by_hotcoco

        return evaluate_by_hotcoco(images, num_classes)
    return result_of(match_images(images, num_classes))
