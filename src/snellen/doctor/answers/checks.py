"""The checks of a model's answers."""

from __future__ import annotations

from snellen.core.finding import Check
from snellen.doctor.answers.balance import class_collapse, metric_misleads, threshold_unfit
from snellen.doctor.answers.confidence import miscalibrated
from snellen.doctor.answers.failing import failing_slice
from snellen.doctor.answers.sides import data_mismatch
from snellen.doctor.case import Case

ANSWER_CHECKS: tuple[Check[Case], ...] = (
    class_collapse,
    metric_misleads,
    failing_slice,
    data_mismatch,
    threshold_unfit,
    miscalibrated,
)
