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
from snellen.data.image import decode
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.loader import training_batches
from snellen.draw.pictures import Picture, contact_sheet, thumbnail
from snellen.nn.placement import to_device
from snellen.tasks.base import Task

_SIDE = 200  # pixels of a thumbnail
_SCENE = 480  # pixels of the shorter side, at least, of an image on which places are drawn
_SHEET_IMAGES = 24


def save_contact_sheet(run: RunFolder, model: nn.Module, task: Task[Any], train: ImageSet, plan: Plan) -> None:
    """The tensors that enter the backbone in the first training batch, made visible again: nothing is assumed."""
    batches = training_batches(train, Variation.of(plan), epoch=0, batch_size=min(_SHEET_IMAGES, len(train)), workers=1)
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]
    fed = _entering(model, to_device(batch, plan).images)
    captions = [task.caption(target) for target in batch.targets]
    if task.dense:  # what the network is to find, where it is now
        fed = [np.asarray(task.draw(image, target)) for image, target in zip(fed, batch.targets, strict=True)]
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
        i = mistake.pop("index")
        record = images.records[i]
        mistake["id"] = record.id
        mistake["picture"] = f"pictures/mistake-{number:03}.webp"
        try:
            drawn = None
            if task.dense:
                drawn = task.draw_mistake(decode(record.path, min_side=_SCENE), images.targets[i], predicted[i])
            _save(run, f"mistake-{number:03}.webp", images.store.prepared(record) if drawn is None else drawn)
        except ImageError:  # the file went away since it was evaluated
            mistake["picture"] = None
    return mistakes


def _save(run: RunFolder, name: str, picture: Picture) -> None:
    side = _SIDE if isinstance(picture, np.ndarray) else 2 * _SCENE
    write_bytes(run.pictures / name, thumbnail(picture, side))
