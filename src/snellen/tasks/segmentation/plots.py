"""The pictures of how pixels are told apart: IoU of each class, who is taken for whom, and the worst images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.draw.chart import Chart
from snellen.draw.charts import bars, heatmap, histogram
from snellen.metrics.class_maps import image_iou, iou, pixel_confusion, pixel_counts
from snellen.metrics.confusion import Counts
from snellen.tasks.segmentation.target import ClassMap

_FEWEST_IMAGES = 10  # of which a distribution says something
_BINS = 20


def charts(predicted: Sequence[ClassMap], truth: Sequence[ClassMap], classes: Sequence[str]) -> list[Chart]:
    """IoU by class, the confusion of pixels, and IoU by image. Nothing to show gives an empty list."""
    matrices = [
        pixel_confusion(true.array, said.filling(true.size), len(classes))
        for said, true in zip(predicted, truth, strict=True)
    ]
    if not any(matrix.any() for matrix in matrices):
        return []
    each = np.stack(matrices)
    total = each.sum(axis=0)
    counts = pixel_counts(each)
    found = [_of_classes(iou(pixel_counts(total)), counts, classes), _confusion(total, classes)]
    of_images = image_iou(counts)
    of_images = of_images[~np.isnan(of_images)]
    return [*found, _of_images(of_images)] if len(of_images) >= _FEWEST_IMAGES else found


def _of_classes(overlap: NDArray[np.float64], counts: Counts, classes: Sequence[str]) -> Chart:
    shown_in = (counts.truth > 0).sum(axis=0)
    lengths = {
        f"{name} ({shown_in[i]:,})": float(round(100 * overlap[i], 1))
        for i, name in enumerate(classes)
        if not np.isnan(overlap[i])
    }
    absent = [name for i, name in enumerate(classes) if not shown_in[i]]
    missing = f" Not in the truth: {', '.join(absent)}." if absent else ""
    return bars(
        "IoU by class",
        "Pixels that truth and prediction share, of those that either gives to the class; in brackets the number of "
        f"images that show it.{missing}",
        {"IoU": lengths},
        x_label="IoU in %",
    )


def _confusion(total: NDArray[np.int64], classes: Sequence[str]) -> Chart:
    return heatmap(
        "Confusion of pixels",
        "Each row shares out the pixels of one true class by what they were called; the diagonal is right. Void "
        "pixels are left out.",
        total,
        classes,
    )


def _of_images(overlap: NDArray[np.float64]) -> Chart:
    counts, edges = np.histogram(100 * overlap, bins=_BINS, range=(0, 100))
    return histogram(
        "IoU by image",
        f"Mean IoU of each of {len(overlap):,} images over the classes that it shows; half of them are above "
        f"{100 * float(np.median(overlap)):.0f} %. Single images far to the left are worth a look.",
        counts.tolist(),
        edges.tolist(),
        x_label="IoU in %",
    )
