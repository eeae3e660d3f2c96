"""What is told first is what the rest follows from."""

from __future__ import annotations

import pytest

from snellen.core.finding import Certainty, Finding, Severity
from snellen.doctor.examine import ranked


def _found(code: str, certainty: Certainty = "confirmed", severity: Severity = "serious") -> Finding:
    return Finding(code=code, severity=severity, certainty=certainty, message="", advice="")


def _codes(*findings: Finding) -> list[str]:
    return [each.code for each in ranked(findings)]


def test_causes_come_before_consequences_and_diagnoses_before_signs() -> None:
    told = _codes(
        _found("not-learning", "observed"), _found("miscalibrated"), _found("rate-too-low", severity="warning")
    )
    assert told == ["rate-too-low", "miscalibrated", "not-learning"]


@pytest.mark.parametrize("cause", ["labels-shifted", "labels-carry-nothing"])
def test_copies_that_contradict_each_other_follow_from_labels_that_are_all_wrong(cause: str) -> None:
    copies = _found("conflicting-labels", "certain")
    assert _codes(copies, _found(cause)) == [cause, "conflicting-labels"]
    assert _codes(copies, _found(cause, "observed")) == ["conflicting-labels", cause]  # a sign explains nothing
    assert _codes(copies, _found("suspect-labels")) == ["conflicting-labels", "suspect-labels"]


def test_of_one_code_the_first_is_kept() -> None:
    assert len(ranked([_found("rate-too-low"), _found("rate-too-low", "observed")])) == 1
