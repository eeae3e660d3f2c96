"""Trained tiny models for the tests of the doctor's experiments, healthy or with a fault planted before they learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, TensorDataset

from doctor_cases import learn, planted, tiny_training
from snellen.core.finding import Check, Finding
from snellen.doctor.case import Batch, Case, Training

Plant = Callable[[Training], None]


def patient(plant: Plant | None = None, *, seed: int = 0, **recipe: Any) -> Case:
    """A training that has run, ``plant`` having been done to it before."""
    training = tiny_training(seed=seed, **recipe)
    return Case(training=learn(training if plant is None else planted(training, plant)), seed=seed)


def findings(case: Case, *experiments: Check[Case]) -> dict[str, Finding]:
    """By code."""
    return {finding.code: finding for experiment in experiments for finding in experiment(case)}


class Remapped:
    """Batches whose inputs and targets go through functions."""

    def __init__(
        self,
        batches: Iterable[Batch],
        inputs: Callable[[Tensor], Tensor] = lambda each: each,
        targets: Callable[[Tensor], Tensor] = lambda each: each,
    ) -> None:
        self.batches, self.inputs, self.targets = batches, inputs, targets

    def __iter__(self) -> Iterator[Batch]:
        return ((self.inputs(x), self.targets(y)) for x, y in self.batches)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


def on_validation(inputs: Callable[[Tensor], Tensor] = lambda each: each, **more: Any) -> Plant:
    def plant(training: Training) -> None:
        training.val = Remapped(training.val, inputs, **more)

    return plant


def momentum(value: float) -> Plant:
    def plant(training: Training) -> None:
        for module in training.model.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = value

    return plant


def training_data(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Plant:
    """Other training images or labels."""

    def plant(training: Training) -> None:
        dataset = TensorDataset(*change(*training.plain.dataset.tensors))  # type: ignore[union-attr]
        order = torch.Generator().manual_seed(1)
        training.plain = DataLoader(dataset, 32)
        training.train = DataLoader(dataset, training.train.batch_size, shuffle=True, generator=order)  # type: ignore[attr-defined]

    return plant


def network(make: Callable[[], nn.Module], rate: float = 5e-3) -> Plant:
    """Another network, with AdamW at a constant rate."""

    def plant(training: Training) -> None:
        state = torch.get_rng_state()
        torch.manual_seed(1)
        training.model = make()
        torch.set_rng_state(state)
        training.optimizer = torch.optim.AdamW(training.model.parameters(), rate)
        training.scheduler = None

    return plant


def constant_rate(rate: float) -> Plant:
    def plant(training: Training) -> None:
        assert training.optimizer is not None
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        training.scheduler = None

    return plant
