"""What a check found. The same noun serves the audit, the doctor and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

Severity = Literal["info", "warning", "serious"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "serious")
Certainty = Literal["observed", "confirmed", "certain"]
CERTAINTIES: tuple[Certainty, ...] = ("observed", "confirmed", "certain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing worth knowing about the data or the run.

    code      stable name of the check's verdict, kebab-case: ``leak-across-splits``
    severity  info: good to know; warning: may cost accuracy or trust; serious: the result cannot be trusted as it is
    message   one sentence with the numbers that matter
    evidence  JSON-able numbers behind the sentence
    images    record ids to look at, the most telling first (at most a few dozen)
    advice    what to do next, one sentence
    certainty certain: it follows from the data or the code alone; observed: a signal, which other causes may have;
              confirmed: an experiment tells it from those
    treatment what would cure it, JSON-able: ``{"settings": {name: value}}`` for the next training,
              ``{"overlay": [{"image": id, "action": ..., "value": ...}]}`` for the data (data/overlay.py), or
              ``{"change": name}`` for a training that somebody else wrote (doctor/changes.py); empty: none is known
    """

    code: str
    severity: Severity
    message: str
    advice: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    images: Sequence[str] = ()
    certainty: Certainty = "certain"
    treatment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_diagnosis(self) -> bool:
        """Whether it is known to be wrong, and matters: no mere sign, and not only good to know."""
        return self.certainty != "observed" and self.severity != "info"

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "images": list(self.images),
            "evidence": dict(self.evidence),
            "treatment": dict(self.treatment),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Finding:
        return cls(**{**fields, "images": tuple(fields.get("images", ()))})


Subject = TypeVar("Subject")
Check = Callable[[Subject], Iterable[Finding]]


def run_checks(checks: Sequence[Check[Subject]], subject: Subject) -> list[Finding]:
    """Run every check on ``subject``; the findings come back the most severe first, else in the checks' order."""
    found = [finding for check in checks for finding in check(subject)]
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))
