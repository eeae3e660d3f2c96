"""A long training made short: the same recipe over fewer epochs, or over fewer images where one epoch is too long.

The rates stay, and so does the shape of their schedule: warm-up, peak and fall have the same shares of the steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from snellen.core.plan import Plan
from snellen.core.seeds import keyed_permutation
from snellen.data.image_sets import ImageSet

FORK_SECONDS = 45.0  # that one training may take: a control, its changes and their seeds are about thirty of them
_FEWEST_IMAGES = 32


def share_of(events: Sequence[Mapping[str, Any]], plan: Plan) -> float:
    """How much of a whole training fits into the time of a fork, 0..1, by what the run wrote down; 1: all of it."""
    steps = [each["seconds"] for each in events if each["event"] == "step" and "seconds" in each]
    epochs = [each["seconds"] for each in events if each["event"] == "epoch" and "seconds" in each]
    if not steps or not epochs:
        return 1.0
    whole = (epochs[-1] - steps[0]) / len(epochs) * (plan.head_epochs + plan.epochs)
    return min(1.0, FORK_SECONDS / whole) if whole > 0 else 1.0


def shortened(plan: Plan, share: float) -> Plan:
    """``plan`` with a ``share`` of its epochs, one at least in the phase that trains all, and of its warm-up."""
    epochs = max(1, round(plan.epochs * share)) if plan.epochs else 0
    head_epochs = max(0 if epochs else 1, round(plan.head_epochs * share))
    return replace(plan, epochs=epochs, head_epochs=head_epochs, warmup_steps=round(plan.warmup_steps * share))


def fewer(images: ImageSet, plan: Plan, short: Plan, share: float) -> ImageSet:
    """As many images, drawn by lot, as make ``short`` a ``share`` of the steps of ``plan``: mostly all of them."""
    left = share * (plan.epochs + plan.head_epochs) / (short.epochs + short.head_epochs)
    num = max(_FEWEST_IMAGES, round(left * len(images)))
    if num >= len(images):
        return images
    rows = sorted(keyed_permutation(len(images), "shortened", plan.seed)[:num].tolist())
    return replace(images, records=[images.records[i] for i in rows], targets=[images.targets[i] for i in rows])
