"""A treatment is a cure only by the rule that was declared, and untreated runs are none."""

from __future__ import annotations

import math
import time

import pytest
import torch

from doctor_cases import planted, tiny_training
from snellen.core.finding import Finding
from snellen.doctor.alter import scale_rates
from snellen.doctor.case import Case, Training
from snellen.doctor.changes import CHANGES
from snellen.doctor.scores import Scores, gain
from snellen.doctor.trial import Rule, change_to_try, decide, try_change
from snellen.metrics.paired import Difference


def _by(value: float, low: float | None, high: float | None) -> Difference:
    return Difference(value=value, low=low, high=high, method="")


NOTHING = _by(0.0, -0.02, 0.02)


@pytest.mark.parametrize(
    ("treated", "placebo", "word"),
    [
        (_by(0.10, 0.05, 0.15), NOTHING, "helped"),
        (_by(0.10, -0.01, 0.21), NOTHING, "not shown"),
        (_by(0.004, 0.001, 0.007), NOTHING, "not shown"),  # certain, and not worth the name
        (_by(-0.10, -0.15, -0.05), NOTHING, "harmed"),
        (_by(0.10, 0.05, 0.15), _by(0.09, 0.04, 0.14), "not shown"),  # so does doing nothing
        (_by(0.10, None, None), NOTHING, "not shown"),
    ],
)
def test_the_rule_gives_the_word(treated: Difference, placebo: Difference, word: str) -> None:
    assert decide(Rule(), treated, placebo) == word


def test_a_cure_is_shown_and_a_change_of_nothing_is_not() -> None:
    torch.set_num_threads(1)

    def slow(training: Training) -> None:
        scale_rates(training, 0.003)

    sick = planted(tiny_training("mlp", num=160, epochs=4), slow)
    cured = try_change(Case(training=sick), CHANGES["rate*100"], Rule(seeds=2))
    assert cured is not None and cured.word == "helped" and cured.after > cured.before + 0.2
    nothing = try_change(Case(training=sick), CHANGES["house evaluation"], Rule(seeds=2))
    assert nothing is not None and nothing.word == "not shown" and nothing.gain.value == 0
    assert "not shown" in nothing.sentence() and nothing.to_json()["rule_in_words"] == Rule(seeds=2).sentence()


def test_what_no_score_can_show_gives_way_to_the_next_treatment() -> None:
    def finding(change: str) -> Finding:
        return Finding(code="x", severity="serious", message="", advice="", treatment={"change": change})

    chosen = change_to_try([finding("house metric"), finding("house evaluation"), finding("rate/3")])
    assert chosen is CHANGES["rate/3"]
    assert change_to_try([finding("house metric")]) is None


def test_a_trial_that_there_is_no_time_for_is_none() -> None:
    training = tiny_training("mlp", num=32, epochs=1)
    assert try_change(Case(training=training), CHANGES["rate/3"], Rule(), time.monotonic() - 1) is None


def test_gains_on_right_and_wrong_are_tested_exactly_and_few_images_show_nothing() -> None:
    right, wrong = torch.ones(60).double().numpy(), torch.zeros(60).double().numpy()
    better = wrong.copy()
    better[:10] = 1
    found = gain(Scores(values=wrong), Scores(values=better))
    assert found.mean == pytest.approx(1 / 6) and found.p == pytest.approx(0.5**10)
    assert gain(Scores(values=right), Scores(values=right)).p == 1
    assert gain(Scores(values=wrong[:10]), Scores(values=right[:10])).p == 1
    assert math.isclose(gain(Scores(values=better), Scores(values=wrong)).p, 1.0)
