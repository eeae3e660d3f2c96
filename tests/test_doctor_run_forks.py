"""Forks of a run of Snellen's own are its own training with other settings: its schedule, its steps, its averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from scenes import save_scenes
from shapes import save_folders
from snellen.doctor import house
from snellen.doctor.case import Training
from snellen.doctor.learning import learn
from snellen.doctor.of_run import Trainings
from snellen.train.loop import Trainer
from tiny_runs import start


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _training(folder: Path, **settings: Any) -> Training:
    save_folders(folder / "images", per_class=24)
    given = {"model": "cnn:8", "pretrained": False, "head_epochs": 0, "epochs": 2, "batch_size": 8, "augment": "none"}
    session = start(folder / "images", folder, **{**given, **settings})
    return Trainings(session, session.console).training(session.plan)


def _changed(training: Training, name: str) -> Training:
    assert training.changed is not None
    changed = training.changed(name)
    assert changed is not None
    return changed


def _rates(training: Training) -> list[float]:
    return learn(training).rates.tolist()


def test_twice_as_long_is_one_schedule_over_all_its_steps(tmp_path: Path) -> None:
    training = _training(tmp_path, schedule="cosine", warmup_steps=0)
    once, twice = _rates(training), _rates(_changed(training, "twice as long"))
    assert len(twice) == 2 * len(once)
    assert twice[::2] == pytest.approx(once, abs=0.1 * max(once)) and twice[len(once)] > 0.4 * max(twice)


@pytest.mark.parametrize(("name", "times"), [("batch*8", 1 / 7), ("batch/4", 4)])
def test_other_batches_make_a_schedule_of_as_many_steps(name: str, times: float, tmp_path: Path) -> None:
    training = _training(tmp_path, schedule="cosine", warmup_steps=0, epochs=6)
    once, other = _rates(training), _rates(_changed(training, name))
    assert len(other) == pytest.approx(times * len(once), rel=0.2)
    assert min(other) < 0.5 * max(other) and max(other) == pytest.approx(max(once))


def test_what_the_settings_are_already_and_what_no_setting_does_is_no_fork(tmp_path: Path) -> None:
    training = _training(tmp_path)
    assert training.changed is not None
    for name in ("plain images", "no dropout", "house loss", "house step", "shuffle", "new weights", "usual network"):
        assert training.changed(name) is None, name


def test_a_run_that_nobody_gave_settings_is_its_own_usual_one(tmp_path: Path) -> None:
    save_scenes("segmentation", tmp_path / "data", num=12, side=32)
    plain: dict[str, Any] = {"model": "small-resnet", "input_size": 32, "task": "segmentation", "epochs": 1}
    for name, settings in (("auto", {}), ("odd", {"lr": 1e-7, "body_lr": 1e-7, "weight_decay": 3.0})):
        (tmp_path / name).mkdir()
        session = start(tmp_path / "data", tmp_path / name, **plain, **settings)
        training = Trainings(session, session.console).training(session.plan)
        assert training.changed is not None
        usual = training.changed("usual training")
        if not settings:
            assert usual is None
            continue
        assert usual is not None and usual.optimizer is not None and usual.judge is not None
        assert (
            training.changed("rate*100") is not None
            and training.changed("rate/3") is None
            and training.changed("no decay") is not None
        )
        assert training.changed("plain images") is None  # nobody said how the images were to be varied
        assert max(learn(usual).rates) > 1e-5
        assert all(group["weight_decay"] < 1 for group in usual.optimizer.param_groups)
        assert not house.has_reference(training)


def test_batches_that_make_a_step_together_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(Trainer, "step_in_turn", lambda self, batches: taken.append(len(batches)) or 0.5)
    training = _training(tmp_path, batch_size=8, accumulate=4, epochs=3)
    num = len(list(training.train))
    for _ in range(2):
        for batch in training.train:
            training.take_step(batch)
    assert num % 4 and taken == 2 * [*[4] * (num // 4), num % 4]


def test_the_averaged_weights_are_what_a_fork_is_judged_by(tmp_path: Path) -> None:
    training = _training(tmp_path, ema=0.9)
    learnt: dict[str, Any] = {}
    prepare = training.prepare
    assert prepare is not None
    training.prepare = lambda model: (
        learnt.update({n: w.clone() for n, w in model.state_dict().items()}) or prepare(model)
    )
    learn(training)
    moved = [name for name, weights in training.model.state_dict().items() if not torch.equal(weights, learnt[name])]
    assert moved
