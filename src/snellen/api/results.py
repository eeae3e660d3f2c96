"""What the verbs return: typed, and JSON on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snellen.core.estimate import Estimate
from snellen.core.finding import Finding


@dataclass(frozen=True, slots=True)
class Audit:
    """What is in the data and whether it is sound."""

    folder: Path
    findings: Sequence[Finding]
    summary: dict[str, Any]

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def overlay(self) -> Path | None:
        """The changes to the data that the findings propose, for the setting of that name; None: there are none."""
        path = self.folder / "overlay.json"
        return path if path.is_file() else None

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "report": str(self.report),
            "overlay": None if self.overlay is None else str(self.overlay),
            "findings": [finding.to_json() for finding in self.findings],
            "summary": self.summary,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """By split (or the name of the data), then by metric."""

    run: str
    numbers: Mapping[str, Mapping[str, Estimate]]

    def to_json(self) -> dict[str, Any]:
        splits = {
            split: {name: estimate.to_json() for name, estimate in sides.items()}
            for split, sides in self.numbers.items()
        }
        return {"run": self.run, "splits": splits}


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    subject    the run or the script
    findings   the most telling first: what is known before what is only a sign
    skipped    what was not examined, and why
    confirmed  whether experiments were run
    trial      what came of the treatment that was tried: 'word' is helped, harmed or not shown; None: none was tried
    """

    folder: Path
    subject: str
    findings: list[Finding]
    skipped: list[str]
    confirmed: bool
    seconds: float
    trial: dict[str, Any] | None

    @property
    def report(self) -> Path:
        return self.folder / "doctor.html"

    def to_json(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "folder": str(self.folder),
            "report": str(self.report),
            "confirmed": self.confirmed,
            "seconds": self.seconds,
            "findings": [finding.to_json() for finding in self.findings],
            "skipped": self.skipped,
            "trial": self.trial,
        }
