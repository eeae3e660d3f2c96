"""The gain of test-time augmentation and its cost, measured side by side on a finished run."""

from __future__ import annotations

import io
import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import FinishedRun
from snellen.api import viewing
from snellen.api.viewing import Gain, measure_views
from snellen.compare.comparison import compare_answers
from snellen.core.console import Console
from snellen.core.errors import ConfigError
from snellen.core.run import RunFolder
from snellen.metrics.paired import paired_bootstrap
from snellen.predict.answering import NetworkAnswering
from snellen.predict.views import Views
from snellen.tasks.base import create_task
from snellen.tasks.classification.target import Label
from snellen.tasks.regression.target import Values


@pytest.fixture
def run(finished_run: FinishedRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run.folder, tmp_path / "run"))


def measured(run: Path, **options: Any) -> tuple[Gain, str]:
    stream = io.StringIO()
    return measure_views(run, device="cpu", console=Console(stream), **options), stream.getvalue()


def test_validation_is_measured_with_and_without_and_the_test_images_stay_sealed(run: Path, tmp_path: Path) -> None:
    before = (run / "data.json").read_bytes()
    gain, said = measured(run, tta="turns", out=tmp_path / "told")
    results = RunFolder.open(run).read_json("results.json")["splits"]["val"]["accuracy"]
    (pairing,) = gain.pairings.values()
    assert pairing.side == "val" and pairing.n == results["n"] and pairing.metric == "accuracy"
    assert pairing.first.value == pytest.approx(results["value"]) and gain.num_views == 4
    assert (run / "data.json").read_bytes() == before and "test images" not in said
    assert gain.cost == gain.seconds[1] / gain.seconds[0] and gain.names == ("turns",)
    told = json.loads((tmp_path / "told" / "tta.json").read_text(encoding="utf-8"))
    assert told["tta"] == ["turns"] and told["splits"]["val"]["difference"]["low"] is not None
    assert told["cost"] == pytest.approx(gain.cost) and told["verdict"] == gain.verdict
    lines = list(gain.lines())
    assert lines[0] == gain.verdict and any("test-time augmentation" in line for line in lines[1:])
    assert "the training never did" in lines[-1]


def test_opening_the_test_images_is_counted(run: Path) -> None:
    uses = json.loads((run / "data.json").read_text(encoding="utf-8")).get("test_uses", 1)
    gain, said = measured(run, tta="flip", test=True)
    assert list(gain.pairings) == ["val", "test"] and "The test images" in said
    assert json.loads((run / "data.json").read_text(encoding="utf-8"))["test_uses"] == uses + 1


def test_both_ways_see_the_same_images_and_take_turns(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, int]] = []
    for kind in (NetworkAnswering, Views):
        monkeypatch.setattr(kind, "batch", 2)

        def decide(self: Any, seen: Any, own: Any = kind.decide) -> Any:
            turns.append((type(self).__name__, len(seen)))
            return own(self, seen)

        monkeypatch.setattr(kind, "decide", decide)
    gain, _ = measured(run, tta="flip")
    n = next(iter(gain.pairings.values())).n
    names = [name for name, _ in turns[2:]]
    assert names[:4] == ["NetworkAnswering", "Views", "Views", "NetworkAnswering"]
    assert sum(count for name, count in turns[2:] if name == "Views") == n == sum(c for _, c in turns[2:]) / 2


def test_what_does_not_pay_is_said_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: answers that are far better, the same, and far worse."""
    task = create_task("classification", ("a", "b"))
    truth = [Label(i % 2) for i in range(60)]

    def said(right: int) -> list[Label]:
        chosen = [t.index if i < right else 1 - t.index for i, t in enumerate(truth)]
        return [Label(index, np.eye(2, dtype=np.float32)[index] * 0.8 + 0.1) for index in chosen]

    for right, words in ((55, "is better than one view"), (30, "Not shown"), (5, "is worse than one view")):
        pairing = compare_answers(task, {"one view": said(30), "tta": said(right)}, truth, side="val")
        gain = Gain(run="r", names=("flip",), num_views=2, pairings={"val": pairing}, seconds=(0.01, 0.021))
        assert words in gain.verdict and "takes 2.1 times as long, 21 ms instead of 10 ms" in gain.verdict
        assert ("Leave it out" in gain.verdict) == (right <= 30)
        assert pairing.difference.value == pytest.approx((right - 30) / 60)


def test_answers_are_compared_by_the_paired_bootstrap_of_the_same_resamples() -> None:
    task, rng = create_task("regression", ("size",)), np.random.default_rng(0)
    numbers = rng.normal(size=40)
    truth = [Values(np.array([value], np.float32)) for value in numbers]
    answers = {
        name: [Values(np.array([value + noise * rng.normal()], np.float32)) for value in numbers]
        for name, noise in (("loud", 0.5), ("quiet", 0.3))
    }
    pairing = compare_answers(task, answers, truth, side="val", seed=3)
    samples = []
    for predicted in answers.values():
        metrics = task.metrics()
        metrics.update(predicted, truth)
        samples.append(np.asarray(metrics.resampled(seed=3)["r2"]))
    expected = paired_bootstrap(pairing.difference.value, samples[0], samples[1], 40)
    assert (pairing.difference.low, pairing.difference.high) == pytest.approx(expected)
    assert (pairing.baseline, pairing.challenger) == ("loud", "quiet")


def test_several_models_and_unknown_views_are_refused_before_any_image(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewing, "_measured", lambda *given: pytest.fail("images were looked at"))
    with pytest.raises(ConfigError, match=re.escape("tta = 'mirror'")):
        measured(run, tta="mirror")
    module = import_module("snellen.ensemble")  # the name in the package is the verb
    monkeypatch.setattr(module, "load_run", lambda folder, device: object())
    with pytest.raises(ConfigError, match="tta is for one model"):
        measured(run)
