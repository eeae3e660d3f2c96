"""Training runs on a few tiny images, without the audit, in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.run import RunFolder
from snellen.nn.network import Network
from snellen.nn.small_resnet import SmallResNet
from snellen.train.build import make_plan
from snellen.train.loop import Trainer
from snellen.train.reading import read_data
from snellen.train.resolve import TrainingFacts, choose_model, resolve
from snellen.train.session import Session
from snellen.train.start import begin, resume

# One thread and one arithmetic: the same bits on a busy machine, and nothing is measured.
FIXED: dict[str, Any] = {"precision": "fp32", "device": "cpu", "threads": 1, "workers": 1, "groups": "none"}
SIDE = 8  # pixels of the images that ``fresh`` networks are for
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "lr": 0.01, "body_lr": 0.01}


def a_plan(**changes: Any) -> Plan:
    """A small network from scratch on 16 x 16 pixels, in one arithmetic, as resolved but for ``changes``."""
    config = Config.of(data="shapes", augment="none", **FIXED)
    facts = TrainingFacts(
        task="classification",
        losses=("cross-entropy", "focal"),
        classes=("circle", "square", "triangle"),
        data_digest="0" * 64,
        num_train=32,
        channel_mean=(0.4, 0.5, 0.6),
        channel_std=(0.2, 0.3, 0.25),
        device="cpu",
        cores=1,
    )
    return replace(resolve(config, choose_model(config, [(16, 16)]), facts), **changes)


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


def fresh(images: Session, **changes: Any) -> Trainer:
    """A trainer of a new network with the same random start each time, over shared images of SIDE pixels."""
    torch.manual_seed(5)
    network = Network(images.plan.preprocessing, SmallResNet(SIDE, width=8), 3, dropout=0.2)
    session = replace(images, model=network, plan=replace(images.plan, patience=99, ema=0.9))
    return trainer_of(session, **changes)


def never() -> None:
    """No reason to stop."""
    return None


def unsaved(trainer: Trainer) -> None:
    """No checkpoint."""


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor that the next step depends on, copied."""
    from snellen.train.optim import optimizer_tensors

    parts: dict[str, Mapping[str, Tensor]] = {
        "model": trainer.model.state_dict(),
        "optimizer": optimizer_tensors(trainer.optimizer),
        "slow": trainer.lookahead.slow if trainer.lookahead is not None else {},
        "ema": trainer.ema.average if trainer.ema is not None else {},
    }
    return {f"{part}.{name}": tensor.clone() for part, named in parts.items() for name, tensor in named.items()}


def different(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same bits in both."""
    return sorted(name for name in one.keys() | other.keys() if not _same(one.get(name), other.get(name)))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)
