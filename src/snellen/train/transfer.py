"""Which of the four cases of transfer this is, from what the probe measured: what is learnt, frozen, and learnt slowly.

    few images to judge by, like those of the weights     the linear probe
    few, unlike                                           a linear SVM on features of an earlier stage
    many, like                                            the head, then all layers, the earlier the slower
    many, unlike                                          the head, then all layers

The head comes first by being the probe: an epoch of it on varied images was not shown to add anything
(docs/measurements.md), and can be had with ``head_epochs``. Where the evidence is not clear, all layers learn: what is
shipped is then still chosen on validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.core.estimate import spoken, told
from snellen.core.plan import Plan
from snellen.data.image_sets import ImageSet
from snellen.evaluate import score
from snellen.nn.held_out import held_out
from snellen.nn.stages import num_stages
from snellen.tasks.base import Task
from snellen.train.probe import BySplit, Probe, group_names, probe_with

SHOWN = 6  # images that one model gets right and the other wrong, and none the other way: exact McNemar, p = 0.03
_LOW_ERROR = 0.1  # share of wrong images above which halving it is worth trying, even where it could not be shown
_SPAN = 0.1  # learning rate of the first layers beside the last (Howard & Ruder 2018; fastai's slice(lr / 10, lr))
# Settings that say nothing where nothing is trained: whoever gives one wants training.
_OF_TRAINING = (
    *("epochs", "head_epochs", "transfer", "frozen_stages", "layer_decay", "lr", "body_lr", "optimizer", "lookahead"),
    *("schedule", "warmup_steps", "accumulate", "loss", "l1", "l2", "clip_norm", "label_smoothing", "ema", "patience"),
    *("augment", "mixup", "cutmix", "dropout", "weight_decay", "freeze_norm"),
)
_MEANT = {"probe": "the linear probe", "svm": "a linear SVM", "full": "all layers learn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEvidence:
    """How well a linear model on each stage's pooled outputs does on training images that it was not fitted on.

    values    the task's headline by stage, ascending; trivial: that of the most frequent answer
    wrong     share of the images that are wrong, by stage, 0..1
    gain_low  lower end of the 95 % interval of what the best stage has over the last; 0 where the last is the best
    """

    metric: str
    values: Mapping[int, float]
    trivial: float
    wrong: Mapping[int, float]
    num_images: int
    gain_low: float

    @property
    def last(self) -> int:
        return max(self.values)

    @property
    def strongest(self) -> int:
        return max(self.values, key=lambda stage: self.values[stage])

    @property
    def is_like(self) -> bool:
        """No earlier stage is shown to be better than the last: what the weights were made for helps here too."""
        return self.gain_low <= 0

    @property
    def best(self) -> int:
        """The last stage, unless an earlier one is shown to be better."""
        return self.last if self.is_like else self.strongest

    def told(self, count: int) -> str:
        *first, last = [told(self.metric, value) for value in self.values.values()]
        *places, end = [str(stage + 1) for stage in self.values]
        name = spoken(self.metric)
        return (
            f"linear models on stages {', '.join(places)} and {end} of {count} reach {', '.join(first)} and {last} "
            f"{name} on {self.num_images} training images that they were not fitted on"
        )


def settle_transfer(
    config: Config, plan: Plan, task: Task[Any], model: nn.Module, sides: Mapping[str, ImageSet], probe: Probe
) -> tuple[Plan, list[str]]:
    """``plan`` with transfer, frozen stages and layer decay settled, and the evidence in sentences.

    What was asked for stays. Raises ConfigError where that cannot be.
    """
    count = num_stages(model.get_submodule("backbone"))
    if plan.frozen_stages > count:
        raise ConfigError(f"frozen_stages = {plan.frozen_stages}, but '{plan.model}' has {count}: use 0 to {count}")
    if plan.transfer == "svm" and not task.parts_classes:
        raise ConfigError(
            f"transfer = 'svm' parts classes, and the task '{task.name}' has none: use 'probe', 'head' or 'full'"
        )
    if not plan.pretrained or not probe.stages or plan.transfer in ("probe", "head"):
        return plan, []  # all that there is to settle was asked for
    evidence = stage_evidence(task, sides, probe.stages, plan)
    if evidence is None:
        return replace(plan, feature_stage=max(probe.stages)) if plan.transfer == "svm" else plan, []
    sentences = [f"Transfer: {evidence.told(count)}."]
    if _is_open(config, plan):
        choice, reason = _choose(task, sides, probe, evidence)
        plan = _chosen(plan, choice, reason)
        sentences.append(f"Chosen: {_MEANT[choice]}, since {reason}.")
    if plan.transfer == "svm":
        plan = replace(plan, feature_stage=evidence.strongest)
    if plan.transfer == "full":
        plan = _rates(config, plan, evidence, count)
    return plan, sentences


def _is_open(config: Config, plan: Plan) -> bool:
    """Whether the choice is ours: not when training, or no training, was asked for."""
    usual = Config.model_construct(data="")
    asked = any(getattr(config, name) != getattr(usual, name) for name in _OF_TRAINING)
    return not asked and config.imbalance != "focal" and plan.transfer == "full"


def stage_evidence(
    task: Task[Any], sides: Mapping[str, ImageSet], stages: Mapping[int, BySplit], plan: Plan
) -> StageEvidence | None:
    """None where there is nothing to cross-validate: no linear head, a single group, or a metric that is undefined."""
    train = sides["train"]
    numbers, groups = task.numbers(train.targets), group_names(train)
    if numbers is None:
        return None
    values, wrong, samples = {}, {}, {}
    for stage, features in sorted(stages.items()):
        found = held_out(features["train"], numbers, groups, plan.seed)
        if found is None:
            return None
        truth = [train.targets[i] for i in found.indices]
        kept = [groups[i] for i in found.indices]
        predicted = task.decode(found.outputs)
        estimate = score(task, predicted, truth, intervals=False).get(task.headline)
        if estimate is None or not np.isfinite(estimate.value):
            return None
        values[stage] = estimate.value
        wrong[stage] = len(task.mistakes(predicted, truth, len(truth))) / len(truth)
        metrics = task.metrics()
        metrics.update(predicted, truth)
        samples[stage] = metrics.resampled(groups=kept, seed=plan.seed)[task.headline]
    best, last = max(values, key=lambda stage: values[stage]), max(values)
    trivial = score(task, task.majority(train.targets, len(truth)), truth, intervals=False).get(task.headline)
    return StageEvidence(
        metric=task.headline,
        values=values,
        trivial=0.0 if trivial is None or not np.isfinite(trivial.value) else trivial.value,
        wrong=wrong,
        num_images=len(truth),
        gain_low=_low(samples[best] - samples[last], len(values) - 1),
    )


def _low(gains: NDArray[np.float64], others: int) -> float:
    """The lower end of their 95 % interval, by Bonferroni for the best of ``others``, which these images picked.

    A resample in which the metric is undefined does not count.
    """
    defined = gains[np.isfinite(gains)]
    return float(np.quantile(defined, 0.025 / max(1, others))) if len(defined) else 0.0


def _choose(task: Task[Any], sides: Mapping[str, ImageSet], probe: Probe, evidence: StageEvidence) -> tuple[str, str]:
    """(transfer, why)"""
    like = evidence.is_like
    judges = max((len(images) for split, images in sides.items() if split != "train"), default=0)
    share = evidence.wrong[evidence.best]
    errors = share * judges
    if like and "val" in sides:
        truth = sides["val"].targets
        wrong = len(task.mistakes(probe.predictions["val"], truth, len(truth)))
        errors, share = max(errors, wrong), max(share, wrong / len(truth))
    # Layers that were made for other images may have much to learn: there, all errors might go.
    hope, gone = ("halves this", errors / 2) if like else ("leaves none", errors)
    if gone < SHOWN and share <= _LOW_ERROR and (like or task.parts_classes):
        model = "the linear probe" if like else f"a linear model on stage {evidence.best + 1}"
        reason = (
            f"{model} gets about {errors:.0f} of {judges} images wrong, and that training {hope} could not be shown: "
            f"it takes {SHOWN} images that only one of two models gets right"
        )
        return "probe" if like else "svm", reason
    if like:
        return "full", "the last stage is the best one: these images are like those that the weights were made for"
    return "full", f"stage {evidence.best + 1} is better than the last: the later ones do not suit these images"


def _chosen(plan: Plan, transfer: str, reason: str) -> Plan:
    reasons = {**plan.reasons, "transfer": reason}
    if transfer == "full":
        return replace(plan, transfer=transfer, reasons=reasons)
    for name in ("head_epochs", "epochs", "frozen_stages", "layer_decay"):  # nothing is trained
        reasons.pop(name, None)
    return replace(plan, transfer=transfer, head_epochs=0, epochs=0, reasons=reasons)


def _rates(config: Config, plan: Plan, evidence: StageEvidence, count: int) -> Plan:
    """Early stages are general (Yosinski et al., 2014): like images need them as they are, unlike ones may not."""
    frozen, decay, reasons = plan.frozen_stages, plan.layer_decay, dict(plan.reasons)
    if config.frozen_stages == "auto":
        frozen = _general_stages(evidence) if evidence.is_like else 0
        reasons["frozen_stages"] = (
            "up to there a linear model has not half of what the last stage has over the most frequent answer: these "
            "stages are general"
            if frozen
            else "all of them learn"
        )
    if config.layer_decay == "auto" and evidence.is_like:
        decay = round(_SPAN ** (1 / max(1, count - frozen - 1)), 3)
        reasons["layer_decay"] = f"the first stage that learns at {_SPAN:g} of the last one's rate"
    elif config.layer_decay == "auto":
        decay, reasons["layer_decay"] = 1.0, "the same rate for all: the early ones suit these images no better"
    return replace(plan, frozen_stages=frozen, layer_decay=decay, reasons=reasons)


def _general_stages(evidence: StageEvidence) -> int:
    """How many stages come before the first that has half of what the last has over the trivial answer."""
    half = (evidence.values[evidence.last] + evidence.trivial) / 2
    before = 0
    for stage, value in evidence.values.items():
        if value > half:
            break
        before = stage + 1
    return before


def svm_probe(task: Task[Any], sides: Mapping[str, ImageSet], probe: Probe, plan: Plan) -> Probe:
    """A linear SVM on the stage that ``plan.feature_stage`` names, in the probe's place: the head of the network."""
    features = probe.stages[plan.feature_stage]
    targets, groups = sides["train"].targets, group_names(sides["train"])
    head = task.fit_svm(features["train"], targets, groups, plan)
    return probe_with(head, features, probe.stages, task, sides, plan)
