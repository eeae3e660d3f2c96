"""The findings with the images they name: pairs side by side, each with what is said of it and what would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from snellen.core.estimate import amount
from snellen.core.finding import Certainty, Finding
from snellen.core.run import RunFolder
from snellen.report.album import FINDINGS_BYTES, Album
from snellen.report.source import Json, Source
from snellen.report.wording import SPLIT_NAMES, counted

CERTAINTY_NAMES: Mapping[Certainty, str] = {
    "certain": "certain",
    "confirmed": "confirmed by an experiment",
    "observed": "a sign, not a proof",
}
MAX_FINDINGS = 100
MAX_IMAGES = 24  # of a finding, named and shown
_AT_ONCE = 8  # pictures; the others are unfolded
_SIDE, _SCENE_SIDE = 160, 320  # pixels


@dataclass(frozen=True, slots=True)
class Seen:
    """An image that a finding names. said: its class and side; change: what is proposed; both '' if there is none."""

    id: str
    said: str
    change: str
    picture: Markup | None


@dataclass(frozen=True, slots=True)
class Told:
    """A finding as the page tells it. shown, more: images in groups of one, or of two that belong side by side."""

    finding: Finding
    certainty: str
    shown: Sequence[Sequence[Seen]]
    more: Sequence[Sequence[Seen]]


def told(source: Source) -> list[Told]:
    """The first hundred findings; images without a picture in the folder are left to the names in the evidence."""
    album = Album(_pictures(source), FINDINGS_BYTES)
    rows = {str(row.get("id")): row for row in source.rows}
    return [_told(finding, source, album, rows) for finding in (source.findings or ())[:MAX_FINDINGS]]


def proposal(source: Source) -> str:
    """How many changes to the data an audit's findings propose, in words; '' for none."""
    if not RunFolder(source.folder).overlay.is_file():
        return ""
    changes = RunFolder(source.folder).read_json("overlay.json").get("changes", [])
    return counted(len(changes), "change") if changes else ""


def _pictures(source: Source) -> Path:
    """Where the pictures are: a cross-validation tells the findings of its first fold."""
    run = RunFolder(source.folder)
    own = run.picture_of("").parent
    return own if own.is_dir() else RunFolder(run.fold(1)).picture_of("").parent


def _told(finding: Finding, source: Source, album: Album, rows: Mapping[str, Json]) -> Told:
    changes = _changes(finding)

    def seen(image: str) -> Seen:
        name = RunFolder(source.folder).picture_of(image).name
        picture = album.picture(name, _SCENE_SIDE if source.dense else _SIDE)
        return Seen(image, _said(rows.get(image, {}), source), changes.get(image, ""), picture)

    groups = [[seen(image) for image in group] for group in _grouped(finding)]
    groups = [group for group in groups if any(each.picture is not None for each in group)]
    at_once = _AT_ONCE // max(map(len, groups), default=1)
    certainty = CERTAINTY_NAMES.get(finding.certainty, str(finding.certainty))
    return Told(finding, certainty, groups[:at_once], groups[at_once:])


def _grouped(finding: Finding) -> list[tuple[str, ...]]:
    """The pairs of the evidence, where there are any; else each image alone."""
    named = {str(image) for image in finding.images}
    pairs = finding.evidence.get("pairs")
    groups: list[tuple[str, ...]] = []
    for pair in pairs if isinstance(pairs, list) else ():
        ids = tuple(str(each) for each in pair if str(each) in named) if isinstance(pair, list) else ()
        if len(ids) == 2:
            groups.append(ids)
    return groups[: MAX_IMAGES // 2] or [(str(image),) for image in finding.images[:MAX_IMAGES]]


def _said(row: Json, source: Source) -> str:
    """``ant, for training``; of numbers their values, with names where there are several."""
    values = row.get("values")
    if values is None:
        words = ", ".join(map(str, row.get("labels") or ()))
    elif len(values) == 1:
        words = amount(values[0])
    else:
        words = ", ".join(f"{name} {amount(value)}" for name, value in zip(source.classes, values, strict=False))
    side = SPLIT_NAMES.get(str(row.get("split")), "")
    return " · ".join(part for part in (words, side) if part)


def _changes(finding: Finding) -> dict[str, str]:
    """What the finding proposes for each image, as ``relabel: bee``."""
    wanted = finding.treatment.get("overlay")
    changes: dict[str, str] = {}
    for change in wanted if isinstance(wanted, list | tuple) else ():
        value = change.get("value")
        said = ", ".join(map(str, value)) if isinstance(value, list | tuple) else _text(value)
        changes[str(change.get("image"))] = f"{change.get('action')}: {said}" if said else str(change.get("action"))
    return changes


def _text(value: Any) -> str:
    return "" if value is None else str(value)
