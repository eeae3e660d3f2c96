"""Tiny images: a small network from scratch, or a pretrained one on enlarged copies? Measured on training images.

"Do you need these for a two-class set?" A network that has seen a million photographs knows a frog of 32 pixels and has
nothing to say about a digit of 8, so neither habit is right for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores, choose_device, has_fast_bf16
from snellen.core.estimate import Estimate, spoken
from snellen.core.estimate import told as as_told
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.core.seeds import keyed_permutation
from snellen.data.image_sets import ImageSet
from snellen.data.loader import EVALUATION_BATCH, evaluation_batches
from snellen.data.store import ImageStore
from snellen.data.survey import Survey, task_of
from snellen.evaluate import score
from snellen.nn.catalog import EMBEDDED_MODEL
from snellen.nn.folding import for_inference
from snellen.nn.placement import to_device
from snellen.nn.precision import arithmetic
from snellen.tasks.base import Task, create_task
from snellen.train.build import build_network
from snellen.train.features import pixel_features
from snellen.train.resolve import ModelChoice, TrainingFacts, choose_model, resolve

ENLARGED_SIDE = 128  # pixels: a third of the cost of 224, and most of its accuracy on images of 32 pixels
_MOST_IMAGES = 600  # a second or two of features
_FEWEST_JUDGED = 25  # fewer could only show what is plain to see
_JUDGED = 3  # one image in so many is judged, the others are learnt from


def size_to_data(
    config: Config, choice: ModelChoice, survey: Survey, store: ImageStore, console: Console
) -> ModelChoice:
    """``choice`` of the small network, or the pretrained one instead, where its features are shown to be better.

    A linear model is fitted on some of the training images twice, on their pixels and on the pretrained network's
    features of enlarged copies, and judged on others of them. Validation and test images are not looked at.
    """
    enlarged = _enlarged(config, choice)
    task = create_task(task_of(config, survey.listing), survey.manifest.classes)
    records = _sample(survey.side("train"), config.seed)
    if len(records) < _FEWEST_JUDGED * _JUDGED:
        return choice
    with console.progress("Trying pretrained features", 1) as advance:
        asked = Config.of(data=config.data, seed=config.seed, threads=config.threads, device=config.device)
        plan = plan_to_look(asked, enlarged, task, _MOST_IMAGES)
        network, _ = build_network(plan, task)
        images = _images(records, task, ImageStore(preprocessing=enlarged.preprocessing, budget=0, keep_sources=False))
        features = _judged(_features(network, images, plan), images, task, plan)
        pixels = _judged(pixel_features(_images(records, task, store), plan), images, task, plan)
        advance(1, 1)
    if features is None or pixels is None:
        return choice
    name = task.headline
    told = f"a linear model on its features gets {spoken(name)} {features.told(name)} on held-out training "
    told += f"images, on pixels {as_told(name, pixels.value)}"
    if features.low is None or features.low <= pixels.value:
        return replace(choice, reasons={**choice.reasons, "model": f"{_small(choice)}; {EMBEDDED_MODEL}: {told}"})
    size = f"{ENLARGED_SIDE} pixels: the network's features need room"
    return replace(enlarged, reasons={**enlarged.reasons, "model": told, "input_size": size})


def _small(choice: ModelChoice) -> str:
    return choice.reasons.get("model", "as asked")


def _enlarged(config: Config, choice: ModelChoice) -> ModelChoice:
    size = (ENLARGED_SIDE, ENLARGED_SIDE) if config.input_size == "auto" else config.input_size
    asked = config.model_copy(update={"model": EMBEDDED_MODEL, "input_size": size, "fit": "squash"})
    return choose_model(asked, [size])


def _sample(records: Sequence[Record], seed: int) -> list[Record]:
    order = keyed_permutation(len(records), "sizing", seed)[:_MOST_IMAGES]
    return [records[i] for i in order]


def _images(records: Sequence[Record], task: Task[object], store: ImageStore) -> ImageSet:
    return ImageSet(records=records, targets=[task.target(record) for record in records], store=store)


def plan_to_look(config: Config, choice: ModelChoice, task: Task[object], num_images: int) -> Plan:
    """A plan for networks that look at images and learn nothing: nothing in it is measured."""
    grey = (0.5, 0.5, 0.5)
    facts = TrainingFacts(
        task=task.name,
        classes=task.classes,
        losses=task.loss_names,
        data_digest="",
        num_train=num_images,
        channel_mean=grey,
        channel_std=grey,
        device=choose_device(config.device),
        cores=available_cores(),
    )
    plan = resolve(config, choice, facts)
    return replace(plan, precision="bf16" if has_fast_bf16(torch.device(plan.device)) else "fp32")


def _features(network: nn.Module, images: ImageSet, plan: Plan) -> Tensor:
    """float32 [n, d]"""
    backbone, normalize = for_inference(network.get_submodule("backbone")), network.get_submodule("normalize")
    with torch.inference_mode(), arithmetic(torch.device(plan.device), plan.precision):
        batches = evaluation_batches(images, EVALUATION_BATCH, plan.workers)
        parts = [backbone(normalize(to_device(batch, plan).images)) for batch in batches]
    return torch.cat(parts).float().cpu().clone()


def _judged(features: Tensor, images: ImageSet, task: Task[object], plan: Plan) -> Estimate | None:
    """The headline of a linear model on images that it was not fitted on. None where nothing can be fitted."""
    cut = len(images) // _JUDGED
    groups = [record.unit for record in images.records]
    judged = set(groups[:cut])
    kept = [i for i in range(cut, len(images)) if groups[i] not in judged]
    if len(kept) < cut:  # a few large groups: whatever is left is too little to learn from
        return None
    head = task.fit_probe(features[kept], [images.targets[i] for i in kept], [groups[i] for i in kept], plan)
    if head is None:
        return None
    logits = features[:cut] @ head["head.weight"].T + head["head.bias"]
    return score(task, task.decode(logits), images.targets[:cut], groups=groups[:cut]).get(task.headline)
