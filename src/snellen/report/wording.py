"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from snellen.core.estimate import Estimate, is_fraction, is_share, told

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test", "out-of-fold": "out-of-fold", "all": "all"}

# Name and meaning. What is not here is called by its own name.
METRICS = {
    "accuracy": ("Accuracy", "share of images that are named rightly"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes: a rare one counts as much as a common one"),
    "top5_accuracy": ("Top-5 accuracy", "share of images whose class is among the five best guesses"),
    "label_accuracy": ("Label accuracy", "share of yes/no decisions that are right"),
    "subset_accuracy": ("All labels right", "share of images with every label right and none too many"),
    "precision_macro": ("Precision, mean of classes", "of the images given a class, how many are of it"),
    "recall_macro": ("Recall, mean of classes", "of the images of a class, how many are found"),
    "f1_macro": ("F1, mean of classes", "one number for precision and recall together"),
    "precision_micro": ("Precision, pooled", "over all decisions together"),
    "recall_micro": ("Recall, pooled", "over all decisions together"),
    "recall_weighted": ("Recall, weighted", "each class counts by its number of images"),
    "precision_weighted": ("Precision, weighted", "each class counts by its number of images"),
    "f1_weighted": ("F1, weighted", "each class counts by its number of images"),
    "f1_micro": ("F1, pooled", "over all decisions together"),
    "roc_auc": ("ROC area", "1 is perfect, 0.5 is chance"),
    "average_precision": ("Average precision", "area below precision over recall, 1 is perfect"),
    "mean_average_precision": ("Mean average precision", "area below precision over recall, mean of the labels"),
    "brier_score": ("Brier score", "squared distance of probabilities and truth: 0 is perfect"),
    "calibration_error": ("Calibration error", "how far confidence is from the share that is right, without chance"),
    "log_loss": ("Log loss", "how surprised the probabilities are by the truth: lower is better"),
    "r2": ("R²", "share of the spread of the truth that is explained: 1 is perfect, 0 is always saying the mean"),
    "mae": ("Mean absolute error", "how far off, on average, in the number's own unit: lower is better"),
    "rmse": ("Root mean squared error", "as the mean absolute error, but large errors weigh more: lower is better"),
    "median_absolute_error": ("Median absolute error", "half of the images are nearer than this: lower is better"),
    "bias": ("Bias", "predicted less true, on average: 0 is right"),
    "map": ("mAP", "area below precision over recall, mean of the classes and of IoU 0.50 to 0.95 (COCO)"),
    "map50": ("mAP at IoU 0.5", "the same where half of the overlap is enough"),
    "map75": ("mAP at IoU 0.75", "the same where boxes must fit well"),
    "map_small": ("mAP of small objects", "below 32 x 32 pixels of the image"),
    "map_medium": ("mAP of medium objects", "from 32 x 32 to 96 x 96 pixels"),
    "map_large": ("mAP of large objects", "above 96 x 96 pixels"),
    "mar1": ("Recall with 1 answer", "mean over IoU, with the best answer of a class in an image alone"),
    "mar10": ("Recall with 10 answers", "with ten of a class in an image"),
    "mar100": ("Recall with 100 answers", "with a hundred of a class in an image"),
    "mar_small": ("Recall of small objects", "with a hundred answers"),
    "mar_medium": ("Recall of medium objects", "with a hundred answers"),
    "mar_large": ("Recall of large objects", "with a hundred answers"),
    "ap": ("AP", "area below precision over recall, mean of IoU 0.50 to 0.95"),
    "ap50": ("AP at IoU 0.5", "the same where half of the overlap is enough"),
    "froc": ("FROC", "mean recall at 1/8 to 8 false alarms an image"),
    "matched_iou": ("IoU of matched boxes", "how well boxes fit that are right"),
    "mean_iou": ("Mean IoU", "overlap of predicted and true pixels of a class over both, mean of the classes"),
    "mean_dice": ("Mean Dice", "twice the overlap over the sum of both, mean of the classes"),
    "pixel_accuracy": ("Pixel accuracy", "share of pixels that are named rightly"),
    "mean_class_accuracy": ("Class accuracy", "share of a class's pixels that are found, mean of the classes"),
    "frequency_weighted_iou": ("Weighted IoU", "IoU, each class counting by its pixels"),
    "boundary_iou": ("Boundary IoU", "IoU of the pixels near outlines alone, mean of the classes"),
    "image_iou": ("IoU by image", "mean IoU of each image, mean of the images"),
    "iou": ("IoU", "overlap of predicted and true pixels over both"),
    "dice": ("Dice", "twice the overlap over the sum of both"),
    "pearson": ("Correlation", "of predicted and true (Pearson): 1 is a straight line, whatever its slope"),
    "spearman": ("Rank correlation", "of predicted and true (Spearman): 1 is the right order"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """How a page speaks of a task: what its ``classes`` are, what guessing is, and what a mistake is."""

    kind: str = "class"
    kinds: str = "classes"
    guessing: str = "Always the most common answer"
    mistakes: str = "The most confident mistakes"
    mistakes_note: str = "Where the model was sure and wrong. Look for wrong labels first: they are often among these."
    taken_for: str = "taken for"
    fed_note: str = "If you cannot tell the classes apart here, neither can the model."
    predicts: str = "name the class of each image"


_WORDS = {
    "regression": Words(
        kind="number",
        kinds="numbers",
        guessing="Always the mean of the training images",
        mistakes="The largest errors",
        mistakes_note="Where the model was farthest off. Look for wrong numbers in the table first: they are often "
        "among these.",
        taken_for="predicted",
        fed_note="If you could not guess the number from these, neither can the model.",
        predicts="say the number of each image",
    ),
    "detection": Words(
        guessing="Never anything",
        mistakes="The images with most errors",
        mistakes_note="Truth on the left, prediction on the right. Look for objects that nobody marked first: they are "
        "often among these.",
        taken_for="predicted",
        fed_note="Boxes must lie on their objects here: if they do not, they are read wrongly.",
        predicts="find the objects in each image",
    ),
    "segmentation": Words(
        guessing="Always the most common class",
        mistakes="The images with the lowest IoU",
        mistakes_note="Truth on the left, prediction on the right. Look for wrong masks first: they are often among "
        "these.",
        taken_for="predicted",
        fed_note="Classes must lie on their objects here: if they do not, masks are read wrongly.",
        predicts="name the class of each pixel",
    ),
}
_WORDS["instances"] = replace(_WORDS["detection"], predicts="find and outline the objects in each image")


def words_of(task: str) -> Words:
    return _WORDS.get(task, Words())


def metric_name(metric: str) -> str:
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ").capitalize()


def metric_meaning(metric: str) -> str:
    return METRICS[metric][1] if metric in METRICS else ""


def percent(fraction: float, n: int) -> str:
    """``0.9738, 153`` -> ``97.4 %``: no more digits than n images can tell apart."""
    digits = 0 if n < 50 else 1 if n < 20_000 else 2
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def confidence(probability: float) -> str:
    """``0.647`` -> ``65 %``. Only what is certain is called 100 %."""
    return "over 99\N{NO-BREAK SPACE}%" if 0.995 <= probability < 1 else percent(probability, 1)


@dataclass(frozen=True, slots=True)
class Reading:
    """An estimate, ready to be read: ``97.4 %``, ``93.5 to 99.0 %``, ``153``, and the fractions for a bar."""

    value: str
    interval: str
    n: str
    fraction: float | None = None
    low: float | None = None
    high: float | None = None


def reading(metric: str, fields: Mapping[str, Any]) -> Reading:
    estimate = Estimate.from_json(fields)
    share = is_share(metric)
    n = f"{estimate.n:,}"
    if not math.isfinite(estimate.value):
        return Reading("not defined", "", n)
    low, high = estimate.low, estimate.high
    if share:
        value = percent(estimate.value, estimate.n)
        interval = "" if low is None or high is None else _span(percent(low, estimate.n), percent(high, estimate.n))
        return Reading(value, interval, n, estimate.value, low, high)
    interval = "" if low is None or high is None else f"{told(metric, low)} to {told(metric, high)}"
    bar = (estimate.value, low, high) if is_fraction(metric) else (None, None, None)
    return Reading(told(metric, estimate.value), interval, n, *bar)


def _span(low: str, high: str) -> str:
    return f"{low[:-2]} to {high}"


def duration(seconds: float) -> str:
    """``45 s``, ``4 min 10 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``1,234 images``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def plain(value: Any, limit: int = 12) -> str:
    """A JSON value as text: short, and without brackets. Of long lists the first ``limit`` entries are told."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case int():
            return f"{value:,}" if abs(value) >= 10_000 else str(value)
        case dict():
            told = [f"{str(name).replace('_', ' ')} {plain(each)}" for name, each in list(value.items())[:limit]]
            separator = "; "
        case list() | tuple():
            told = [plain(each) for each in value[:limit]]
            separator = "; " if any(isinstance(each, dict | list) for each in value[:limit]) else ", "
        case _:
            return str(value)
    rest = len(value) - limit
    return separator.join([*told, f"and {rest:,} more"] if rest > 0 else told)
