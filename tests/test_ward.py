"""The ward, which judges the doctor, is itself judged: worlds, faults, and what counts as damage and cure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

WARD = Path(__file__).parents[1] / "benchmarks" / "ward"


@pytest.fixture(autouse=True, scope="module")
def ward() -> Iterator[None]:
    """The ward's modules lie outside the package."""
    sys.path.insert(0, str(WARD))
    before = set(sys.modules)
    torch.set_num_threads(1)
    yield
    sys.path.remove(str(WARD))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(WARD)):
            del sys.modules[name]


def small_plan(recipe: str = "bn-sgd-plain", world: str = "digits", **settings: Any) -> Any:
    from recipes import plan_of

    return replace(plan_of(recipe, world, 0), **{"epochs": 3, **settings})


def trained(plan: Any, seed: int = 0) -> Any:
    from judging import judge
    from plans import build
    from training import fit

    training = build(plan, seed)
    fit(training)
    return judge(plan, training, None, seed)


@pytest.mark.parametrize("name", ["digits", "shapes", "textures"])
def test_the_hidden_test_is_large_and_shares_no_image_with_training(name: str) -> None:
    from worlds import WORLDS

    data = WORLDS[name].make(0)
    known = {image.tobytes() for side in (data.train, data.val) for image in side.images}
    assert len(data.hidden) >= 1000
    assert sum(image.tobytes() in known for image in data.hidden.images) <= 2  # digits has two that are alike


def test_a_world_follows_from_its_seed() -> None:
    from worlds import WORLDS

    one, same, other = (WORLDS["digits"].make(seed).train.images for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_training_follows_from_its_seed() -> None:
    plan = small_plan(epochs=1)
    first, second, other = trained(plan), trained(plan), trained(plan, seed=1)
    assert first.score == second.score
    assert np.array_equal(first.qualities, second.qualities)
    assert first.log_loss != other.log_loss


def test_every_fault_has_codes_a_host_that_exists_and_three_degrees() -> None:
    from faults import FAULTS
    from file_units import FILE_FAULTS
    from recipes import RECIPES
    from worlds import WORLDS

    assert len(FAULTS) + len(FILE_FAULTS) >= 45
    assert not set(FAULTS) & set(FILE_FAULTS)
    for fault in FAULTS.values():
        assert fault.codes and len(fault.levels) == 3
        assert all(world in WORLDS and recipe in RECIPES for world, recipe in fault.hosts)
        assert not any(WORLDS[world].held_out for world, _ in fault.hosts)


def test_every_fault_makes_another_training_that_still_runs() -> None:
    from faults import FAULTS, inject
    from plans import build
    from recipes import plan_of

    plans: dict[tuple[str, str], Any] = {}
    for fault in FAULTS.values():
        world, recipe = fault.hosts[-1]
        if world not in ("digits", "counting"):  # the others take long to draw
            continue
        plan = plans.setdefault((world, recipe), plan_of(recipe, world, 0))
        sick = inject(fault.name, "severe", plan)
        assert sick is not plan, fault.name
        training = build(sick, 0)
        training.take_step(next(iter(training.train)))


@pytest.mark.parametrize("fault", ["labels-shuffled", "loss-sign", "rate-low"])
def test_what_is_called_damage_shows_on_the_hidden_test(fault: str) -> None:
    from faults import inject
    from judging import sign_test
    from unit import _tally

    plan = small_plan()
    healthy, sick = trained(plan), trained(inject(fault, "severe", plan))
    worse, better = _tally(healthy, sick)
    assert healthy.score > 0.8
    assert healthy.score - sick.score > 0.2
    assert sign_test(worse, better) < 1e-6


def test_a_validation_that_numbers_classes_otherwise_harms_the_report_alone() -> None:
    from faults import inject
    from judging import closed

    plan = small_plan()
    healthy, sick = trained(plan), trained(inject("val-classes-rolled", "severe", plan))
    assert sick.score == healthy.score
    assert sick.reported < 0.1
    assert closed("report", healthy, sick, healthy) == 1.0
    assert closed("score", healthy, sick, healthy) is None


def test_a_cure_is_the_share_of_the_damage_taken_away() -> None:
    from judging import Judged, closed

    well, ill, better, worse = (
        Judged(score=score, log_loss=1.0, reported=score, qualities=np.zeros(4)) for score in (0.9, 0.5, 0.8, 0.4)
    )
    assert closed("score", well, ill, better) == pytest.approx(0.75)
    assert closed("score", well, ill, worse) == pytest.approx(-0.25)


def test_an_overlay_relabels_and_leaves_out_the_images_that_it_names() -> None:
    from treatments import treated

    plan = small_plan()
    changes = [
        {"image": "train/3/5.png", "action": "leave out"},
        {"image": "train/0/7.png", "action": "relabel", "value": "9"},
    ]
    after, change = treated(plan, 0, {"overlay": changes})  # type: ignore[misc]
    assert change is None
    assert len(after.data.train) == len(plan.data.train) - 1
    assert after.data.train.targets[6] == 9
    assert treated(plan, 0, {"settings": {"lr": 1}}) is None


def row(
    fault: str = "", alarms: tuple[str, ...] = (), score: float = 0.9, rank: int = 0, **more: Any
) -> dict[str, Any]:
    judged, healthy = ({"score": s, "log_loss": 0.5, "reported": s} for s in (score, 0.9))
    counts = (300, 10) if score < 0.9 else (0, 0)
    verdict = {"alarms": list(alarms), "signs": [], "seconds": 1.0, "rank": rank, **more}
    return {
        "key": f"w/r/{fault}",
        "world": "w",
        "recipe": "r",
        "fault": fault,
        "severity": "severe",
        "seed": 0,
        "harms": "score",
        "judged": judged,
        "healthy": healthy,
        "worse": counts[0],
        "better": counts[1],
        "train_seconds": 2.0,
        "verdicts": {"one": verdict},
        **({} if fault else {"placebo": {"certified": False}}),
    }


def test_the_table_counts_only_what_was_damaged() -> None:
    import table

    rows = [row("rate-high", score=0.5), row("rate-low", score=0.899)]
    damaged, mild = table.sick_ones(rows)
    assert [each["fault"] for each in damaged] == ["rate-high"]
    assert [each["fault"] for each in mild] == ["rate-low"]


def test_the_score_is_zero_for_whoever_is_silent_and_whoever_always_alarms() -> None:
    import table

    cured = {"treatment": {"change": "x"}, "trial": {"closed": 1.0, "harmed": False, "certified": True}}
    good = [row(), row("rate-high", ("rate-too-high",), 0.5, 1, **cured)]
    silent = [row(), row("rate-high", (), 0.5)]
    always = [row("", ("overfitting",)), row("rate-high", ("overfitting",), 0.5, 0)]
    scores = [float(table.doctor_line("one", rows[:1], rows[1:])[-1]) for rows in (good, silent, always)]
    assert scores == [100.0, 0.0, 0.0]


def test_the_upper_limit_of_no_false_alarm_in_300_is_one_percent() -> None:
    import table

    assert table.upper(0, 300) == pytest.approx(0.01, abs=2e-4)


def test_every_alarm_that_a_rival_can_raise_is_in_its_table_or_names_nothing() -> None:
    from faults import FAULTS
    from rivals import RIVALS

    ids = {number for fault in FAULTS.values() for number in fault.id.split("+")}
    for rival in RIVALS:
        for alarm, faults in rival.means.items():
            assert set(faults.split()) & (ids | {"D06", "D07", "R07", "S02"}), (rival.name, alarm)
