"""Models of every task that need no training, with labelled images to hold their exports against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from snellen.core.annotation import Annotation
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.export.manifest import Manifest
from snellen.nn.small_resnet import SmallResNet
from snellen.tasks.base import TASKS, create_task
from snellen.tasks.loading import LoadedModel
from tiny_runs import a_plan

CLASSES = ("background", "dark & <b>bright</b>", "red")
SIDE = 32
HALVES = (0.5, 0.5, 0.5)
SIZES = ((40, 30), (30, 40), (32, 32), (90, 64), (20, 26), (61, 47))


def a_model(task: str, fit: str = "squash", seed: int = 0, **changes: Any) -> LoadedModel:
    """Random weights, large enough that answers differ from image to image."""
    how = Preprocessing(
        input_size=(SIDE, SIDE),
        fit=fit,  # type: ignore[arg-type]
        crop_fraction=0.875 if fit == "center crop" else 1.0,
        mean=HALVES,
        std=(0.25, 0.25, 0.25),
    )
    usual = create_task(task, CLASSES)
    architecture = usual.architectures[0] if usual.architectures else ""
    asked: dict[str, Any] = {"task": task, "classes": CLASSES, "preprocessing": how, "architecture": architecture}
    asked["loss"] = usual.loss_names[0]
    if task == "regression":
        asked |= {"target_mean": (3.0, -2.0, 100.0), "target_std": (1.0, 2.0, 10.0)}
    plan = a_plan(model="small-resnet", **asked, **changes)
    before = SmallResNet.__init__.__defaults__
    SmallResNet.__init__.__defaults__ = (8,)
    try:
        torch.manual_seed(seed)
        network = usual.configured(plan).build_model(plan)
    finally:
        SmallResNet.__init__.__defaults__ = before
    _enliven(network, seed)
    return LoadedModel(network.eval(), usual.configured(plan), plan)


def _enliven(network: nn.Module, seed: int) -> None:
    """Statistics of batch norms as of a network that has seen images, and heads that say something."""
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all that it sees
    with torch.no_grad():
        for _ in range(3):
            network(255 * torch.rand(8, 3, SIDE, SIDE, generator=generator))
        for name, parameter in network.named_parameters():
            if name.endswith("predict.weight"):
                parameter.mul_(40)
            elif name.endswith("score.predict.bias"):
                parameter.add_(2)
            elif name.startswith("head.weight"):
                parameter.mul_(4)


def images_in(folder: Path, num: int = 8, seed: int = 0) -> list[Path]:
    """PNG of several sizes: noise with soft blobs of colour."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(num):
        width, height = SIZES[i % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        pixels = np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
        paths.append(folder / f"{i:02}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def records_of(task: str, paths: Sequence[Path]) -> list[Record]:
    """With some truth of the task."""
    return [_record(task, path, i) for i, path in enumerate(paths)]


def _record(task: str, path: Path, i: int) -> Record:
    with Image.open(path) as image:
        size = image.size
    plain = Record(id=path.name, path=path, size=size, split="val")
    box = (2.0, 3.0, size[0] / 2, size[1] / 2)
    outline = ((box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3]))
    marked = Annotation(label=CLASSES[1 + i % 2], box=box, polygons=(tuple(x for point in outline for x in point),))
    match task:
        case "classification":
            return replace(plain, labels=(CLASSES[i % 3],))
        case "multilabel":
            return replace(plain, labels=tuple(sorted({CLASSES[i % 3], CLASSES[1]})))
        case "regression":
            return replace(plain, values=(float(i), float(i + 1), 2.0 * i))
    return replace(plain, objects=(marked,))


def about(model: LoadedModel, to: str = "onnx", precision: str = "fp32") -> Manifest:
    return Manifest(
        format=to,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        plan=model.plan,
        decision=model.task.decision,
        headline=model.task.headline,
        metrics={},
    )


ALL_TASKS = tuple(TASKS)
