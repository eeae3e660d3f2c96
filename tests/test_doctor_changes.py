"""What a change changes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, IterableDataset

from doctor_cases import KINDS, Kind, tiny_training
from snellen.doctor import alter
from snellen.doctor.case import Training
from snellen.doctor.changes import CHANGES
from snellen.doctor.learning import learn
from snellen.doctor.loaders import Merged, Shuffled, num_batches, statistics
from snellen.doctor.norms import freeze_frozen, norms_of, re_estimate
from snellen.doctor.schedules import full_schedule


def _rates(training: Training, steps: int) -> list[float]:
    assert training.optimizer is not None
    rates = []
    for _ in range(steps):
        rates.append(training.optimizer.param_groups[0]["lr"])
        training.optimizer.step()
        training.scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", ["one cycle", "cosine"])
def test_all_rates_of_a_schedule_are_scaled(schedule: str) -> None:
    both = []
    for factor in (1.0, 0.1):
        training = tiny_training("mlp", num=32, epochs=1, scheduler="none")
        assert training.optimizer is not None
        training.scheduler = (
            OneCycleLR(training.optimizer, max_lr=0.1, total_steps=12)
            if schedule == "one cycle"
            else CosineAnnealingLR(training.optimizer, T_max=12, eta_min=1e-4)
        )
        both.append(_rates(alter.scale_rates(training, factor), 10))
    assert torch.allclose(torch.tensor(both[1]), 0.1 * torch.tensor(both[0]), rtol=1e-4)


def _with_schedule(kind: str, steps: int) -> Training:
    """A training of 20 steps whose schedule has so many."""
    training = tiny_training("mlp", num=40, batch=4, epochs=1, scheduler="none")
    training.epochs = 20 // len(list(training.train))
    assert training.optimizer is not None
    made: dict[str, Callable[[Optimizer], Any]] = {
        "one cycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=steps + 1, pct_start=0.4),
        "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-4),
        "steps": lambda optimizer: StepLR(optimizer, step_size=steps // 2),
    }
    return replace(training, scheduler=made[kind](training.optimizer))


@pytest.mark.parametrize("steps", [10, 80])
@pytest.mark.parametrize("kind", ["one cycle", "cosine"])
def test_a_schedule_of_another_length_becomes_the_one_of_the_right_length(kind: str, steps: int) -> None:
    mended, right = full_schedule(_with_schedule(kind, steps)), _with_schedule(kind, 20)
    assert _rates(mended, 20) == pytest.approx(_rates(right, 20))


def test_a_schedule_is_as_long_as_there_are_steps_of_several_batches() -> None:
    training, waiting = _with_schedule("cosine", 9), []

    def step(batch: Any) -> None:
        waiting.append(batch)
        if len(waiting) % 2 == 0:
            training.optimizer.step()  # type: ignore[union-attr]

    training.step = step
    assert full_schedule(training).scheduler.T_max == 10 and not waiting


@pytest.mark.parametrize(("kind", "steps"), [("one cycle", 20), ("steps", 8)])
def test_a_schedule_whose_length_is_not_its_fault_gives_way_to_a_cosine(kind: str, steps: int) -> None:
    training = _with_schedule(kind, steps)
    assert training.optimizer is not None
    peak = training.optimizer.param_groups[0].get("max_lr", training.optimizer.param_groups[0]["initial_lr"])
    rates = _rates(full_schedule(training), 20)
    assert rates[0] == peak and rates[10] == pytest.approx(peak / 2) and rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_change_gives_a_training_that_can_be_run(name: str, kind: Kind) -> None:
    torch.set_num_threads(1)
    training, change = tiny_training(kind, num=40, epochs=1), CHANGES[name]
    if not change.fits(training):
        return
    changed = change.apply(training)
    changed.epochs = min(changed.epochs, 2)
    history = learn(changed)
    assert len(history.steps) > 0
    assert all(torch.isfinite(each).all() for each in changed.model.parameters()) or name.startswith("rate*")


@pytest.mark.parametrize("change", ["batch/4", "batch*8"])
def test_a_schedule_by_the_epoch_stays_where_batches_change(change: str) -> None:
    training = tiny_training("mlp", num=40, epochs=2, scheduler="none")
    assert training.optimizer is not None
    training = replace(training, scheduler=StepLR(training.optimizer, step_size=1), scheduled="epoch")
    assert CHANGES[change].apply(training).scheduler is training.scheduler


def test_what_the_optimizer_lacked_learns_at_the_rates_of_a_schedule_by_groups() -> None:
    training = tiny_training("mlp", num=40, epochs=2, scheduler="none")
    *_, last = (each for each in training.model.modules() if isinstance(each, nn.Linear))
    optimizer = torch.optim.SGD(last.parameters(), lr=0.1)
    warm_up = LambdaLR(optimizer, [lambda step: min(1.0, step / 3)])
    before = [each.detach().clone() for each in training.model.parameters()]
    mended = alter.all_parameters(replace(training, optimizer=optimizer, scheduler=warm_up, scheduled="step"))
    history = learn(mended)
    assert history.rates[0] == 0 and history.rates[-1] == pytest.approx(0.1)
    assert not any(torch.equal(one, other) for one, other in zip(before, training.model.parameters(), strict=True))


def test_a_loader_whose_length_cannot_be_told_is_counted() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            return iter(torch.zeros(10, 2))

        def __len__(self) -> int:
            raise TypeError("nobody knows")

    assert num_batches(DataLoader(Stream(), batch_size=4)) == 3  # type: ignore[arg-type]


def test_standardised_inputs_have_mean_0_and_deviation_1() -> None:
    training = alter.standardise(tiny_training("cnn", num=64))
    mean, std = statistics(training.train)
    assert mean.abs().max() < 1e-3 and (std - 1).abs().max() < 1e-3


def test_batches_are_merged_and_shuffled_without_losing_an_image() -> None:
    batches = [(torch.arange(start, start + 4.0).view(4, 1), torch.arange(start, start + 4)) for start in (0, 4, 8)]
    merged = list(Merged(batches, 2))
    assert [len(targets) for _, targets in merged] == [8, 4]
    shuffled = Shuffled(batches, seed=0)
    first, second = (torch.cat([targets for _, targets in shuffled]) for _ in range(2))
    assert not torch.equal(first, second) and first.sort().values.tolist() == second.sort().values.tolist() == [
        *range(12)
    ]
    assert all(torch.equal(inputs.flatten().long(), targets) for inputs, targets in shuffled)


def test_statistics_of_batch_norms_become_the_plain_mean_over_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False))
    batches = [(3.0 + torch.randn(50, 2, generator=torch.Generator().manual_seed(i)), None) for i in range(4)]
    model.eval()
    re_estimate(model, batches)
    (norm,) = norms_of(model)
    means = torch.stack([inputs.mean(0) for inputs, _ in batches]).mean(0)
    assert norm.running_mean is not None and torch.allclose(norm.running_mean, means, atol=1e-5)
    assert norm.momentum == 0.1 and not model.training and not norm.training


def test_frozen_norms_stay_as_they_are_even_in_training_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    model.train()
    with freeze_frozen(model):
        model(5 + torch.randn(8, 2))
    assert model[0].running_mean.abs().sum() == 0 and model[1].running_mean.abs().sum() > 0


def test_all_parameters_are_held_once_the_optimizer_lacked_some() -> None:
    training = tiny_training("mlp", num=32)
    assert training.optimizer is not None
    del training.optimizer.param_groups[0]["params"][-2:]
    held = alter.all_parameters(training).optimizer
    assert held is not None
    assert {id(each) for group in held.param_groups for each in group["params"]} == {
        id(each) for each in training.model.parameters()
    }
