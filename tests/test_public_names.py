"""The surface that users build on. Growth is a decision: change these lists on purpose."""

from __future__ import annotations

import inspect

import snellen
from snellen.cli import build_app
from snellen.core.config import Config

NAMES = [
    "Artifact",
    "Audit",
    "Comparison",
    "Config",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "Explanation",
    "Finding",
    "Gain",
    "Pairing",
    "PredictedFiles",
    "Prediction",
    "Run",
    "SnellenError",
    "Training",
    "Tuning",
    "audit",
    "compare",
    "doctor",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "measure_views",
    "predict",
    "serve",
    "train",
    "tune",
    "verify",
]
SETTINGS = {
    *("images", "task", "split", "groups", "overlay", "cache", "seed", "split_seed"),
    *("model", "pretrained", "weights", "input_size", "fit"),
    *("epochs", "head_epochs", "batch_size", "lr", "body_lr", "weight_decay", "label_smoothing", "ema", "patience"),
    *("augment", "mixup", "cutmix", "imbalance", "calibrate", "folds", "fold", "repeats", "test"),
    *("transfer", "frozen_stages", "layer_decay", "activation", "norm", "dropout"),
    *("loss", "focal_gamma", "optimizer", "momentum", "lookahead", "schedule", "warmup_steps", "accumulate"),
    *("l1", "l2", "clip_norm"),
    *("void", "outlines", "box_origin", "architecture", "loss_weights", "mosaic", "copy_paste", "nms", "nms_iou"),
    *("freeze_norm", "time_limit", "checkpoint_every", "precision", "device", "threads", "workers"),
}
OPTIONS = {
    "train": {"data", "out", "config", "resume", "json"} | SETTINGS,
    "tune": {"data", "trials", "search", "out", "resume", "json"} | SETTINGS - {"folds", "fold", "repeats", "test"},
    "audit": {"data", "out", "quick", "json", "device", "images", "task", "split", "groups", "overlay", "cache", "seed"}
    | {"void", "outlines", "box_origin"},
    "evaluate": {"run", "data", "images", "tta", "out", "device", "seed", "json"},
    "predict": {"run", "images", "formats", "every", "tile", "tile_overlap", "tile_merge", "tta", "out", "resume"}
    | {"device", "seed", "json"},
    "explain": {"run", "images", "how", "of", "patch", "stride", "fill", "out", "device", "seed", "json"},
    "compare": {"runs", "versus", "out", "device", "seed", "json"},
    "doctor": {"run", "script", "confirm", "treat", "time_limit", "seeds", "out", "device", "seed", "json"},
    "ensemble": {"runs", "way", "test", "out", "device", "seed", "json"},
    "export": {"run", "to", "precision", "data", "images", "out", "device", "seed", "json"},
    "serve": {"models", "host", "port", "token", "insecure", "max_batch", "max_delay", "queue", "per_client", "device"}
    | {"max_body", "max_pixels", "quiet"},
    "verify": {"artifact", "device", "seed", "json"},
    "lab": {"name", "data", "out", "seed", "json"},
}


def test_public_names_are_the_agreed_ones_and_all_exist() -> None:
    assert snellen.__all__ == NAMES
    assert all(getattr(snellen, name) is not None for name in NAMES)


def test_settings_are_the_agreed_ones() -> None:
    assert set(Config.model_fields) == SETTINGS | {"data"}


def test_every_verb_has_the_agreed_options() -> None:
    app = build_app()
    commands = {name: app[name].default_command for name in OPTIONS}
    for name, command in commands.items():
        assert command is not None
        assert set(inspect.signature(command).parameters) == OPTIONS[name], name


def test_every_verb_takes_the_options_that_scripts_rely_on() -> None:
    writing = {name: options for name, options in OPTIONS.items() if name not in ("lab", "verify", "serve")}
    assert all({"out", "json", "seed", "device"} <= options for options in writing.values())
    assert {"out", "json", "seed"} <= OPTIONS["lab"] and {"json", "seed", "device"} <= OPTIONS["verify"]
