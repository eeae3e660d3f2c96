"""Training runs on a few tiny images, without the audit, in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.preprocessing import Preprocessing
from snellen.core.run import RunFolder
from snellen.data.augment import Augmentation
from snellen.train.build import make_plan
from snellen.train.loop import Trainer
from snellen.train.reading import read_data
from snellen.train.session import Session
from snellen.train.start import begin, resume

# One thread and one arithmetic: the same bits on a busy machine, and nothing is measured.
FIXED: dict[str, Any] = {"precision": "fp32", "device": "cpu", "threads": 1, "workers": 1, "groups": "none"}


def a_plan(**changes: Any) -> Plan:
    """A small network from scratch on 16 x 16 pixels, few steps, nothing random; ``changes`` are to its fields."""
    plan = Plan(
        task="classification",
        classes=("circle", "square", "triangle"),
        data_digest="0" * 64,
        model="small-resnet",
        pretrained=False,
        weights=None,
        weights_source="none",
        weights_license="none",
        preprocessing=Preprocessing(
            input_size=(16, 16), fit="squash", crop_fraction=1.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)
        ),
        epochs=4,
        head_epochs=0,
        batch_size=8,
        optimizer="AdamW",
        lr=0.01,
        body_lr=0.01,
        weight_decay=0.05,
        label_smoothing=0.0,
        dropout=0.0,
        clip_norm=1.0,
        warmup_steps=3,
        ema=0.9,
        patience=4,
        augmentation=asdict(Augmentation.none()),
        vary_by_batch=True,
        probe="pixels",
        time_limit=None,
        train_precision="fp32",
        precision="fp32",
        channels_last=False,
        device="cpu",
        threads=1,
        workers=1,
        seed=0,
        reasons={},
    )
    return replace(plan, **changes)


def start(data: Path, folder: Path, **settings: Any) -> Session:
    """What ``snellen train`` does before the probe, in ``folder``/run with ``folder``/cache."""
    config = Config.of(data=str(data), **{**FIXED, **settings})
    known, console = read_data(config, folder / "cache", _console()), _console()
    made = make_plan(config, known.choice, known.survey, known.store)
    run = RunFolder.create(folder / "run")
    return begin(run, config, known, made, folder / "cache", console)


def start_again(run: RunFolder, cache: Path) -> Session:
    """What ``snellen train --resume`` does."""
    run.sweep()
    console = _console()
    return resume(run, run.config, read_data(run.config, cache, console), cache, console)


def _console() -> Console:
    return Console(io.StringIO())


def said(session: Session) -> str:
    """What the console was told."""
    stream = session.console.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def trainer_of(session: Session, *, keep_best: Callable[..., None] | None = None, **changes: Any) -> Trainer:
    """A trainer over the session's images, its network untouched by the probe; ``changes`` are to the plan."""
    session.plan = replace(session.plan, **changes)
    return Trainer(
        session.model,
        session.task,
        session.plan,
        session.sides["train"],
        session.sides["val"],
        keep_best=keep_best or (lambda *kept: None),
    )


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor that the next step depends on, copied."""
    from snellen.train.optim import optimizer_tensors

    parts: dict[str, Mapping[str, Tensor]] = {
        "model": trainer.model.state_dict(),
        "optimizer": optimizer_tensors(trainer.optimizer),
        "ema": trainer.ema.average if trainer.ema is not None else {},
    }
    return {f"{part}.{name}": tensor.clone() for part, named in parts.items() for name, tensor in named.items()}


def different(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same bits in both."""
    return sorted(name for name in one.keys() | other.keys() if not _same(one.get(name), other.get(name)))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)
