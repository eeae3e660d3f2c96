"""What the audit says of numbers to be predicted, and that it is silent where they are sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from audit_values import PLANTED, ages, near_copies_that_nearly_agree, subject, unknown_as_999
from snellen.audit.run_audit import run_audit
from snellen.audit.subject import AuditSubject
from snellen.audit.summary import summarize


@pytest.mark.parametrize(
    ("code", "plant", "severity"),
    PLANTED,
)
def test_a_planted_fault_in_numbers_is_found(code: str, plant: Callable[[], AuditSubject], severity: str) -> None:
    (found,) = [finding for finding in run_audit(plant()) if finding.code == code]
    assert found.severity == severity and "\n" not in found.message and found.advice and found.evidence


def test_outliers_are_shown_the_farthest_first() -> None:
    (found,) = [finding for finding in run_audit(unknown_as_999()) if finding.code == "outlying-values"]
    assert found.images == ("0499.jpg", "0497.jpg", "0498.jpg")
    assert "3 images have a number for 'age' far from all others, as 0499.jpg with -1000000" in found.message


HEALTHY: dict[str, Callable[[], AuditSubject]] = {
    "normal": lambda: subject(ages()),
    "even": lambda: subject([float(i) for i in range(500)]),
    "incomes": lambda: subject(np.exp(np.random.default_rng(1).normal(10, 1, 500)).tolist()),
    "mostly nothing": lambda: subject([float(i % 10 == 0) * i for i in range(500)]),
    "stars": lambda: subject([float(i % 5) for i in range(500)]),
    "copies that agree": near_copies_that_nearly_agree,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_numbers_raise_no_alarm(name: str) -> None:
    found = run_audit(HEALTHY[name]())
    assert not [each.code for each in found if each.code not in ("exact-duplicates", "near-duplicates")]


def test_the_summary_tells_how_numbers_are_spread_and_shows_examples_in_their_order() -> None:
    of = subject(ages())
    summary = summarize(of)
    spread = summary["values"]["age"]
    assert {side: sum(counts) for side, counts in spread["counts"].items()} == {
        side: len(of.manifest.ids(side)) for side in of.sides
    }
    assert len(spread["edges"]) == 21 and spread["edges"][0] <= spread["least"] < spread["most"] <= spread["edges"][-1]
    shown = [of.values["age"][image_id] for image_id in summary["examples"]["age"]]
    train = [of.values["age"][image_id] for image_id in of.manifest.ids("train")]
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (min(train), max(train))
    assert summary["classes"]["total"] == 0
