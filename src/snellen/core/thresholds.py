"""How sure a check must be before it speaks: every calibrated threshold, in one file that is frozen by its hash.

The statistical checks of a project share one budget of false alarms: the probability that any of them speaks about a
project in which all is well is at most ``BUDGET``. Each has an equal part of it, whichever others run, and divides that
part among its own looks (Bonferroni). What follows with certainty from the data or the code spends nothing.

A check needs both: a p-value below its part, and an effect of at least its floor. Either alone does not speak.
"""

from __future__ import annotations

from types import MappingProxyType

BUDGET = 0.01

STATISTICAL = (
    # audit: labels
    "suspect-labels",
    "labels-carry-nothing",
    "labels-shifted",
    "class-map-permuted",
    "classes-confused",
    # audit: sides and shortcuts
    "identity-leak",
    "bursts-across-splits",
    "sides-differ",
    "class-shares-differ",
    "outliers",
    "order-not-random",
    "shortcut-border",
    "shortcut-compression",
    # audit: places
    "boxes-off-edges",
    "boxes-of-turned-images",
    "masks-off-edges",
    "suspect-boxes",
    "suspect-masks",
    # doctor: experiments
    "not-learning",
    "rate-too-high",
    "rate-too-low",
    "decay-too-strong",
    "stopped-too-early",
    "batch-norm-statistics",
    "inputs-differ",
    "inputs-not-scaled",
    "channels-swapped",
    "bad-initialisation",
    "network-unfit",
    "batch-too-small",
    "batch-too-large",
    "imbalance",
    "augmentation-hurts",
    "fine-tuning-hurts",
    "dropout-too-strong",
    "batches-in-a-bad-order",
    "clipping-too-strong",
    "step-does-not-fit",
    "loss-unfit",
    "batch-norms-stand-still",
    "schedule-unfit",
    "unknown-cause",
    "inputs-ignored",
    "train-and-eval-disagree",
    "augmentation-changes-classes",
    # doctor: curves and predictions
    "overfitting",
    "loss-spikes",
    "metric-misleads",
    "threshold-unfit",
    "miscalibrated",
    "failing-slice",
    "class-collapse",
    "high-variance",
    "data-mismatch",
    "still-falling",
    "rate-fell-early",
    "unstable",
    "correlated-errors",
    "more-data-would-help",
)

FLOORS = MappingProxyType(
    {
        "accuracy": 0.02,  # of all images: a smaller difference is not worth a word
        "warning": 0.05,  # what a change must gain, in every seed, to be more than good to know
        "serious": 0.20,
        "unnamed": 0.10,  # what a usual training must gain where no single change explains it
        "cure": 0.01,  # of the score: the least gain by which a treatment counts as one
        "loss": 0.05,  # of the loss it is compared with
    }
)


def alpha(code: str, looks: int = 1) -> float:
    """The largest p-value with which the check ``code`` may speak when it looks ``looks`` times.

    Raises KeyError for a check that has no part in the budget.
    """
    if code not in STATISTICAL:
        raise KeyError(f"the check '{code}' has no part in the budget: add it to STATISTICAL")
    return BUDGET / len(STATISTICAL) / max(1, looks)
