"""COCO's evaluation by hotcoco, a fast one in Rust: the same numbers as ``coco_ap`` computes itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snellen.core.annotation import Rle
from snellen.metrics.coco_ap import AREAS, CocoResult
from snellen.metrics.matching import Floats, ImageResult, Objects

# COCO's files cannot say "difficult". An object larger than every range of sizes is one that does not count.
_BEYOND = 10 * AREAS["all"][1]


def evaluate_by_hotcoco(images: Sequence[ImageResult], num_classes: int) -> CocoResult:
    """As ``coco.evaluate``."""
    from hotcoco import COCO, COCOeval

    masked = all(image.found.masks is not None and image.true.masks is not None for image in images)
    truth = COCO(truth_file(images, num_classes, masked=masked))
    judge = COCOeval(truth, truth.load_res(found_rows(images, masked=masked)), "segm" if masked else "bbox")
    judge.evaluate()
    judge.accumulate()
    assert judge.eval is not None
    # hotcoco's last axis of precision is MAX_DETECTIONS; -1 is what does not exist.
    precision, recall = (
        np.where(values < 0, np.nan, values) for values in (judge.eval["precision"], judge.eval["recall"])
    )
    return CocoResult(precision[..., -1], recall)


def truth_file(images: Sequence[ImageResult], num_classes: int, *, masked: bool) -> dict[str, Any]:
    """Ids begin at 1: 0 stands for "unmatched" in COCO's own code."""
    annotations = [
        {"id": 0, "image_id": number, **annotation}
        for number, image in enumerate(images, 1)
        for annotation in _annotations(image.true, masked=masked)
    ]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    return {
        "images": [{"id": number, "width": 0, "height": 0} for number in range(1, len(images) + 1)],
        "categories": [{"id": label + 1, "name": str(label)} for label in range(num_classes)],
        "annotations": annotations,
    }


def _annotations(true: Objects, *, masked: bool) -> list[dict[str, Any]]:
    excused = true.uncounted & ~true.is_crowd
    return [
        {
            "category_id": int(label) + 1,
            "bbox": box,
            "area": _BEYOND if difficult else float(area),
            "iscrowd": int(crowd),
            **({"segmentation": _runs(true.masks[index])} if masked and true.masks is not None else {}),
        }
        for index, (label, box, difficult, area, crowd) in enumerate(
            zip(true.labels, _sides(true.boxes).tolist(), excused, true.sizes, true.is_crowd, strict=True)
        )
    ]


def found_rows(images: Sequence[ImageResult], *, masked: bool) -> Any:
    """Detections as rows image, x, y, width, height, score, class; with masks, a dictionary each."""
    rows = [
        np.column_stack([np.full(len(found.scores), number), _sides(found.boxes), found.scores, found.labels + 1])
        for number, (found, _) in enumerate(images, 1)
    ]
    if not masked:
        return np.concatenate([np.zeros((0, 7)), *rows])
    return [
        {"image_id": int(row[0]), "category_id": int(row[6]), "score": row[5], "segmentation": _runs(mask)}
        for image, of_image in zip(images, rows, strict=True)
        for row, mask in zip(of_image, image.found.masks or (), strict=True)
    ]


def _sides(boxes: Floats) -> Floats:
    """x, y, width, height."""
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 0)], axis=1)


def _runs(mask: Rle) -> dict[str, Any]:
    return {"size": list(mask.size), "counts": list(mask.counts)}
