"""Pictures for the report: what the network is fed, examples of each class, and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from snellen.core.errors import ImageError
from snellen.core.files import write_bytes
from snellen.core.plan import Plan
from snellen.core.run import RunFolder
from snellen.data.loader import ImageSet, Variation, training_batches
from snellen.draw.pictures import contact_sheet, thumbnail
from snellen.nn.placement import to_device
from snellen.tasks.base import Task

_SIDE = 200  # pixels of a thumbnail
_SHEET_IMAGES = 24


def save_contact_sheet(run: RunFolder, model: nn.Module, task: Task[Any], train: ImageSet, plan: Plan) -> None:
    """The tensors that enter the backbone in the first training batch, made visible again: nothing is assumed."""
    batches = training_batches(train, Variation.of(plan), epoch=0, batch_size=min(_SHEET_IMAGES, len(train)), workers=1)
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]
    fed = _entering(model, to_device(batch, plan).images)
    captions = [task.caption(target) for target in batch.targets]
    if batch.mixed is not None:
        own = batch.mixed.share
        others = [task.caption(target) for target in batch.mixed.partners]
        captions = [f"{own:.0%} {one}, {1 - own:.0%} {other}" for one, other in zip(captions, others, strict=True)]
    sheet = contact_sheet(fed, captions, columns=6)
    write_bytes(run.pictures / "contact_sheet.webp", thumbnail(sheet, 1400))


def _entering(model: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    seen: list[torch.Tensor] = []
    backbone = model.get_submodule("backbone")
    handle = backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            model(images)
    finally:
        handle.remove()
        model.train(was_training)
    pixels = model.get_submodule("normalize").undo(seen[0]).round().clamp(0, 255).to(torch.uint8)  # type: ignore[operator]
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())


def save_mistakes(
    run: RunFolder, task: Task[Any], images: ImageSet, predicted: Sequence[Any], limit: int
) -> list[dict[str, Any]]:
    """pictures/mistake-<number>.webp and the entries of results.json that go with them."""
    mistakes = task.mistakes(predicted, images.targets, limit)
    for number, mistake in enumerate(mistakes):
        record = images.records[mistake.pop("index")]
        mistake["id"] = record.id
        mistake["picture"] = f"pictures/mistake-{number:03}.webp"
        try:
            _save(run, f"mistake-{number:03}.webp", images.store.prepared(record))
        except ImageError:  # the file went away since it was evaluated
            mistake["picture"] = None
    return mistakes


def _save(run: RunFolder, name: str, pixels: np.ndarray) -> None:
    write_bytes(run.pictures / name, thumbnail(pixels, _SIDE))
