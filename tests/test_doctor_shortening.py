"""A long run's training made short: fewer epochs, the same shape of its schedule, and fewer images where need be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from doctor_cases import learn, planted, tiny_training
from shapes import save_folders
from snellen.core.finding import Finding
from snellen.doctor import forks
from snellen.doctor.alter import scale_rates
from snellen.doctor.case import Case, Training
from snellen.doctor.forks import explained_by_forks
from snellen.doctor.of_run import Trainings
from snellen.doctor.shortening import FORK_SECONDS, fewer, share_of, shortened
from snellen.doctor.suspicions import SUSPICIONS
from snellen.train.schedule import planned_rates
from tiny_runs import a_plan, start

Plant = Callable[[Training], None]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _events(seconds: float, epochs: int) -> list[dict[str, Any]]:
    steps = [{"event": "step", "seconds": 5.0}]
    return [*steps, *({"event": "epoch", "seconds": 5.0 + seconds * (i + 1)} for i in range(epochs))]


def test_the_share_follows_from_what_the_run_took_and_from_the_epochs_that_were_planned() -> None:
    plan = a_plan(epochs=10, head_epochs=0)
    assert share_of(_events(1.0, 10), plan) == 1.0
    assert share_of(_events(FORK_SECONDS, 10), plan) == pytest.approx(0.1)
    assert share_of(_events(FORK_SECONDS, 5), plan) == pytest.approx(0.1)  # ended early
    assert share_of([], plan) == 1.0


def test_the_schedule_keeps_its_shape() -> None:
    plan = a_plan(epochs=40, head_epochs=10, warmup_steps=20, schedule="cosine")
    short = shortened(plan, 0.1)
    assert (short.epochs, short.head_epochs, short.warmup_steps) == (4, 1, 2)
    long_rates, short_rates = planned_rates(plan, 10), planned_rates(short, 10)
    assert short_rates.max() == pytest.approx(long_rates.max(), rel=0.02)
    assert short_rates[-1] < 0.1 * short_rates.max()
    assert shortened(plan, 1e-4).epochs == 1 and shortened(a_plan(epochs=0, head_epochs=9), 1e-4).head_epochs == 1


def test_where_one_epoch_is_too_long_images_are_left_out(tmp_path: Path) -> None:
    save_folders(tmp_path / "images", per_class=40)
    session = start(tmp_path / "images", tmp_path, model="cnn:8", pretrained=False, epochs=4, head_epochs=0)
    images, plan = session.sides["train"], session.plan
    assert fewer(images, plan, shortened(plan, 0.5), 0.5) is images
    some = fewer(images, plan, shortened(plan, 0.125), 0.125)
    assert len(some) == round(0.5 * len(images)) and set(some.records) <= set(images.records)
    assert some.records == fewer(images, plan, shortened(plan, 0.125), 0.125).records

    training = Trainings(session, session.console, 0.125).training(plan)
    assert training.build_short is not None and training.shortened == 0.125 and training.build is not None
    assert training.build_short(0).epochs == 1 and training.build(0).epochs == plan.epochs
    assert sum(len(targets) for _, targets in training.build_short(0).train) == len(some)
    assert Trainings(session, session.console).training(plan).build_short is None


def _shortened(plant: Plant, *, epochs: int = 6, short: int = 3) -> list[Finding]:
    """Forks of a training that is told to be too long for them."""
    training = planted(tiny_training("cnn", num=192, epochs=epochs), plant)
    learn(training)
    training.build_short = planted(tiny_training("cnn", num=192, epochs=short), plant).build
    training.shortened = short / epochs
    return list(explained_by_forks(Case(training=training), time.monotonic() + 100))


def _few(monkeypatch: pytest.MonkeyPatch, *codes: str) -> None:
    monkeypatch.setattr(forks, "SUSPICIONS", tuple(each for each in SUSPICIONS if each.code in codes))


def _slow(training: Training) -> None:
    scale_rates(training, 0.01)


def _gentle(training: Training) -> None:
    scale_rates(training, 0.3)


def _reckless(training: Training) -> None:
    scale_rates(training, 100)


def test_what_shortened_trainings_show_is_a_sign_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _few(monkeypatch, "rate-too-high", "stopped-too-early")
    (found,) = _shortened(_reckless, short=4)
    assert found.code == "rate-too-high" and found.certainty == "observed"
    assert "shortened to 67% of their steps" in found.message and found.evidence["shortened"] == 4 / 6


def test_what_only_quickens_learning_is_no_cure_for_a_shortened_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy at its full length, behind a usual training in a half of it."""
    _few(monkeypatch, "rate-too-low", "stopped-too-early", "dropout-too-strong", "schedule-unfit")
    assert _shortened(_gentle) == []


def test_where_the_shortened_training_learns_nothing_that_is_said_and_no_more() -> None:
    (found,) = _shortened(_slow, short=1)
    assert found.code == "forks-too-short" and found.severity == "info"
