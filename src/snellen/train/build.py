"""The network and its plan, built from what is known of the data and measured on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snellen.core.config import Config
from snellen.core.device import available_cores, choose_device, has_fast_bf16
from snellen.core.plan import Plan
from snellen.core.record import SPLITS
from snellen.core.seeds import keyed_seed
from snellen.data.image_sets import ImageSet
from snellen.data.loader import stack
from snellen.data.store import ImageStore
from snellen.data.survey import Survey, task_of
from snellen.evaluate import places_of
from snellen.nn.catalog import Provenance
from snellen.nn.freeze import freeze_stages, train_mode
from snellen.nn.placement import to_layout
from snellen.nn.precision import arithmetic, fastest, train_depthwise_in_fp32
from snellen.tasks.base import Task, create_task
from snellen.train.resolve import ModelChoice, TrainingFacts, resolve

_TRIAL_PIXELS = 8 * 224 * 224  # in a measurement of speed: a second or two for a light network
_TRIAL_SCENES = 8 * 448 * 352  # where batches are small and images large: of two images fp32 came out ahead, wrongly


def sides_of(survey: Survey, task: Task[Any], store: ImageStore) -> dict[str, ImageSet]:
    """The image sets of the splits that have images."""
    sides: dict[str, ImageSet] = {}
    for split in SPLITS:
        records = survey.side(split)
        if records:
            targets = [task.target(record) for record in records]
            sides[split] = ImageSet(records=records, targets=targets, store=store, places=places_of(task))
    return sides


def make_plan(config: Config, choice: ModelChoice, survey: Survey, store: ImageStore) -> tuple[Plan, nn.Module]:
    """The plan, but for the arithmetic of the training step, and the network with its starting weights."""
    task = create_task(task_of(config, survey.listing), survey.manifest.classes)
    train = survey.side("train")
    facts = facts_of(config, survey, task)
    scale = task.target_scale([task.target(record) for record in train])
    task.check_settings(config)
    if config.loss != "auto":
        task.check_loss(config.loss)
    draft = replace(resolve(config, choice, facts), **scale)
    model, provenance = build_network(draft, task)
    seconds = _inference_seconds(
        config, model, draft, [store.prepared(record) for record in train[: _trial_images(draft)]]
    )
    facts = replace(facts, provenance=provenance, inference_seconds=seconds)
    return replace(resolve(config, choice, facts), **scale), model


def facts_of(config: Config, survey: Survey, task: Task[Any]) -> TrainingFacts:
    """What is known before anything is measured."""
    mean, std = _channel_statistics(survey)
    return TrainingFacts(
        task=task.name,
        classes=survey.manifest.classes,
        losses=task.loss_names,
        dense=task.dense,
        architectures=task.architectures,
        data_digest=survey.manifest.digest,
        num_train=len(survey.side("train")),
        channel_mean=mean,
        channel_std=std,
        device=choose_device(config.device),
        cores=available_cores(),
    )


def build_network(plan: Plan, task: Task[Any]) -> tuple[nn.Module, Provenance]:
    """The network that ``plan`` describes with its starting weights, on its device; sets the thread count."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(keyed_seed("weights", plan.seed))
    model = task.build_model(plan)
    provenance = task.load_weights(model, plan)
    model = to_layout(model.to(torch.device(plan.device)), plan.channels_last)
    train_depthwise_in_fp32(model)
    return model, provenance


def _channel_statistics(survey: Survey) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel over the training images, each image weighing the same; 0..1."""
    facts = [survey.facts[record.id] for record in survey.side("train")]
    mean = np.mean([fact.channel_means for fact in facts], axis=0)
    variance = np.mean([fact.channel_squares for fact in facts], axis=0) - mean**2
    std = np.sqrt(np.maximum(variance, 1e-4))
    return tuple(float(value) for value in mean), tuple(float(value) for value in std)  # type: ignore[return-value]


def _inference_seconds(config: Config, model: nn.Module, plan: Plan, images: list[np.ndarray]) -> dict[str, float]:
    device = torch.device(plan.device)
    if config.precision != "auto" or not has_fast_bf16(device):
        return {}
    pixels = _pixels(images, plan)
    model.eval()

    def infer(precision: str) -> Callable[[], object]:
        def once() -> object:
            with torch.inference_mode(), arithmetic(device, precision):
                return float(_total(model(pixels)))

        return once

    return fastest({"fp32": infer("fp32"), "bf16": infer("bf16")}, device)


def training_seconds(config: Config, model: nn.Module, plan: Plan, train: ImageSet) -> dict[str, float]:
    """Seconds of a forward and backward pass in either arithmetic. Leaves no gradient and no statistic behind."""
    device = torch.device(plan.device)
    if config.precision != "auto" or not has_fast_bf16(device) or len(train) < 2:
        return {}
    pixels = _pixels([train.store.prepared(record) for record in train.records[: _trial_images(plan)]], plan)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze_stages(model.get_submodule("backbone"), plan.frozen_stages)  # the loop decides anew what learns
    train_mode(model)

    def step(precision: str) -> Callable[[], object]:
        def once() -> object:
            with arithmetic(device, precision):
                total = _total(model(pixels))
            total.backward()  # type: ignore[no-untyped-call]
            return float(total.detach())

        return once

    seconds = fastest({"fp32": step("fp32"), "bf16": step("bf16")}, device)
    model.zero_grad()
    model.load_state_dict(before)
    return seconds


def _total(outputs: Any) -> Tensor:
    """One number that depends on every output, whatever the network's outputs look like."""
    if isinstance(outputs, Tensor):
        return outputs.float().square().mean()
    return torch.stack([_total(each) for each in outputs]).sum()


def _trial_images(plan: Plan) -> int:
    width, height = plan.preprocessing.input_size
    pixels = _TRIAL_PIXELS if not plan.architecture else _TRIAL_SCENES
    return max(2, min(plan.batch_size, pixels // (width * height)))


def _pixels(images: list[np.ndarray], plan: Plan) -> Tensor:
    layout = torch.channels_last if plan.channels_last else torch.contiguous_format
    return stack(images).to(torch.device(plan.device)).contiguous(memory_format=layout)
