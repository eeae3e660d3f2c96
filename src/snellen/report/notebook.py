"""A run as a notebook shows it: the verdict, the number beside its baselines, and what the model was fed."""

from __future__ import annotations

from pathlib import Path

from snellen.report import data, results
from snellen.report.build import STATUS_NOTES, render
from snellen.report.source import read_run


def run_as_html(folder: Path) -> str:
    """An HTML fragment, safe to show: every name in it is text. Raises RunError as ``build_report`` does."""
    source = read_run(folder)
    return render(
        "notebook.html.jinja",
        {
            "name": source.name,
            "status_note": STATUS_NOTES.get(source.status, ""),
            "verdict": source.results.get("verdict") or "There is no result yet.",
            "headline": results.headline(source),
            "contact_sheet": data.contact_sheet(source),
        },
    )
