"""How well a class for each pixel fits the true one: IoU and Dice of each class, their means, and shares of pixels.

A class map is uint8 [H, W] of class indices. Where the truth is void (255) a pixel is neither right nor wrong: it is
left out of every count. The numbers are made from the pixels of all images together (one confusion matrix of the whole
set), which is what the literature calls mIoU; ``image_iou`` is the mean of another kind, image by image.

One rule for what is undefined, that of ``confusion``: a class that no pixel of the truth has no numbers (NaN) and is
left out of the means, whatever was predicted. Pixels wrongly given to it still cost the classes that they belong to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.metrics.confusion import Counts, accuracy, confusion_matrix, f1, macro, recall, weighted

VOID = 255

Floats = NDArray[np.float64]
Map = NDArray[np.uint8]


def pixel_confusion(truth: Map, predicted: Map, num_classes: int) -> NDArray[np.int64]:
    """How many pixels of true class i (row) were given class j (column), [C, C], without those that are void in truth.

    ValueError where the maps differ in size, or a pixel that is judged holds no class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"maps must be of one size, got {truth.shape} (truth) and {predicted.shape} (predicted)")
    judged = truth != VOID
    true, said = truth[judged], predicted[judged]
    for name, classes in (("truth", true), ("predicted", said)):
        if classes.size and classes.max() >= num_classes:
            raise ValueError(f"{name}: class {classes.max()} is not one of the {num_classes} classes")
    return confusion_matrix(true, said, num_classes)


def pixel_counts(confusion: NDArray[Any]) -> Counts:
    """The counts [..., C] behind confusion matrices [..., C, C], of one image or of each of many."""
    matrix = confusion.astype(np.float64)
    return Counts(np.diagonal(matrix, axis1=-2, axis2=-1).copy(), matrix.sum(axis=-1), matrix.sum(axis=-2))


def drawn(counts: Counts, weights: NDArray[Any]) -> Counts:
    """The counts of sets of images: those of each image, [n, C], and how often each was drawn [b, n] -> [b, C].

    Exact: they are whole numbers below 2**53.
    """
    rows = weights.astype(np.float64)
    return Counts(*(rows @ each for each in counts))


def iou(counts: Counts) -> Floats:
    """Intersection over union of each class, [..., C]; 0 where it was never found, NaN where it is not in the truth."""
    union = counts.truth + counts.predicted - counts.hits
    return np.where(counts.truth > 0, counts.hits / np.maximum(union, 1), np.nan)


def dice(counts: Counts) -> Floats:
    """Dice's coefficient of each class, [..., C]: the F1 of its pixels, 2 IoU / (1 + IoU); NaN as ``iou``."""
    return f1(counts)


def of_pixels(counts: Counts) -> dict[str, Floats]:
    """Counts [b, C] of sets of images -> metric -> [b]; NaN where every pixel is void.

    mean_iou, mean_dice       mean over the classes in the truth
    mean_class_accuracy       mean over the classes in the truth of the share of their pixels that was found
    pixel_accuracy            share of all pixels that is right
    frequency_weighted_iou    mean IoU, each class weighted by its share of the pixels
    """
    overlap = iou(counts)
    return {
        "mean_iou": macro(overlap),
        "mean_dice": macro(dice(counts)),
        "pixel_accuracy": accuracy(counts),
        "mean_class_accuracy": macro(recall(counts)),
        "frequency_weighted_iou": weighted(overlap, counts),
    }


def image_iou(counts: Counts) -> Floats:
    """Mean IoU of each image [n] over the classes in its own truth, from counts [n, C]; NaN where all of it is void.

    It says which images went wrong. Its mean over images weighs a class by how many images it is in, however large.
    """
    return macro(iou(counts))
