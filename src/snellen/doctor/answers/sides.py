"""Validation and test should be of one kind: then they are right equally often, up to chance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.answers.independent import independent
from snellen.doctor.case import Case
from snellen.metrics.interval import wilson

_FEWEST = 20  # images of each side


def data_mismatch(case: Case) -> Iterator[Finding]:
    """The share of right answers on validation and on test differs beyond chance, by Fisher's exact test."""
    if "val" not in case.answers or "test" not in case.answers:
        return
    from scipy.stats import fisher_exact

    right, n = {}, {}
    for side in ("val", "test"):
        told = case.answers[side]
        rows = independent(told, case.seed)
        right[side], n[side] = int(told.correct[rows].sum()), len(rows)
    if min(n.values()) < _FEWEST:
        return
    table = np.array([[right[side], n[side] - right[side]] for side in ("val", "test")])
    p = float(fisher_exact(table).pvalue)
    shares = {side: right[side] / n[side] for side in n}
    difference = shares["val"] - shares["test"]
    if p > alpha("data-mismatch") or abs(difference) < FLOORS["accuracy"]:
        return
    intervals = {side: [round(end, 4) for end in wilson(right[side], n[side])] for side in n}
    yield Finding(
        code="data-mismatch",
        severity="warning",
        message=f"{shares['val']:.1%} of {n['val']} validation images are answered rightly and {shares['test']:.1%} of "
        f"{n['test']} test images: more than chance explains.",
        evidence={"p": p, "difference": difference, "images": n, "accuracy": shares, "intervals": intervals},
        advice="Find out how the two sides differ (source, time, camera, classes); until then trust the lower number."
        if difference > 0
        else "Look for test images that training has seen, and for what makes them easier than validation.",
        certainty="observed",
    )
