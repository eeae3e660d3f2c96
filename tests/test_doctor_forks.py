"""Forks: what is wrong is what, changed alone, makes the same training better in every seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from doctor_cases import learn, planted, tiny_training
from judged_cases import judged_training
from snellen.core.finding import Finding
from snellen.doctor import forks as forks_module
from snellen.doctor import house
from snellen.doctor.alter import scale_rates
from snellen.doctor.case import Case, Training
from snellen.doctor.changes import CHANGES
from snellen.doctor.forks import Forks, explained_by_forks
from snellen.doctor.suspicions import SUSPICIONS

Plant = Callable[[Training], None]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)


class _Narrow(nn.Sequential):
    """In place of the usual network, which takes most of the time of these trainings."""

    def __init__(self, channels: int, outputs: int) -> None:
        convs = [nn.Conv2d(channels, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1)]
        super().__init__(*convs, nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(288, outputs))


def _few(monkeypatch: pytest.MonkeyPatch, *codes: str) -> None:
    """Only these suspicions and two seeds and a narrow usual network, for the sake of time: what is told apart is the
    planted one and its look-alikes."""
    monkeypatch.setattr(house, "_SmallNetwork", _Narrow)
    monkeypatch.setattr(forks_module, "SUSPICIONS", tuple(each for each in SUSPICIONS if each.code in codes))
    monkeypatch.setattr(forks_module, "_MORE_SEEDS", (1,))


def _diagnosed(plant: Plant, epochs: int = 6) -> list[Finding]:
    training = planted(tiny_training("cnn", num=192, epochs=epochs), plant)
    learn(training)
    return list(explained_by_forks(Case(training=training), time.monotonic() + 100))


def _slow(training: Training) -> None:
    scale_rates(training, 0.01)


def _decayed(training: Training) -> None:
    assert training.optimizer is not None
    for group in training.optimizer.param_groups:
        group["weight_decay"] = 30.0


def _dropped(training: Training) -> None:
    for module in training.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.97


def test_nothing_is_said_of_a_training_that_a_usual_one_does_not_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    _few(monkeypatch, "rate-too-high", "rate-too-low", "decay-too-strong")
    assert _diagnosed(lambda training: None) == []


@pytest.mark.parametrize(
    ("plant", "code", "alike"),
    [
        (_slow, "rate-too-low", "bad-initialisation"),
        (_decayed, "decay-too-strong", "rate-too-high"),
        (_dropped, "dropout-too-strong", "stopped-too-early"),
    ],
    ids=["slow", "decayed", "dropped"],
)
def test_the_planted_fault_is_named_before_its_look_alike(
    plant: Plant, code: str, alike: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _few(monkeypatch, code, alike)
    (found,) = _diagnosed(plant)
    assert found.code == code
    assert found.certainty == "confirmed" and found.severity == "serious"
    assert found.evidence["with"] > found.evidence["without"] + 0.2
    assert found.treatment["change"] in CHANGES


@pytest.mark.parametrize(("gained", "severity"), [(0.07, "info"), (0.12, "warning"), (0.45, "serious")])
def test_what_takes_twice_the_time_must_gain_twice_as_much_to_be_worth_a_warning(gained: float, severity: str) -> None:
    (longer,) = (each for each in SUSPICIONS if each.code == "stopped-too-early")
    shown = (gained, 0.5, 0.5 + gained, 1e-9)
    found = forks_module._finding(longer, CHANGES["twice as long"], shown)
    assert found.severity == severity and found.is_diagnosis == (severity != "info")


def test_what_no_single_change_explains_is_said_to_be_of_unknown_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    _few(monkeypatch, "dropout-too-strong")
    (found,) = _diagnosed(_decayed, epochs=17)
    assert found.code == "unknown-cause"
    assert found.treatment == {"change": "usual training"}


@pytest.mark.parametrize(("plant", "codes"), [(_slow, ["rate-too-low"]), (lambda training: None, [])])
def test_boxes_and_masks_are_told_by_their_judge_beside_what_their_training_calls_usual(
    plant: Plant, codes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _few(monkeypatch, "rate-too-high", "rate-too-low")

    def unusual(training: Training) -> None:
        plant(training)
        training.changed = lambda name: (
            judged_training(num=96, epochs=4) if name == "usual training" else CHANGES[name].apply(training)
        )

    training = planted(judged_training(num=96, epochs=4), unusual)
    found = list(explained_by_forks(Case(training=training), time.monotonic() + 100))
    assert [each.code for each in found] == codes
    assert all(each.certainty == "confirmed" and each.evidence["with"] > each.evidence["without"] for each in found)


def test_where_no_setting_alone_helps_boxes_and_masks_are_told_to_begin_with_the_usual_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _few(monkeypatch)

    def unusual(training: Training) -> None:
        _slow(training)
        training.changed = lambda name: judged_training(num=96, epochs=4) if name == "usual training" else None

    training = planted(judged_training(num=96, epochs=4), unusual)
    (found,) = explained_by_forks(Case(training=training), time.monotonic() + 100)
    assert found.code == "unknown-cause" and found.treatment == {"change": "usual training"}


def test_boxes_and_masks_get_no_forks_where_nothing_is_unusual() -> None:
    training = judged_training(num=96, epochs=1)
    forks = Forks(case=Case(training=training), deadline=time.monotonic() + 60)
    assert forks.run(CHANGES["usual training"]) is None and forks.run(CHANGES["usual network"]) is None


def test_a_change_that_somebodys_code_cannot_do_is_told_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _few(monkeypatch, "rate-too-low", "augmentation-hurts")

    def cannot(training: Training) -> Training:
        raise TypeError("no such batches")

    monkeypatch.setitem(CHANGES, "plain images", replace(CHANGES["plain images"], apply=cannot))
    training = planted(tiny_training("cnn", num=192, epochs=6), _slow)
    failed: dict[str, str] = {}
    (found,) = explained_by_forks(Case(training=training), time.monotonic() + 100, failed)
    assert found.code == "rate-too-low"
    assert failed == {"plain images": "TypeError: no such batches"}


def test_a_fork_is_run_once_and_leaves_the_training_alone() -> None:
    training = tiny_training("mlp", num=96, epochs=2)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    state = torch.get_rng_state()
    forks = Forks(case=Case(training=training), deadline=time.monotonic() + 60)
    first, again = forks.run(CHANGES["rate/10"]), forks.run(CHANGES["rate/10"])
    assert first is not None and first is again
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one, other) for one, other in zip(before, training.model.parameters(), strict=True))


def test_without_time_or_without_a_way_to_begin_anew_nothing_is_run() -> None:
    training = tiny_training("mlp", num=96, epochs=1)
    late = Forks(case=Case(training=training), deadline=time.monotonic() - 1)
    assert late.run(None) is None
    training.build = None
    assert Forks(case=Case(training=training), deadline=time.monotonic() + 60).run(None) is None


def test_every_change_that_a_suspicion_names_exists_and_its_code_is_its_own() -> None:
    assert all(name in CHANGES for each in SUSPICIONS for name in each.changes)
    assert len({each.code for each in SUSPICIONS}) == len(SUSPICIONS)
