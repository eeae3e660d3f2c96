"""The learning-rate finder: every bit is taken back, and what it suggests is there to be read, or honestly nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shapes import save_folders
from snellen.train import rate_finder
from snellen.train.loop import Trainer
from snellen.train.rate_finder import find_rate, settle_rate
from snellen.train.rate_sweep import FEWEST_STEPS, RateSweep, read_sweep, smooth
from snellen.train.session import Session
from tiny_runs import SETTINGS, SIDE, different, fresh, never, start, state_of, unsaved

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Data that tests share; they take a fresh trainer each, with ``fresh``."""
    folder = tmp_path_factory.mktemp("session")
    return start(save_folders(folder / "data", per_class=14, side=SIDE), folder, **SETTINGS)


# --- nothing is left behind


def everything(trainer: Trainer) -> dict[str, Any]:
    """All that a step depends on or changes, tensors copied."""
    model = trainer.model
    return {
        "state": state_of(trainer),
        "learns": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "progress": asdict(trainer.progress),
        "updates": trainer.ema.num_updates if trainer.ema is not None else 0,
        "rates": [(group["lr"], group["betas"]) for group in trainer.optimizer.param_groups],
        "random": torch.get_rng_state(),
        "observers": trainer.observers,
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of what is not the same in both."""
    changed = different(one.pop("state"), other.pop("state"))
    changed += [] if torch.equal(one.pop("random"), other.pop("random")) else ["random"]
    return changed + [name for name in one if one[name] != other[name]]


class Failing(nn.Module):
    """Lets everything through until the given call."""

    def __init__(self, at: int, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.calls, self.at, self.then = 0, at, then

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.then(x) if self.calls > self.at else x


def interrupted(x: Tensor) -> Tensor:
    raise KeyboardInterrupt


@pytest.mark.parametrize("steps_before", [0, 6])
def test_a_sweep_leaves_every_bit_as_it_was(steps_before: int, images: Session) -> None:
    trainer = fresh(images, lookahead=True, head_epochs=1, epochs=3)
    told: list[Mapping[str, Any]] = []
    trainer.observers = [Recorder(told)]
    stop = iter([None] * steps_before)
    trainer.run(should_stop=lambda: next(stop, "enough"), checkpoint=unsaved)
    before, num_told = everything(trainer), len(told)
    sweep = find_rate(trainer, steps=30)
    assert len(sweep.rates) > FEWEST_STEPS
    assert same(before, everything(trainer)) == [] and len(told) == num_told


class Recorder:
    def __init__(self, told: list[Mapping[str, Any]]) -> None:
        self.told = told

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.told.append(event)

    def close(self) -> None:
        pass


def test_a_sweep_that_diverges_ends_there_and_leaves_every_bit_as_it_was(images: Session) -> None:
    trainer = fresh(images)
    trainer.model.dropout = Failing(12, lambda x: x * float("nan"))
    before = everything(trainer)
    sweep = find_rate(trainer, steps=40)
    assert same(before, everything(trainer)) == []
    assert len(sweep.losses) == 12 and all(map(math.isfinite, sweep.losses + sweep.smoothed))
    assert "no longer finite" in sweep.ended and sweep.suggestion is None and "only 12 steps" in sweep.reason


@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_sweep_that_raises_leaves_every_bit_as_it_was(steps_before: int, images: Session) -> None:
    trainer = fresh(images)
    trainer.model.dropout = Failing(steps_before, interrupted)
    trainer.model.eval()
    before = everything(trainer)
    with pytest.raises(KeyboardInterrupt):
        find_rate(trainer, steps=40)
    assert same(before, everything(trainer)) == []


def test_training_after_a_sweep_comes_to_the_bits_of_training_without_one(images: Session) -> None:
    trainers = [fresh(images, epochs=1, optimizer="nadam", lookahead=True) for _ in range(2)]
    find_rate(trainers[0], steps=20)
    for trainer in trainers:
        assert trainer.run(should_stop=never, checkpoint=unsaved) == "finished"
    assert different(*map(state_of, trainers)) == []
    assert trainers[0].progress == trainers[1].progress


def test_the_same_sweep_gives_the_same_numbers(images: Session) -> None:
    one, other = (find_rate(fresh(images), steps=25) for _ in range(2))
    assert one == other


# --- what is swept


def test_rates_rise_by_the_same_factor_and_the_body_keeps_its_proportion(
    images: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = fresh(images, lr=0.1, body_lr=0.01, momentum=0.8, optimizer="nesterov")
    seen: list[tuple[set[float], ...]] = []
    take_step = Trainer.train_on

    def look(trainer: Trainer, batches: Any) -> float:
        groups = trainer.optimizer.param_groups
        seen.append(tuple({group["lr"] for group in groups if group["peak_lr"] == peak} for peak in (0.1, 0.01)))
        assert {group["momentum"] for group in groups} == {0.8}
        return take_step(trainer, batches)

    monkeypatch.setattr(Trainer, "train_on", look)
    sweep = find_rate(trainer, steps=10, low=1e-6, high=1e-3)
    assert sweep.rates == pytest.approx(np.geomspace(1e-6, 1e-3, 10)) and sweep.ended == ""
    assert trainer.steps_per_epoch < 10  # the data was gone through more than once
    for rate, (head, body) in zip(sweep.rates, seen, strict=True):
        assert len(head) == len(body) == 1
        assert (*head, *body) == pytest.approx((rate, rate / 10))


@pytest.mark.parametrize("wrong", [{"low": 0.0}, {"low": 1.0, "high": 0.1}, {"steps": 1}])
def test_what_makes_no_sweep_is_refused(wrong: dict[str, Any], images: Session) -> None:
    with pytest.raises(ValueError, match="a sweep needs"):
        find_rate(fresh(images), **wrong)


# --- on real training


def test_a_rate_is_found_where_there_is_something_to_learn_and_training_with_it_learns(images: Session) -> None:
    trainer = fresh(images, lr=1e-6, body_lr=1e-7)
    plan, sweep = settle_rate(trainer)
    assert sweep.suggestion is not None and 1e-4 < sweep.suggestion < 1, sweep.reason
    assert plan.lr == pytest.approx(sweep.suggestion) and plan.body_lr == pytest.approx(plan.lr / 10)
    assert replace(plan, lr=1e-6, body_lr=1e-7, reasons=trainer.plan.reasons) == trainer.plan
    assert plan.reasons["lr"] == sweep.reason
    blown = [loss for rate, loss in zip(sweep.rates, sweep.smoothed, strict=True) if rate > sweep.suggestion]
    assert min(sweep.smoothed) in blown


@pytest.mark.parametrize("seed", [0, 1])
def test_where_labels_are_drawn_by_lot_there_is_honestly_no_rate(seed: int, images: Session) -> None:
    """Each image ten times, with labels that contradict each other: not even learning by heart helps."""
    trainer = fresh(images, epochs=30, batch_size=16)
    rng, side = np.random.default_rng(seed), images.sides["train"]
    kinds = list({target.index: target for target in side.targets}.values())
    drawn = [kinds[i] for i in rng.integers(len(kinds), size=10 * len(side))]
    shuffled = replace(side, records=list(side.records) * 10, targets=drawn)
    trainer = Trainer(
        trainer.model, trainer.task, trainer.plan, shuffled, images.sides["val"], keep_best=lambda *kept: None
    )
    plan, sweep = settle_rate(trainer)
    assert sweep.suggestion is None and sweep.suggestions == {} and "never falls clearly" in sweep.reason
    assert (plan.lr, plan.body_lr) == (trainer.plan.lr, trainer.plan.body_lr)
    assert plan.reasons["lr"] == f"{sweep.reason}: the usual one"


def test_a_model_that_cannot_learn_gets_no_rate(images: Session) -> None:
    trainer = fresh(images)
    trainer.model.dropout = Failing(0, lambda x: 0 * x)
    trainer.model.get_submodule("head").register_forward_hook(lambda module, inputs, output: 0 * output)
    sweep = find_rate(trainer, steps=40)
    assert sweep.suggestion is None and sweep.losses == pytest.approx([math.log(3)] * 40)


# --- on curves that are known


def curve(steps: int, *, fall_at: float, depth: float, noise: float, seed: int = 0) -> tuple[list[float], list[float]]:
    """Flat at 1, falling by ``depth`` around the log10 rate ``fall_at``, and blowing up 1.5 decades above."""
    rates = np.geomspace(1e-7, 1, steps)
    x = np.log10(rates) - fall_at
    losses = 1 - depth / (1 + np.exp(-4 * x)) + 4 * np.clip(x - 1.5, 0, None)
    return rates.tolist(), (losses + noise * np.random.default_rng(seed).normal(size=steps)).tolist()


@given(st.floats(-4.5, -2.0), st.floats(0.2, 0.9), st.integers(0, 50), st.sampled_from([40, 100, 200]))
def test_every_rule_reads_a_rate_within_the_fall(fall_at: float, depth: float, seed: int, steps: int) -> None:
    rates, losses = curve(steps, fall_at=fall_at, depth=depth, noise=0.01, seed=seed)
    sweep = read_sweep(rates, losses, "")
    assert list(sweep.suggestions) == ["valley", "steepest", "minimum / 10"]
    for name, rate in sweep.suggestions.items():
        assert abs(math.log10(rate) - fall_at) < 1.0, (name, rate)
    assert sweep.suggestion == sweep.suggestions["valley"]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("shape", ["flat", "blows up", "only rises"])
def test_a_loss_that_never_falls_suggests_nothing(shape: str, noise: float) -> None:
    rates, _ = curve(100, fall_at=-3, depth=0, noise=0)
    x = np.linspace(0, 1, 100)
    planted = {"flat": 0 * x, "blows up": np.clip(x - 0.8, 0, None) * 20, "only rises": x}[shape]
    found = [
        read_sweep(rates, (1 + planted + noise * np.random.default_rng(seed).normal(size=100)).tolist(), "").suggestion
        for seed in range(60)
    ]
    assert found == [None] * 60


def test_a_fall_of_a_few_percent_is_nothing_to_choose_by() -> None:
    assert read_sweep(*curve(100, fall_at=-3, depth=0.03, noise=0), "").suggestion is None
    assert read_sweep(*curve(100, fall_at=-3, depth=0.3, noise=0), "").suggestion is not None


@pytest.mark.parametrize("steps", [0, 1, 2, FEWEST_STEPS - 1])
def test_too_few_steps_suggest_nothing_and_say_so(steps: int) -> None:
    rates, losses = curve(40, fall_at=-4, depth=0.9, noise=0)
    sweep = read_sweep(rates[:steps], losses[:steps], "")
    assert sweep.suggestion is None and f"only {steps} steps" in sweep.reason


@given(st.floats(0.01, 100), st.floats(0.1, 10))
def test_units_of_rate_and_loss_do_not_matter(times: float, scale: float) -> None:
    rates, losses = curve(100, fall_at=-3, depth=0.5, noise=0.02)
    one = read_sweep(rates, losses, "")
    other = read_sweep([times * rate for rate in rates], [scale * loss for loss in losses], "")
    for name, rate in one.suggestions.items():
        assert other.suggestions[name] == pytest.approx(times * rate, rel=1e-6)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
def test_smoothing_is_a_mean_that_leaves_a_constant_and_a_line_in_the_middle_alone(losses: list[float]) -> None:
    values = np.array(losses)
    assert min(losses) - 1e-9 <= smooth(values).min() and smooth(values).max() <= max(losses) + 1e-9
    assert smooth(np.full(len(losses), 3.0)) == pytest.approx(3.0)
    assert smooth(np.arange(100.0))[20:80] == pytest.approx(np.arange(20.0, 80.0))
    assert len(smooth(np.array([]))) == 0


def test_a_sweep_ends_where_the_loss_is_a_multiple_of_its_lowest() -> None:
    def ends(losses: Sequence[float]) -> list[bool]:
        return [rate_finder._is_blown_up(list(losses[: i + 1])) for i in range(len(losses))]

    assert ends([1.0, 0.9, 0.8] + [9.0] * 5).index(True) < 6
    assert not any(ends([1.0, 0.9, 3.9, 0.8, 0.9]))  # one odd batch
    assert not any(ends([2.0, 0.0, 0.0, 5.0]))


def test_a_sweep_is_kept_as_json() -> None:
    for depth in (0.5, 0.0):
        sweep = read_sweep(*curve(50, fall_at=-3, depth=depth, noise=0), "the loss had blown up at 0.5")
        assert RateSweep.from_json(json.loads(json.dumps(sweep.to_json(), allow_nan=False))) == sweep
    with pytest.raises((KeyError, TypeError)):
        RateSweep.from_json({"version": 1})
