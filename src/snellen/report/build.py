"""One HTML file that a person can read, mail, print and keep: no scripts, nothing fetched, nothing outside the folder.

The page is a pure function of the folder's JSON and pictures: the same input gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from snellen.core.files import write_text
from snellen.core.finding import Finding
from snellen.draw.text import legible
from snellen.report import data, findings, results, summary, training
from snellen.report.learning import learning_charts
from snellen.report.source import Source, read_audit, read_run
from snellen.report.wording import SPLIT_NAMES, counted, plain, words_of

MAX_TEXT = 1000  # characters of any one text; class and file names are cut shorter, in the middle
MAX_NEXT_STEPS = 5

SEVERITY_NAMES = {"serious": "Serious", "warning": "Warning", "info": "Good to know"}
STATUS_NOTES = {
    "running": "This run is still going on, or was killed: what follows is what it has written so far.",
    "stopped": "This run was stopped before its end and can be resumed; the numbers are of the best model so far.",
    "failed": "This run failed: what follows is what it wrote before that.",
}


def build_report(folder: Path) -> Path:
    """Write ``folder``/report.html from the files of a run folder, and return its path.

    Needs neither the images nor torch. Raises RunError for a folder that is not a run or is damaged, StorageError when
    the page cannot be written.
    """
    source = read_run(folder)
    path = folder / "report.html"
    write_text(path, render("report.html.jinja", _run_parts(source)))
    return path


def build_audit_report(folder: Path) -> Path:
    """Write ``folder``/report.html from data.json, findings.json and pictures/ of an audit, and return its path.

    Raises RunError and StorageError as ``build_report`` does.
    """
    source = read_audit(folder)
    path = folder / "report.html"
    write_text(path, render("audit.html.jinja", {**data_parts(source), "proposal": findings.proposal(source)}))
    return path


def data_parts(source: Source) -> dict[str, Any]:
    """What every page that tells of data shows: its name, sizes, examples and findings."""
    found = source.findings
    return {
        "name": source.name,
        "task": source.task,
        "words": words_of(source.task),
        "dense": source.dense,
        "num_classes": len(source.classes),
        "num_images": len(source.rows),
        "split_sizes": {SPLIT_NAMES[split]: size for split, size in source.split_sizes.items()},
        "split_note": data.split_note(source),
        "split_reasons": [str(note) for note in source.data.get("notes") or source.manifest.get("reasons") or ()],
        "facts": summary.facts(source.summary),
        "data_charts": [*data.target_charts(source), *summary.charts(source.summary)],
        "left_out": data.left_out(source),
        "examples": data.examples(source),
        "checked": found is not None,
        "findings": findings.told(source),
        "num_findings": len(found or ()),
        "next_steps": _next_steps(found or ()),
    }


def _run_parts(source: Source) -> dict[str, Any]:
    headline = results.headline(source)
    return {
        **data_parts(source),
        "status_note": STATUS_NOTES.get(source.status, ""),
        "verdict": source.results.get("verdict") or "",
        "headline": headline,
        "contact_sheet": data.contact_sheet(source),
        "story": training.story(source),
        "training_charts": training.training_charts(source),
        "tables": results.result_tables(source),
        "class_table": results.class_table(source),
        "result_charts": [*results.prediction_charts(source), *learning_charts(source)],
        "mistakes": results.mistakes(source),
        "plan": _plan_rows(source),
        "environment": {name: plain(value) for name, value in source.environment.items()},
        "license": str(source.choices.get("weights_license") or ""),
    }


def _next_steps(found: Sequence[Finding]) -> list[Finding]:
    """The advice worth following, once each: of what is serious or a warning."""
    urgent = [finding for finding in found if finding.severity != "info" and finding.advice]
    return list({finding.advice: finding for finding in reversed(urgent)}.values())[::-1][:MAX_NEXT_STEPS]


def _plan_rows(source: Source) -> list[tuple[str, str, str]]:
    """(choice, value, reason); those with a reason were made by Snellen and come first."""
    reasons = source.plan.get("reasons") or {}
    choices = {name: value for name, value in source.choices.items() if name not in ("classes", "data_digest")}
    choices |= choices.pop("preprocessing", None) or {}  # its parts are chosen, and explained, one by one
    rows = [
        (name.replace("_", " "), plain(choices[name]) if name in choices else "–", str(reasons.get(name, "")))
        for name in dict.fromkeys((*reasons, *choices))
    ]
    return sorted(rows, key=lambda row: not row[2])


def render(template: str, parts: dict[str, Any]) -> str:
    """Fill a template of this package; what is not markup is escaped and made legible."""
    pages = Environment(
        loader=PackageLoader("snellen.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    pages.filters.update(
        counted=counted,
        plain=plain,
        name=lambda text: legible(text, 80),
        sentence=lambda text: text[:1].upper() + text[1:],
        svg=Markup,  # only on charts, which draw/ has escaped
    )
    pages.globals.update(severity_names=SEVERITY_NAMES, max_finding_images=findings.MAX_IMAGES)
    text = pages.get_template(template).render(parts)
    return re.sub(r"\n\s*\n+", "\n", text)


def _shown(value: Any) -> Any:
    """Everything that is printed into the page and is not markup: legible, and of bounded length."""
    return value if isinstance(value, Markup | int | float) else legible(value, MAX_TEXT)
