"""Probe first: how far a linear model gets on frozen features, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.data.loader import ImageSet
from snellen.tasks.base import Task
from snellen.train.features import frozen_features, pixel_features


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fitted linear model and what it predicts.

    head         weights by name in the network; only for a probe on the backbone's features are they the network's
    predictions  by split, in the order of the split's images
    losses       mean loss by split, in the same terms as the network's
    """

    head: Mapping[str, Tensor]
    predictions: Mapping[str, Sequence[Any]]
    losses: Mapping[str, float]


def run_probe(
    model: nn.Module,
    task: Task[Any],
    sides: Mapping[str, ImageSet],
    hashes: Mapping[str, str],
    plan: Plan,
    cache: Path,
    console: Console,
) -> Probe | None:
    """Fit on the training side alone, predict every side. None when the task has no linear head."""
    together = ImageSet(
        records=[record for images in sides.values() for record in images.records],
        targets=[target for images in sides.values() for target in images.targets],
        store=sides["train"].store,
    )
    if plan.probe == "features":
        ordered = [hashes[record.id] for record in together.records]
        features = frozen_features(model, together, ordered, plan, cache, console)
    else:
        features = pixel_features(together, plan)
    ends = list(accumulate(len(images) for images in sides.values()))
    parts = dict(zip(sides, features.tensor_split(ends[:-1]), strict=True))
    groups = [record.group or record.id for record in sides["train"].records]
    head = task.fit_probe(parts["train"], sides["train"].targets, groups, plan.seed)
    if head is None:
        return None
    predictions, losses = {}, {}
    for split, images in sides.items():
        logits = parts[split] @ head["head.weight"].T + head["head.bias"]
        predictions[split] = task.decode(logits)
        losses[split] = _loss(task, logits, images, plan)
    return Probe(head=head, predictions=predictions, losses=losses)


def _loss(task: Task[Any], logits: Tensor, images: ImageSet, plan: Plan) -> float:
    from snellen.core.sample import Batch

    batch = Batch(images=logits, targets=images.targets, ids=[record.id for record in images.records])
    return float(sum(task.criterion(logits, batch, plan).values()))
