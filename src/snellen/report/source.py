"""What the files of a run folder say, read once. Parts that are not there, or not yet, are simply empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from snellen.core.errors import RunError
from snellen.core.finding import SEVERITIES, Finding
from snellen.core.record import SPLITS
from snellen.core.run import RunFolder
from snellen.tasks.base import is_dense

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """The contents of a run folder, or of an audit's.

    status    'running', 'stopped', 'done' or 'failed'; '' for an audit
    findings  None when the checks have not run
    """

    folder: Path
    status: str
    plan: Json
    data: Json
    findings: Sequence[Finding] | None
    events: Sequence[Json]
    results: Json
    environment: Json

    @property
    def choices(self) -> Json:
        return self.plan.get("choices") or {}

    @property
    def manifest(self) -> Json:
        return self.data.get("manifest") or {}

    @property
    def summary(self) -> Json:
        return self.data.get("summary") or {}

    @property
    def name(self) -> str:
        return str(self.data.get("name") or "images")

    @property
    def task(self) -> str:
        return str(self.data.get("task") or self.choices.get("task") or "")

    @property
    def dense(self) -> bool:
        """Whether answers are about places in the image, so that pictures of them must be large."""
        return bool(self.task) and is_dense(self.task)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.manifest.get("classes") or self.choices.get("classes") or ())

    @cached_property
    def rows(self) -> Sequence[Json]:
        return self.manifest.get("rows") or ()

    @cached_property
    def split_sizes(self) -> dict[str, int]:
        """Images in each split, in the order train, val, test; images without a split count as 'all'."""
        sizes = Counter(row.get("split") or "all" for row in self.rows)
        return {split: sizes[split] for split in (*SPLITS, "all") if sizes[split]}

    @property
    def headline_split(self) -> str:
        """The split that the result is told on: the sealed test split, else the one that was not trained on."""
        splits = self.results.get("splits") or {}
        return next((split for split in ("test", "val", "out-of-fold") if split in splits), "")


def read_run(folder: Path) -> Source:
    """Raises RunError when ``folder`` is not a run, is of a newer version, or has a damaged file."""
    run = RunFolder.open(folder)
    return _read(run, status=run.status)


def read_audit(folder: Path) -> Source:
    """Raises RunError when ``folder`` has no data.json, or a damaged file."""
    if not (folder / "data.json").is_file():
        raise RunError(f"{folder} has no data.json: give the folder that 'snellen audit' wrote")
    return _read(RunFolder(folder), status="")


def read_visit(folder: Path, findings: Sequence[Finding]) -> Source:
    """The folder that the doctor wrote to, a run's or one of its own, with what the doctor found. Raises RunError."""
    run = RunFolder(folder)
    status = run.status if (folder / "STATUS").is_file() else ""
    return replace(_read(run, status=status), findings=findings)


def _read(run: RunFolder, *, status: str) -> Source:
    findings = [Finding.from_json(fields) for fields in run.read_json("findings.json", missing=[])]
    try:
        events = list(run.events())
    except ValueError as error:
        raise RunError(f"{run.path / 'metrics.jsonl'} is damaged: {error}") from None
    return Source(
        folder=run.path,
        status=status,
        plan=run.read_json("plan.json", missing={}),
        data=run.read_json("data.json", missing={}),
        findings=sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))
        if (run.path / "findings.json").is_file()
        else None,
        events=events,
        results=run.read_json("results.json", missing={}),
        environment=run.read_json("environment.json", missing={}),
    )
