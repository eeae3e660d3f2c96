"""The checks of a training's curves."""

from __future__ import annotations

from snellen.core.finding import Check
from snellen.doctor.case import Case
from snellen.doctor.curves.falling import flat_loss, rate_fell_early, still_falling
from snellen.doctor.curves.rising import loss_not_finite, overfitting, unstable
from snellen.doctor.curves.selection import selection_bias
from snellen.doctor.curves.spikes import loss_spikes

CURVE_CHECKS: tuple[Check[Case], ...] = (
    loss_not_finite,
    unstable,
    flat_loss,
    overfitting,
    loss_spikes,
    rate_fell_early,
    still_falling,
    selection_bias,
)
