"""All contracts, the cheapest and most telling first."""

from __future__ import annotations

from snellen.core.finding import Check
from snellen.doctor.case import Case
from snellen.doctor.contracts.beginnings import initial_loss, symmetric_weights, weights_not_loaded
from snellen.doctor.contracts.data import (
    batches_not_shuffled,
    images_never_seen,
    inputs_constant,
    inputs_not_finite,
    targets_out_of_range,
)
from snellen.doctor.contracts.evaluation import (
    evaluation_in_training_mode,
    evaluation_not_deterministic,
    samples_mix,
)
from snellen.doctor.contracts.losses import loss_at_the_truth, softmax_before_loss
from snellen.doctor.contracts.metric import evaluation_by_batches, metric_at_the_truth
from snellen.doctor.contracts.parameters import optimizer_parameters, unreached_parameters
from snellen.doctor.contracts.schedule import schedule_length
from snellen.doctor.contracts.sides import (
    images_on_both_sides,
    pixels_differ,
    same_image_other_target,
    validation_varies,
)
from snellen.doctor.contracts.steps import frozen_parts_move, gradients_not_cleared, step_changes_nothing

CONTRACTS: tuple[Check[Case], ...] = (
    inputs_not_finite,
    targets_out_of_range,
    inputs_constant,
    loss_at_the_truth,
    softmax_before_loss,
    unreached_parameters,
    optimizer_parameters,
    step_changes_nothing,
    gradients_not_cleared,
    frozen_parts_move,
    samples_mix,
    evaluation_not_deterministic,
    symmetric_weights,
    weights_not_loaded,
    initial_loss,
    schedule_length,
    batches_not_shuffled,
    pixels_differ,
    validation_varies,
    images_on_both_sides,
    same_image_other_target,
    images_never_seen,
    metric_at_the_truth,
    evaluation_in_training_mode,
    evaluation_by_batches,
)
