"""What is in the data, said and written down: by itself, or at the start of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.places import cache_of, check_place, fresh_folder, removed_on_failure
from snellen.api.results import Audit
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores
from snellen.core.finding import SEVERITIES, Finding, run_checks
from snellen.core.record import SPLITS
from snellen.core.run import RunFolder
from snellen.core.seeds import keyed_permutation

if TYPE_CHECKING:
    from snellen.audit.subject import AuditSubject
    from snellen.data.survey import Survey

_MOST_LOOKED_AT = 1_000  # images: about two seconds


def audit(
    data: str | Path,
    *,
    out: str | Path | None = None,
    quick: bool = False,
    console: Console | None = None,
    **settings: Any,
) -> Audit:
    """Say what is in ``data`` and whether it is fit to train on; writes a report. Raises SnellenError.

    quick  leave out what needs a network to look at the images: wrong labels, recognised groups, outliers
    """
    from snellen.data.survey import read_listing, survey

    console = console or Console()
    config = Config.of(data=str(data), **settings)
    check_place(out)
    cache = cache_of(config)
    name, listing = read_listing(config, cache, console)
    known = survey(name, listing, config, console=console, workers=max(2, available_cores()), cache=cache)
    features = None if quick else features_of(known, config, cache, console)
    maps = None if quick else maps_of(known, config, console)
    findings, summary = audited(known, features, maps)
    tell(console, known, findings)
    run = RunFolder.create(Path(out) if out else fresh_folder(f"{name}-audit"))
    with removed_on_failure(run):
        from snellen.report.build import build_audit_report

        write_survey(run, config, known, findings, summary)
        if _propose(run, known, findings):
            console.say(f"Changes proposed: {run.overlay}; try them with --overlay, they touch no file of yours")
        build_audit_report(run.path)
        run.set_status("done")
    console.say(f"Report: {run.path / 'report.html'}")
    return Audit(run.path, findings, summary)


def features_of(known: Survey, config: Config, cache: Path, console: Console) -> Mapping[str, Any]:
    """What a frozen network sees in the images, by id; kept in ``cache``."""
    from snellen.train.embedding import embed

    embedding = embed(known, config, cache, console)
    console.say(f"Looked at {embedding.sentence}")
    return embedding.of


def maps_of(known: Survey, config: Config, console: Console) -> Mapping[str, Any] | None:
    """What it sees at each place of images in which objects or pixels are marked, by id; None where none are."""
    if not (known.listing.marks_objects or known.listing.has_masks):
        return None
    from snellen.train.dense_embedding import embed_places

    maps = embed_places(known, config, console)
    console.say(f"Looked at the places of {len(maps):,} images")
    return maps


def audited(
    known: Survey, features: Mapping[str, Any] | None = None, maps: Mapping[str, Any] | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """What the checks found, and the summary. ``features`` and ``maps`` are those of ``AuditSubject``, or None."""
    from snellen.audit.run_audit import run_audit
    from snellen.audit.summary import summarize

    subject = subject_of(known, features, maps)
    return run_audit(subject), summarize(subject)


def subject_of(
    known: Survey, features: Mapping[str, Any] | None = None, maps: Mapping[str, Any] | None = None
) -> AuditSubject:
    """What the checks look at."""
    from snellen.audit.subject import AuditSubject

    return AuditSubject(
        listing=known.listing,
        facts=known.facts,
        left_out=known.left_out,
        pairs=known.pairs,
        manifest=known.manifest,
        features=features,
        maps=maps,
    )


def look_at_labels(
    run: RunFolder, known: Survey, console: Console, features: Mapping[str, Any], *, by_network: bool = True
) -> None:
    """What a training's own features say of the labels goes to the other findings of the run, and is said.

    Of at most ``_MOST_LOOKED_AT`` images, drawn at random: a training should not wait for it.

    by_network  False: ``features`` are pixels, in which labels may well be hidden: that they tell nothing is no finding
    """
    from snellen.audit.checks import LABEL_CHECKS
    from snellen.audit.label_order import labels_carry_nothing
    from snellen.audit.pictures import save_pictures

    order = keyed_permutation(len(features), "labels")[:_MOST_LOOKED_AT]
    ids = sorted(features)
    subject = subject_of(known, {ids[i]: features[ids[i]] for i in order})
    found = run_checks([each for each in LABEL_CHECKS if by_network or each is not labels_carry_nothing], subject)
    if not found:
        return
    findings = sorted([*run.findings, *found], key=lambda finding: -SEVERITIES.index(finding.severity))
    run.write_findings(findings)
    save_pictures(run, known, findings)
    _tell_findings(console, found)


def _propose(run: RunFolder, known: Survey, findings: Sequence[Finding]) -> bool:
    """overlay.json: what ``findings`` would change in the data, after what was changed already; False if nothing."""
    from snellen.data.overlay import merged, proposed, write_overlay

    changes = proposed(findings)
    if changes:
        write_overlay(run.overlay, known.name, merged([*known.listing.changes, *changes]))
    return bool(changes)


def write_survey(
    run: RunFolder, config: Config, known: Survey, findings: Sequence[Finding], summary: dict[str, Any]
) -> None:
    """data.json, findings.json and the pictures of both."""
    from snellen.audit.pictures import save_examples, save_pictures
    from snellen.data.survey import task_of

    task = task_of(config, known.listing)
    content = {
        "version": 1,
        "name": known.name,
        "task": task,
        "format": known.listing.format,
        "manifest": known.manifest.to_json(),
        "left_out": [{"path": left.path, "reason": left.reason} for left in known.left_out],
        "notes": list(known.notes),
        "summary": summary,
        "test_uses": int(config.test),
    }
    run.write_json("data.json", content)
    run.write_findings(findings)
    save_examples(run, known, summary["examples"], task)
    save_pictures(run, known, findings, task)


def tell(console: Console, known: Survey, findings: Sequence[Finding]) -> None:
    """The data in a few lines: nothing that was decided stays unsaid."""
    sizes = ", ".join(f"{len(known.side(split))} {split}" for split in SPLITS if known.side(split))
    console.say(
        f"{known.name}: {len(known.records)} images {known.manifest.question} ({sizes}), {len(known.left_out)} left out"
    )
    for note in known.notes:
        console.say(f"  {note}")
    _tell_findings(console, findings)


def _tell_findings(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.severity != "info":
            console.say(f"  {finding.severity}: {finding.message} {finding.advice}")
