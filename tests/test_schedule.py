"""Learning rates: each schedule against torch's own, warm-up, plateaus, and what the report draws as planned."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from snellen.core.config import Config
from snellen.train.optim import OPTIMIZERS
from snellen.train.schedule import SCHEDULES, Plateau, momentum_at, planned_rates, rate_factor, usual_rates
from tiny_runs import a_plan

NAMES = sorted(SCHEDULES)


def choices(setting: str) -> set[str]:
    """What the setting may be, but for 'auto'."""
    return set(get_args(Config.model_fields[setting].annotation)) - {"auto"}


def test_every_schedule_and_optimizer_that_may_be_asked_for_is_there() -> None:
    assert choices("schedule") == set(SCHEDULES)
    assert choices("optimizer") == set(OPTIMIZERS)
    for name in OPTIMIZERS:
        usual = usual_rates(name)
        assert 0 < usual.body < usual.head <= usual.scratch and usual.weight_decay >= 0, name


# --- against torch

Oracle = Callable[[torch.optim.Optimizer, int], Any]
ORACLES: dict[str, Oracle] = {
    "constant": lambda optimizer, total: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "step": lambda optimizer, total: lr_scheduler.MultiStepLR(optimizer, [-(-total // 2), -(-3 * total // 4)]),
    "inverse": lambda optimizer, total: lr_scheduler.LambdaLR(optimizer, lambda step: total / (total + 9 * step)),
    "cosine": lambda optimizer, total: lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=0.02),
    "one-cycle": lambda optimizer, total: lr_scheduler.OneCycleLR(
        optimizer, 2.0, total_steps=total, pct_start=0.3, div_factor=25, final_div_factor=400
    ),
    "plateau": lambda optimizer, total: lr_scheduler.ConstantLR(optimizer, factor=1.0),
}


def torch_rates(oracle: Oracle, total: int) -> tuple[list[float], list[float]]:
    """Rates and momenta at each step, with a peak rate of 2."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0, momentum=0.9)
    schedule = oracle(optimizer, total)
    rates, momenta = [], []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    return rates, momenta


@pytest.mark.parametrize("total", [8, 10, 37, 100, 101])
@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_is_that_of_torch(name: str, total: int) -> None:
    rates, momenta = torch_rates(ORACLES[name], total)
    assert [2 * rate_factor(name, step, total, 0) for step in range(total)] == pytest.approx(rates)
    assert [momentum_at(0.9, name, step, total, 0) for step in range(total)] == pytest.approx(momenta)


def test_the_inverse_of_the_rate_grows_by_the_same_at_each_step_to_ten() -> None:
    inverses = 1 / np.array([rate_factor("inverse", step, 50, 0) for step in range(50)])
    assert np.diff(inverses) == pytest.approx(9 / 50)
    assert inverses[0] == 1 and inverses[-1] + 9 / 50 == pytest.approx(10)


@given(st.lists(st.sampled_from([0.5, 0.7, 0.9, 1.0, 1.1]), min_size=1, max_size=40), st.integers(1, 12))
def test_a_plateau_is_met_when_torch_meets_it(losses: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=(patience + 1) // 2 - 1, threshold=0, eps=0)
    plateau = Plateau()
    for loss in losses:
        plateau = plateau.after(loss, patience)
        oracle.step(loss)
        rate = rate_factor("plateau", 3, 10, 2, plateau.reductions)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plateau"])
def test_only_the_schedule_that_waits_for_a_plateau_is_moved_by_one(name: str) -> None:
    assert rate_factor(name, 5, 10, 2, reductions=3) == rate_factor(name, 5, 10, 2)


# --- with a warm-up


@pytest.mark.parametrize("name", NAMES)
@given(total=st.integers(1, 90), warmup=st.integers(0, 60))
def test_rates_rise_in_the_warm_up_to_where_the_schedule_begins(name: str, total: int, warmup: int) -> None:
    factors = [rate_factor(name, step, total, warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    warm = min(warmup, max(1, total // 4), total - 1)
    assert all(early < late for early, late in pairwise(factors[: warm + 1]))
    if min(warmup, max(1, total // 4)) < total:
        assert factors[warm:] == [rate_factor(name, step, total - warm, 0) for step in range(total - warm)]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one-cycle"])
@given(total=st.integers(1, 90), warmup=st.integers(0, 60))
def test_after_the_warm_up_rates_only_fall(name: str, total: int, warmup: int) -> None:
    factors = [rate_factor(name, step, total, warmup) for step in range(total)]
    peak = factors.index(max(factors))
    assert peak <= max(1, total // 4)
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_rate_is_that_of_the_cosine() -> None:
    assert rate_factor("cosine", 0, 100, 10) == pytest.approx(1 / 11)
    assert rate_factor("cosine", 10, 100, 10) == 1.0
    assert rate_factor("cosine", 55, 100, 10) == pytest.approx(0.01 + 0.99 * 0.5)
    assert rate_factor("cosine", 100, 100, 10) == pytest.approx(0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one-cycle"])
def test_momentum_stays_to_the_bit_where_the_schedule_leaves_it_alone(name: str) -> None:
    assert {momentum_at(momentum, name, 7, 20, 5) for momentum in (0.9, 0.95, 0.3)} == {0.9, 0.95, 0.3}


@given(st.floats(0.01, 0.999), st.integers(1, 60))
def test_a_cycled_momentum_is_one_that_an_optimizer_takes(momentum: float, total: int) -> None:
    cycled = [momentum_at(momentum, "one-cycle", step, total, 3) for step in range(total)]
    assert all(0 <= value < 1 for value in cycled)


# --- the plan


def test_planned_rates_are_those_of_each_phase_in_turn() -> None:
    plan = replace(a_plan(), head_epochs=1, epochs=2, lr=0.5, schedule="step", warmup_steps=2)
    expected = [rate_factor("step", step, 8, 2) for step in range(8)]
    expected += [rate_factor("step", step, 16, 2) for step in range(16)]
    assert planned_rates(plan, 8) == pytest.approx(0.5 * np.array(expected))
    assert len(planned_rates(replace(plan, head_epochs=0, epochs=0), 8)) == 0


def test_schedules_are_known_without_torch() -> None:
    code = "import sys; import snellen.train.schedule, snellen.train.rate_sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
