"""A planted law is found again, a flat curve is called flat, and the band widens into the unknown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from snellen.core.errors import RunError
from snellen.core.record import Record
from snellen.data.image_sets import ImageSet
from snellen.data.store import ImageStore
from snellen.report.learning import learning_charts
from snellen.tasks.base import create_task
from snellen.tasks.classification.target import Label
from snellen.train import learning_curve as curves
from snellen.train.learning_curve import LearningCurve, curve_through, fit_law, learning_curve
from snellen.train.probe import Probe
from tiny_runs import a_plan

torch.set_num_threads(1)
SIZES = np.geomspace(40, 1000, 6)
RESAMPLES = 200  # as usual; runs of the suite take fewer


@pytest.fixture(autouse=True)
def _as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_RESAMPLES", RESAMPLES)


def drawn_curve(limit: float, b: float, c: float, noise: float = 0.004) -> LearningCurve:
    """Measured around a law, as on 400 judging images whose luck all sizes share."""
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 0.015, RESAMPLES)
    values, samples = [], []
    for size in SIZES:
        repeats = [limit - b * size**-c + rng.normal(0, noise * (40 / size) ** 0.5) for _ in range(3)]
        values.append(repeats)
        samples.append([value + shared for value in repeats])
    return curve_through("accuracy", 400, SIZES, values, samples, 1000, np.random.default_rng(0))


@pytest.mark.parametrize(("limit", "b", "c"), [(0.95, 1.5, 0.6), (0.8, 0.9, 0.35), (1.0, 4.0, 1.0)])
def test_a_planted_power_law_is_recovered(limit: float, b: float, c: float) -> None:
    law = fit_law(SIZES, limit - b * SIZES**-c, top=1.0)
    assert (law.limit, law.b, law.c) == pytest.approx((limit, b, c), rel=0.02)
    curve = drawn_curve(limit, b, c)
    for outlook, factor in zip(curve.outlook, (2, 4), strict=True):
        truth = limit - b * (factor * 1000.0) ** -c
        assert outlook.images == factor * 1000 and outlook.low < truth < outlook.high
        assert outlook.value == pytest.approx(truth, abs=0.02)


def test_a_rising_curve_promises_a_gain_and_a_flat_one_does_not() -> None:
    rising = drawn_curve(0.95, 2.0, 0.5)
    assert rising.is_rising and "a gain of +" in rising.sentence() and "points" in rising.sentence()
    assert rising.outlook[1].gain > rising.outlook[0].gain > 0
    flat = drawn_curve(0.9, 0.0, 1.0)
    assert not flat.is_rising and "no gain shown (-" in flat.sentence()
    assert flat.outlook[0].value == pytest.approx(0.9, abs=0.01)


def test_a_falling_curve_is_not_bent_upwards() -> None:
    falling = drawn_curve(0.85, -1.0, 0.7)
    assert falling.outlook[0].gain <= 0 and not falling.is_rising


def test_the_band_of_the_gain_widens_with_the_distance() -> None:
    near, far = drawn_curve(0.9, 1.0, 0.4, noise=0.02).outlook
    assert far.gain_high - far.gain_low > near.gain_high - near.gain_low > 0


def test_no_share_is_expected_above_all() -> None:
    curve = drawn_curve(1.0, 2.0, 0.8)
    assert max(curve.high) <= 1.0 + 1e-9
    assert curve.drawn[-1] == pytest.approx(4000) and list(curve.drawn) == sorted(curve.drawn)


def test_numbers_in_their_own_unit_are_told_in_it() -> None:
    rng = np.random.default_rng(0)
    values = [[2.0 - 9.0 * size**-0.5 + 0.01 * rng.normal() for _ in range(3)] for size in SIZES]
    samples = [[value + np.zeros(RESAMPLES) for value in each] for each in values]
    curve = curve_through("r2", 90, SIZES, values, samples, 1000, np.random.default_rng(0))
    assert "%" not in curve.sentence() and "points" not in curve.sentence()


def planted(num_train: int, apart: float, *, per_group: int = 1) -> tuple[dict[str, ImageSet], Probe, Any]:
    rng = np.random.default_rng(3)
    sides, features = {}, {}
    for split, n in (("train", num_train), ("val", 80)):
        truth = rng.integers(0, 2, n)
        records = [
            Record(id=f"{split}/{i}", path=Path(f"{split}/{i}"), group=f"{split}{i // per_group}") for i in range(n)
        ]
        store = ImageStore(preprocessing=a_plan().preprocessing, budget=0, keep_sources=False)
        sides[split] = ImageSet(records=records, targets=[Label(int(i)) for i in truth], store=store)
        features[split] = torch.from_numpy(apart * np.eye(2, 40)[truth] + rng.normal(size=(n, 40))).float()
    return sides, Probe(head={}, predictions={}, losses={}, features=features), create_task("classification", "ab")


def test_a_real_curve_is_measured_and_the_same_each_time() -> None:
    sides, probe, task = planted(150, 2.0)
    plan = a_plan(classes=("a", "b"))
    curve = learning_curve(task, sides, probe, plan)
    assert curve is not None and curve.metric == "accuracy" and curve.judged_on == 80
    assert curve.sizes[-1] == 150 and len(curve.sizes) == len(curve.values) == 6
    assert curve.values[-1] > curve.values[0] > 0.4
    assert curve == learning_curve(task, sides, probe, plan)
    json.dumps(curve.to_json(), allow_nan=False)


def test_too_few_groups_make_no_curve() -> None:
    sides, probe, task = planted(60, 2.0, per_group=10)
    assert learning_curve(task, sides, probe, a_plan(classes=("a", "b"))) is None


def test_the_report_draws_the_curve_with_its_band(tmp_path: Path) -> None:
    source: Any = SimpleNamespace(folder=tmp_path)
    assert learning_charts(source) == []
    path = tmp_path / "learning_curve.json"
    path.write_text(json.dumps(drawn_curve(0.95, 2.0, 0.5).to_json()), encoding="utf-8")
    (chart,) = learning_charts(source)
    kinds = [row[2] for row in chart.rows]
    assert kinds[:6] == ["measured"] * 6 and set(kinds[6:]) == {"expected"}
    assert chart.rows[-1][0] == "4,000" and " to " in chart.rows[-1][3] and "With twice the images" in chart.caption
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        learning_charts(source)
