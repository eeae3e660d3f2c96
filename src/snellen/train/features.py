"""Features of the frozen backbone: computed once for every image, and kept between runs while nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from snellen.core.checkpoint import load_tensors, save_tensors
from snellen.core.console import Console
from snellen.core.errors import RunError, StorageError
from snellen.core.plan import Plan
from snellen.data.loader import EVALUATION_BATCH, ImageSet, evaluation_batches
from snellen.nn.placement import to_device
from snellen.nn.precision import arithmetic

_PIXEL_SIDE = 16  # what a linear model on pixels looks at: more would be slow and no better
_MOST_KEPT = 2**30  # bytes


def frozen_features(
    model: nn.Module, images: ImageSet, hashes: Sequence[str], plan: Plan, cache: Path, console: Console
) -> Tensor:
    """float32 [n, d], from the cache when it holds those of the same files through the same weights.

    hashes: sha256 of each file. An unwritable cache is no error: the features are computed again next time.
    """
    path = cache / "features" / f"{_key(model, hashes, plan)}.safetensors"
    try:
        features = load_tensors(path)[0]["features"]
        console.say(f"  features of {len(images)} images from the cache")
        return features
    except RunError:
        features = _compute(model, images, plan, console)
    if features.nbytes <= _MOST_KEPT:
        try:
            save_tensors(path, {"features": features}, {"version": 1})
        except StorageError as error:
            console.say(f"  features are not kept: {error}")
    return features


def _compute(model: nn.Module, images: ImageSet, plan: Plan, console: Console) -> Tensor:
    device = torch.device(plan.device)
    model.eval()
    parts = []
    done = 0
    with (
        torch.inference_mode(),
        arithmetic(device, plan.precision),
        console.progress("Frozen features", len(images)) as advance,
    ):
        for batch in evaluation_batches(images, EVALUATION_BATCH, plan.workers):
            pixels = to_device(batch, plan).images
            parts.append(model.features(pixels).float().cpu())  # type: ignore[operator]
            done += len(batch)
            advance(done, len(images))
    return torch.cat(parts).clone()


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
    conditions = (plan.model, plan.preprocessing, plan.precision, plan.device, plan.threads, torch.__version__)
    digest.update(repr(conditions).encode())
    digest.update("".join(hashes).encode())
    return digest.hexdigest()
