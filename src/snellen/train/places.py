"""What is chosen otherwise where answers are about places in the image: the input's size and shape, and the course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snellen.core.config import Config
from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.preprocessing import Fit
from snellen.nn.catalog import BackboneFacts
from snellen.nn.published import check_input, is_published, read_published

GRID = 32  # pixels: the coarsest map of a backbone is smaller than the input by this factor
_BODY_SHARE = 0.3
FROZEN_ON_CPU = 3
"""Stages of EfficientNet-Lite0: its maps at 1/2 and 1/4, as Detectron freezes ResNets (Girshick et al. 2018). Of a step
at 512 x 384 they take half (docs/measurements.md)."""

_LONGEST, _SHORTEST = 448, 128  # pixels of the input's longer side
_ALIKE = 1.1  # aspect ratios within this factor of the median are squashed to it: nobody sees the difference


def input_size(sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    """(width, height) in whole steps of 32 pixels, of the images' usual shape, and why."""
    long_side = float(np.median([max(size) for size in sizes]))
    aspect = _usual_aspect(sizes)
    longest = min(max(long_side, _SHORTEST), _LONGEST)
    width, height = (longest, longest / aspect) if aspect >= 1 else (longest * aspect, longest)
    size = (_in_steps(width), _in_steps(height))
    told = "most images have" if long_side <= _LONGEST else f"most images are shrunk to, from {long_side:.0f} pixels;"
    more = "" if long_side <= _LONGEST else " small objects may need more"
    return size, f"the shape {told}{more}".replace("; small", ": small")


def fit(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[Fit, str]:
    """How images of ``sizes`` meet an input of ``size``, and why."""
    aspect = size[0] / size[1]
    factors = np.array([max(w / h / aspect, h / w * aspect) for w, h in sizes])
    if float(np.quantile(factors, 0.99)) <= _ALIKE:
        return "squash", "all images have about the shape of the input"
    return "letterbox", "shapes differ, and things keep their proportions"


def _usual_aspect(sizes: Sequence[tuple[int, int]]) -> float:
    """Width over height; beyond 1 : 2 a more moderate shape wastes less on the others."""
    return float(np.clip(np.exp(np.median([np.log(width / height) for width, height in sizes])), 0.5, 2.0))


def _in_steps(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)


def batch_size(num_train: int, device: str) -> tuple[int, str]:
    """Images are large, and a step on a CPU is long: small batches make enough steps."""
    size = int(min(8 if device == "cpu" else 16, max(2, 2 ** int(np.log2(max(2, num_train / 8))))))
    return size, f"{num_train} training images give {max(1, num_train // size)} steps an epoch"


def body_rate(lr: float) -> tuple[float, str]:
    """What is pretrained has more to learn here than for whole images, where it gets a tenth: where things are."""
    return _BODY_SHARE * lr, "a third of the head's: pretrained layers need less change"


def epochs(num_train: int, device: str) -> tuple[int, str]:
    """As many as it takes to see about so many images, fewer on a CPU."""
    low, high, images = (6, 60, 2_500) if device == "cpu" else (20, 150, 60_000)
    count = int(np.clip(round(images / num_train), low, high))
    return count, f"{num_train} training images seen {count} times; more with --epochs"


def choose_input(
    config: Config, facts: BackboneFacts | None, sizes: Sequence[tuple[int, int]], reasons: dict[str, str]
) -> tuple[tuple[int, int], Fit]:
    """The input's (width, height), and how images meet it: as asked, or by the images' ``sizes``.

    Raises ConfigError for a size that a detector that was published whole cannot take.
    """
    published = read_published(config.model) if is_published(config.model) else None
    if config.input_size != "auto":
        size = config.input_size
    elif published is not None:
        size, reasons["input_size"] = published.input_size, "the size that it was published for"
    elif facts is not None and facts.fixed_size:
        size, reasons["input_size"] = (facts.input_size, facts.input_size), "the only size that the model takes"
    else:
        size, reasons["input_size"] = input_size(sizes)
    if published is not None:
        check_input(published.settings, size)
    if config.fit != "auto":
        return size, config.fit
    if published is not None:
        reasons["fit"] = "how its images were resized when it was trained"
        return size, "squash"
    chosen, reasons["fit"] = fit(sizes, size)
    return size, chosen


def check(config: Config, task: str) -> None:
    """Raises ConfigError for what only a linear head on pooled features can do."""
    if config.transfer in ("probe", "svm") or config.epochs == 0:
        asked = "epochs = 0" if config.epochs == 0 else f"transfer = '{config.transfer}'"
        raise ConfigError(f"{asked} leaves the task '{task}' with a head that has learnt nothing: give epochs")
    if config.imbalance in ("smote", "thresholds", "undersample"):
        raise ConfigError(f"imbalance = '{config.imbalance}' does not fit the task '{task}': use 'oversample'")
    if config.label_smoothing not in ("auto", 0):
        raise ConfigError(f"label_smoothing is of classes of whole images: leave it out for the task '{task}'")
    if config.calibrate != "none":
        raise ConfigError(f"calibrate = '{config.calibrate}' does not fit the task '{task}': leave it out")


def _loss_weights(config: Config) -> dict[str, float]:
    """``box=2, class=1`` by name. Raises ConfigError."""
    weights = {}
    for part in (config.loss_weights or "").split(",") if config.loss_weights else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = -1.0
        if not (name and equals and 0 <= weights[name] < float("inf")):
            raise ConfigError(f"loss_weights: '{part.strip()}' is no weight: write name=number, as in 'box=2, class=1'")
    return weights


def _architecture(config: Config, task: str, known: Sequence[str], reasons: dict[str, str]) -> str:
    """What stands on the backbone; empty where that is a linear head. Raises ConfigError for an unknown one."""
    if is_published(config.model):
        reasons["architecture"] = "what the model is"
        return read_published(config.model).architecture
    if config.architecture == "auto":
        if known:
            reasons["architecture"] = "light, and sound on few images"
        return known[0] if known else ""
    if config.architecture not in known:
        wish = f"use {', '.join(known)}" if known else "leave it out: a linear head stands on the model"
        raise ConfigError(
            f"architecture = '{config.architecture}' does not fit the task '{task}'"
            f"{did_you_mean(config.architecture, known)}: {wish}"
        )
    return config.architecture


def choices(config: Config, task: str, architectures: Sequence[str], reasons: dict[str, str]) -> dict[str, Any]:
    """The entries of a plan that only answers about places have. Raises ConfigError."""
    mosaic = config.mosaic
    if mosaic == "auto":
        mosaic = 0.0
        if architectures:
            reasons["mosaic"] = "off: images are shown as they are"
    return {
        "architecture": _architecture(config, task, architectures, reasons),
        "loss_weights": _loss_weights(config),
        "mosaic": mosaic,
        "copy_paste": config.copy_paste,
        "nms": "per class" if config.nms == "auto" else config.nms,
        "nms_iou": config.nms_iou,
        "published": read_published(config.model).settings if is_published(config.model) else {},
    }
