"""The doctor's page: what it is, how sure that is, the evidence, what to do; then signs, and what was not examined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from snellen.core.files import write_text
from snellen.core.finding import Finding
from snellen.core.run import RunFolder
from snellen.draw.chart import Chart
from snellen.draw.forest import Interval, forest
from snellen.report import findings
from snellen.report.build import render
from snellen.report.source import Source, read_visit
from snellen.report.training import training_charts
from snellen.report.wording import words_of


def build_doctor_report(folder: Path) -> Path:
    """Write ``folder``/doctor.html from its doctor.json, and from the files of the run where it is one's folder.

    Raises RunError when there is none or it is damaged, StorageError when the page cannot be written.
    """
    visit = RunFolder(folder).read_json("doctor.json")
    source = read_visit(folder, [Finding.from_json(fields) for fields in visit["findings"]])
    known = [each for each in source.findings or () if each.is_diagnosis]
    signs = [each for each in source.findings or () if each not in known]
    path = folder / "doctor.html"
    parts = {
        "subject": visit["subject"],
        "words": words_of(source.task),
        "dense": source.dense,
        "confirmed": bool(visit["confirmed"]),
        "seconds": visit["seconds"],
        "skipped": visit["skipped"],
        "known": findings.told(replace(source, findings=known)),
        "signs": findings.told(replace(source, findings=signs)),
        "trial": visit["trial"],
        "charts": [*_trial_charts(visit["trial"]), *_curves(source)],
    }
    write_text(path, render("doctor.html.jinja", parts))
    return path


def _trial_charts(trial: Mapping[str, Any] | None) -> list[Chart]:
    if trial is None:
        return []
    rows = [
        Interval(name=name, value=arm["value"], low=arm["low"], high=arm["high"])
        for name, arm in (("treated", trial["gain"]), ("untreated, other seeds", trial["placebo"]))
    ]
    return [
        forest(
            "What the treatment did",
            "Differences to the control arm with their 95 % intervals; the rule was written down before the runs.",
            rows,
            x_label="difference of the validation score",
            reference=0.0,
        )
    ]


def _curves(source: Source) -> list[Chart]:
    return training_charts(source) if source.events else []
