"""Features of the frozen backbone: computed once for every image, and kept between runs while nothing changes.

One pass gives what the backbone returns and, averaged over positions, the outputs of three stages on the way there:
they tell how far down the network these images are still well described (train/transfer.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from snellen.core.checkpoint import load_tensors, save_tensors
from snellen.core.console import Console
from snellen.core.errors import RunError, StorageError
from snellen.core.plan import Plan
from snellen.data.image_sets import ImageSet
from snellen.data.loader import EVALUATION_BATCH, evaluation_batches
from snellen.nn.folding import for_inference
from snellen.nn.placement import to_device
from snellen.nn.precision import arithmetic
from snellen.nn.stages import num_stages, stage_features

_PIXEL_SIDE = 16  # what a linear model on pixels looks at: more would be slow and no better
_MOST_KEPT = 2**30  # bytes
_WATCHED = 4  # stages
_VERSION = 2  # of how features are computed: higher when the same network would give others

Features = dict[int, Tensor]  # by stage, float32 [n, d]; the last are what the backbone returns


def frozen_features(
    model: nn.Module, images: ImageSet, hashes: Sequence[str], plan: Plan, cache: Path, console: Console
) -> Features:
    """Of the stages that are watched, from the cache when it holds those of the same files through the same weights.

    hashes: sha256 of each file. An unwritable cache is no error: the features are computed again next time.
    They are computed and kept in the order of the hashes: the folds of one data set have them from each other.
    """
    order = sorted(range(len(images)), key=hashes.__getitem__)
    places = torch.tensor(order).argsort()
    path = cache / "features" / f"{_key(model, [hashes[i] for i in order], plan)}.safetensors"
    try:
        kept, _ = load_tensors(path)
        console.say(f"  features of {len(images)} images from the cache")
        return {int(stage): kept[stage][places] for stage in sorted(kept, key=int)}
    except RunError:
        ordered = replace(
            images, records=[images.records[i] for i in order], targets=[images.targets[i] for i in order]
        )
        features = _compute(model, ordered, plan, console)
    if sum(each.nbytes for each in features.values()) <= _MOST_KEPT:
        try:
            save_tensors(path, {str(stage): each for stage, each in features.items()}, {"version": 1})
        except StorageError as error:
            console.say(f"  features are not kept: {error}")
    return {stage: each[places] for stage, each in features.items()}


def watched_stages(backbone: nn.Module) -> list[int]:
    """At most four of its stages, evenly spread, the last among them."""
    count = num_stages(backbone)
    return sorted({math.ceil(count * part / _WATCHED) - 1 for part in range(1, _WATCHED + 1)})


def _compute(model: nn.Module, images: ImageSet, plan: Plan, console: Console) -> Features:
    device = torch.device(plan.device)
    backbone, normalize = for_inference(model.get_submodule("backbone")), model.get_submodule("normalize")
    stages = watched_stages(backbone)
    parts: list[Features] = []
    done = 0
    with (
        torch.inference_mode(),
        arithmetic(device, plan.precision),
        console.progress("Frozen features", len(images)) as advance,
    ):
        for batch in evaluation_batches(images, EVALUATION_BATCH, plan.workers):
            found = stage_features(backbone, normalize(to_device(batch, plan).images), stages)
            parts.append({stage: each.float().cpu() for stage, each in found.items()})
            done += len(batch)
            advance(done, len(images))
    return {stage: torch.cat([part[stage] for part in parts]).clone() for stage in stages}


def pixel_features(images: ImageSet, plan: Plan) -> Tensor:
    """float32 [n, d] in 0..1: the images themselves, for data that no pretrained network suits."""
    parts = []
    for batch in evaluation_batches(images, 256, plan.workers):
        pixels = batch.images.float() / 255
        if max(pixels.shape[2:]) > _PIXEL_SIDE:
            pixels = nn.functional.adaptive_avg_pool2d(pixels, _PIXEL_SIDE)
        parts.append(pixels.flatten(1))
    return torch.cat(parts)


def _key(model: nn.Module, hashes: Sequence[str], plan: Plan) -> str:
    digest = hashlib.sha256()
    backbone = model.get_submodule("backbone").state_dict()
    for name in sorted(backbone):
        digest.update(name.encode())
        digest.update(backbone[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    # Arithmetic differs in the last bits between builds, thread counts and processors.
    stages = watched_stages(model.get_submodule("backbone"))
    of_network = (_VERSION, stages, plan.model, plan.norm, plan.activation, plan.preprocessing)
    conditions = (*of_network, plan.precision, plan.device, plan.threads, torch.__version__)
    digest.update(repr(conditions).encode())
    digest.update("".join(hashes).encode())
    return digest.hexdigest()
