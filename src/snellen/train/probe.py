"""Probe first: how far a linear model gets on frozen features, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.sample import Batch
from snellen.data.image_sets import ImageSet
from snellen.tasks.base import Task
from snellen.train.features import frozen_features, pixel_features

BySplit = Mapping[str, Tensor]  # float32 [n, d], in the order of the split's images


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fitted linear model and what it predicts.

    head         weights by name in the network; only for a probe on the backbone's features are they the network's
    predictions  by split, in the order of the split's images
    losses       mean loss by split, in the same terms as the network's
    features     what it sees: those of the frozen backbone, or the pixels
    stages       features on the way there, by stage of the backbone; empty for pixels
    """

    head: Mapping[str, Tensor]
    predictions: Mapping[str, Sequence[Any]]
    losses: Mapping[str, float]
    features: BySplit
    stages: Mapping[int, BySplit] = field(default_factory=dict)


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
    if task.dense:
        return None
    together = ImageSet(
        records=[record for images in sides.values() for record in images.records],
        targets=[target for images in sides.values() for target in images.targets],
        store=sides["train"].store,
    )
    if plan.probe == "features":
        ordered = [hashes[record.id] for record in together.records]
        found = frozen_features(model, together, ordered, plan, cache, console)
        stages = {stage: _by_split(each, sides) for stage, each in found.items()}
        features = stages[max(stages)]
    else:
        features, stages = _by_split(pixel_features(together, plan), sides), {}
    head = task.fit_probe(features["train"], sides["train"].targets, group_names(sides["train"]), plan)
    return None if head is None else probe_with(head, features, stages, task, sides, plan)


def refit(probe: Probe, task: Task[Any], sides: Mapping[str, ImageSet], plan: Plan) -> Probe:
    """The probe as ``plan`` wants it now, on the same features: its weights of the classes may have changed."""
    targets, groups = sides["train"].targets, group_names(sides["train"])
    head = task.fit_probe(probe.features["train"], targets, groups, plan)
    return probe if head is None else probe_with(head, probe.features, probe.stages, task, sides, plan)


def probe_with(
    head: Mapping[str, Tensor],
    features: BySplit,
    stages: Mapping[int, BySplit],
    task: Task[Any],
    sides: Mapping[str, ImageSet],
    plan: Plan,
) -> Probe:
    """What a fitted ``head`` makes of ``features``, on every side."""
    outputs = {split: features[split] @ head["head.weight"].T + head["head.bias"] for split in sides}
    return Probe(
        head=head,
        predictions={split: task.decode(each) for split, each in outputs.items()},
        losses={split: _loss(task, each, sides[split], plan) for split, each in outputs.items()},
        features=features,
        stages=stages,
    )


def group_names(images: ImageSet) -> list[str]:
    """For each image what must not be parted from it; an image that stands alone is its own group."""
    return [record.unit for record in images.records]


def _by_split(features: Tensor, sides: Mapping[str, ImageSet]) -> BySplit:
    ends = list(accumulate(len(images) for images in sides.values()))
    return dict(zip(sides, features.tensor_split(ends[:-1]), strict=True))


def _loss(task: Task[Any], logits: Tensor, images: ImageSet, plan: Plan) -> float:
    batch = Batch(images=logits, targets=images.targets, ids=[record.id for record in images.records])
    return float(sum(task.criterion(logits, batch, plan).values()))
