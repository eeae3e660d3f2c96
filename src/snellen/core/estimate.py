"""A number that says how sure it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_SHARES = ("accuracy", "precision", "recall", "f1", "error", "sensitivity", "specificity", "ece")
_NOT_SHARES = ("average_precision", "absolute_error")
_FRACTIONS = ("average_precision", "roc_auc", "iou", "dice", "froc")
_COCO = re.compile(r"(mask_)?(map|mar|ap)(\d+|_small|_medium|_large)?")  # mean average precision and recall
_ABBREVIATED = {"iou": "IoU", "map": "mAP", "roc": "ROC", "froc": "FROC"}
_AT_MOST_ONE = ("r2", "pearson", "spearman")
_AMOUNTS = ("mae", "rmse", "median_absolute_error", "bias")


def spoken(metric: str) -> str:
    """A metric's name within a sentence: ``mean_iou`` -> ``mean IoU``."""
    return " ".join(_ABBREVIATED.get(word, word) for word in metric.split("_"))


def is_share(metric: str) -> bool:
    """True for metrics that are read in percent."""
    name = metric.partition("/")[0]  # what follows is a class or an output, which may be called anything
    return any(word in name for word in _SHARES) and not any(word in name for word in _NOT_SHARES)


def is_fraction(metric: str) -> bool:
    """True for metrics from 0 to 1, 1 being perfect: shares, areas under curves, overlaps."""
    name = metric.partition("/")[0]
    return is_share(metric) or any(word in name for word in _FRACTIONS) or _COCO.fullmatch(name) is not None


def is_at_most_one(metric: str) -> bool:
    """True for metrics that no model can bring above 1: fractions, correlations, r2."""
    name = metric.partition("/")[0]
    return is_fraction(metric) or any(word in name for word in _AT_MOST_ONE)


def is_amount(metric: str) -> bool:
    """True for metrics in the unit of what is predicted: years, grams, degrees."""
    return metric.partition("/")[0] in _AMOUNTS


def amount(value: float, digits: int = 4) -> str:
    """``23.4``, ``12346``, ``1.2e-07``: enough digits to tell values apart, and no exponent where none is needed."""
    if value != 0 and not 1e-4 <= abs(value) < 1e12:
        return f"{value:.{digits}g}"
    whole = len(str(int(abs(value))))
    text = f"{value:.{max(0, digits - whole)}f}" if whole > 1 or abs(value) >= 1 else f"{value:.{digits}g}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def told(metric: str, value: float) -> str:
    """A metric's value as a person reads it: ``94.8 %``, ``0.813``, or ``2.31`` of its own unit."""
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return amount(value, 3) if is_amount(metric) else f"{round(value, 3) + 0.0:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with the n it rests on and its 95 % interval.

    value, low, high  the metric's own units (0..1 for rates); low and high are None where no interval was asked for
    n                 how many images (or label decisions) it was computed over
    method            how the interval was made: 'wilson', 'bootstrap', 'bootstrap over groups', or 'none'
    """

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    method: str = "none"

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4f} (n={self.n})"
        return f"{self.value:.4f} (95 % interval {self.low:.4f} to {self.high:.4f}, n={self.n})"

    def told(self, metric: str) -> str:
        """``94.8 % (95 % interval 90.0 to 97.3, n = 153)``, or the same in the units of ``metric``."""
        value = told(metric, self.value)
        if self.low is None or self.high is None:
            return f"{value} (n = {self.n})"
        low = told(metric, self.low).removesuffix(" %")
        high = told(metric, self.high).removesuffix(" %")
        return f"{value} (95 % interval {low} to {high}, n = {self.n})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Estimate:
        return cls(**fields)
