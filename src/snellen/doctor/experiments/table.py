"""Every experiment on one model, the cheapest first."""

from __future__ import annotations

from snellen.core.finding import Check
from snellen.doctor.case import Case
from snellen.doctor.experiments.augmentation import augmentation_changes_classes
from snellen.doctor.experiments.batch_norms import batch_norm_statistics
from snellen.doctor.experiments.class_map import class_map_permuted
from snellen.doctor.experiments.fine_tuning import fine_tuning_hurts
from snellen.doctor.experiments.inputs import inputs_differ, inputs_ignored
from snellen.doctor.experiments.judged_inputs import inputs_differ_by_loss, inputs_ignored_by_loss
from snellen.doctor.experiments.judged_labels import labels_carry_nothing_by_loss, labels_shifted_by_loss
from snellen.doctor.experiments.judged_learning import (
    batch_norm_statistics_by_loss,
    cannot_overfit_by_loss,
    high_variance_by_loss,
)
from snellen.doctor.experiments.labels import labels_carry_nothing, labels_shifted
from snellen.doctor.experiments.learning import high_variance, not_learning, validation_above_training_explained
from snellen.doctor.experiments.marks import answer_hangs_on_a_mark
from snellen.doctor.experiments.overfit import cannot_overfit

EXPERIMENTS: tuple[Check[Case], ...] = (
    class_map_permuted,
    not_learning,
    high_variance,
    validation_above_training_explained,
    inputs_ignored,
    answer_hangs_on_a_mark,
    inputs_differ,
    batch_norm_statistics,
    augmentation_changes_classes,
    labels_shifted,
    labels_carry_nothing,
    fine_tuning_hurts,
    cannot_overfit,
    inputs_ignored_by_loss,
    inputs_differ_by_loss,
    batch_norm_statistics_by_loss,
    high_variance_by_loss,
    labels_shifted_by_loss,
    labels_carry_nothing_by_loss,
    cannot_overfit_by_loss,
)
