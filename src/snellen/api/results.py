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

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "report": str(self.report),
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
