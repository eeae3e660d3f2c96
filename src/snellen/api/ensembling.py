"""The verb ``ensemble``: several runs become one that answers for them, and is told whether that was worth it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.places import cache_of, check_place, fresh_folder, removed_on_failure
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import DataError
from snellen.core.files import replace_atomically, write_bytes, write_text
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.api.ensemble_results import Work
    from snellen.data.manifest import Row
    from snellen.ensemble.fitting import Fitted
    from snellen.ensemble.panel import Panel, Side
    from snellen.ensemble.together import Ensemble
    from snellen.tasks.base import Task


def ensemble(
    *runs: str | Path | Run,
    way: str = "auto",
    out: str | Path | None = None,
    test: bool = True,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> Run:
    """Join runs of one question into a run folder of its own, which needs them no more.

    runs   two or more finished runs; a cross-validation stands for its folds
    way    auto, mean, weighted, vote, rank or soup: ``snellen.ensemble.ways``
    out    the folder, which must not exist; by default a fresh one in runs/
    test   open the sealed test images that all members share, at the end
    seed   of the halves that fitted weights are judged by, and of the bootstrap

    Images that one member has learnt from do not judge another. Raises SnellenError.
    """
    from snellen.ensemble.members import open_members, shared_sides
    from snellen.ensemble.ways import check_fit, check_way, chosen_way, is_fitted

    console = console or Console()
    check_way(way)
    Config.of(data="any", device=device, seed=seed)
    members = open_members([run.path if isinstance(run, Run) else Path(run) for run in runs])
    first = members[0]
    check_fit(way, first.plan.task)
    check_place(out)
    prepare_process()
    from snellen.api.ensemble_results import Work  # torch is loaded here, after the process is prepared

    sides = shared_sides(members)
    way, reason = chosen_way(way, first.plan.task, len({row.group or row.id for row in sides.val}))
    if is_fitted(way, first.plan.task) and not sides.val:
        raise DataError(
            f"the members share no validation image that none of them learnt from, which way = {way} is fitted on: use "
            "way = mean, or train them with one --split-seed"
        )
    own = first.folder.config.model_copy(update={"folds": None, "fold": None, "repeats": 1, "test": test})
    work = Work(
        way=way,
        members=members,
        sides=sides,
        config=own,
        cache=cache_of(own),
        device=device,
        seed=seed,
        test=test,
        console=console,
    )
    console.say(f"{len(members)} models: {', '.join(work.names)}")
    for note in sides.notes:
        console.say(f"  {note}")
    if reason:
        console.say(f"  --way {way}: {reason}")
    run = RunFolder.create(Path(out) if out is not None else fresh_folder(f"{Path(own.data).stem}-ensemble"))
    with removed_on_failure(run):
        _make(run, work)
    return Run(run.path)


def _make(run: RunFolder, work: Work) -> None:
    """Everything of the folder; STATUS is 'done' only when all of it is there."""
    from snellen.api.ensemble_results import write_results
    from snellen.core.checkpoint import Checkpoint
    from snellen.ensemble.panel import Panel
    from snellen.ensemble.together import Ensemble
    from snellen.report.ensemble import build_ensemble_report
    from snellen.tasks.loading import load_model

    _write_recipe(run, work, [1.0 / len(work.members)] * len(work.members))
    write_text(run.path / "config.toml", work.config.to_toml())
    first = work.members[0].folder
    if first.overlay.is_file():
        shutil.copyfile(first.overlay, run.overlay)
    checkpoints = [Checkpoint.load(member.checkpoint) for member in work.members]
    together = Ensemble([load_model(each, device=work.device) for each in checkpoints])
    # What is wrong with the images is told before anything long begins.
    val, sealed = (_records(work, rows) for rows in (work.sides.val, work.sides.test if work.test else ()))
    panel = Panel(together, _side("validation", together.task, val), work.console) if val else None
    shipped, fitted = _joined(run, work, together, panel)
    _write_data(run, work)
    tested = Panel(together, _side("test", together.task, sealed), work.console) if sealed else None
    write_results(run, work, shipped, {"val": panel, "test": tested}, fitted)
    _write_rest(run, work)
    report = build_ensemble_report(run.path)
    run.set_status("done")
    work.console.say(f"Report: {report}   ({work.console.seconds:.1f} s)")


def _records(work: Work, rows: Sequence[Row]) -> list[Any]:
    """The records of some images as they are now. Raises DataError when one is gone, or not what it was."""
    from snellen.data.survey import read_listing
    from snellen.evaluate import readable

    if not rows:
        return []
    _, listing = read_listing(work.members[0].folder.config, work.cache)
    found = {record.id: record for record in listing.records}
    missing = [row.id for row in rows if row.id not in found]
    records, hashes = readable([replace(found[r.id], group=r.group) for r in rows if r.id in found], work.console)
    known = {row.id: row.sha256 for row in rows}
    changed = [r.id for r, sha256 in zip(records, hashes, strict=True) if known[r.id] not in (None, sha256)]
    if missing or changed or len(records) < len(rows):
        odd = [*missing, *changed] or [row.id for row in rows if row.id not in {record.id for record in records}]
        raise DataError(
            f"{len(odd)} of the {len(rows)} images that judge the members are gone from {work.config.data}, or are not "
            f"what they were, the first is {odd[0]}: put them back"
        )
    return records


def _side(name: str, task: Task[Any], records: Sequence[Any]) -> Side:
    from snellen.ensemble.panel import Side
    from snellen.evaluate import groups_of

    return Side(name, records, [task.target(record) for record in records], groups_of(records))


# --- joining


def _joined(run: RunFolder, work: Work, together: Ensemble, panel: Panel | None) -> tuple[Ensemble, Fitted | None]:
    """What ships, its files written; and what was fitted for it, if anything."""
    from snellen.ensemble.fitting import Ranking, Souping, Weighing, cross_fitted
    from snellen.ensemble.ways import is_fitted

    count = len(work.members)
    if panel is None or not is_fitted(work.way, together.task.name):
        _write_members(run, work, [1 / count] * count)
        return together.joined(work.way), None
    if work.way == "soup":
        return _soup(run, work, panel, Souping(panel, _soups(work)))
    if work.way == "rank":
        found = cross_fitted(Ranking(panel), panel, work.seed)
        _write_members(run, work, [1 / count] * count)
        _write_reference(run, found.fitted)
        return together.joined("rank", reference=found.fitted), found
    work.console.say(f"Fitting what each member counts, by {panel.side.num_units} validation images")
    found = cross_fitted(Weighing(panel), panel, work.seed)
    _write_members(run, work, found.fitted)
    return together.joined("weighted", found.fitted), found


def _soups(work: Work) -> Any:
    """Raises ConfigError for members that have no mean."""
    from snellen.core.checkpoint import Checkpoint
    from snellen.ensemble.soup import MEASURED_ON, Soups, check_alike, statistics_differ

    checkpoints = [Checkpoint.load(member.checkpoint) for member in work.members]
    check_alike(checkpoints, work.names)
    train = []
    if statistics_differ([each.weights for each in checkpoints]):
        shared = frozenset.intersection(*(member.learnt for member in work.members))
        rows = [row for row in work.members[0].manifest.rows if (row.sha256 or row.id) in shared]
        train = _records(work, rows[:MEASURED_ON])
    return Soups(checkpoints, train, work.device)


def _soup(run: RunFolder, work: Work, panel: Panel, souping: Any) -> tuple[Ensemble, Fitted]:
    from snellen.ensemble.fitting import cross_fitted
    from snellen.ensemble.judging import judge
    from snellen.ensemble.together import Ensemble

    found = cross_fitted(souping, panel, work.seed)
    model, checkpoint = souping.soups.mixed(found.fitted)
    metrics = judge(panel.members.task, panel.side, found.flattered, work.seed).numbers
    replace(checkpoint, metrics=metrics).save(run.best_checkpoint)
    weights = [1 / len(found.fitted) if k in found.fitted else 0.0 for k in range(len(work.members))]
    _write_recipe(run, work, weights, copied=False)
    return Ensemble([model]), found


# --- files


def _write_members(run: RunFolder, work: Work, weights: Sequence[float]) -> None:
    """Copies of the checkpoints of those that have a say."""
    run.best_checkpoint.parent.rmdir()  # what answers is in members/
    for number, (member, weight) in enumerate(zip(work.members, weights, strict=True), start=1):
        if weight > 0:
            replace_atomically(run.path / _file(number), partial(shutil.copyfile, member.checkpoint))
    _write_recipe(run, work, weights)


def _file(number: int) -> str:
    return f"members/{number}.safetensors"


def _write_recipe(run: RunFolder, work: Work, weights: Sequence[float], *, copied: bool = True) -> None:
    from snellen.ensemble.recipe import Ingredient, Recipe

    members = tuple(
        Ingredient(
            name=member.name,
            run=str(member.folder.path.absolute()),
            sha256=member.sha256,
            weight=weight,
            file=_file(number) if copied and weight > 0 else None,
        )
        for number, (member, weight) in enumerate(zip(work.members, weights, strict=True), start=1)
    )
    run.write_json(RunFolder.RECIPE, Recipe(way=work.way, members=members).to_json())


def _write_reference(run: RunFolder, scores: Any) -> None:
    from safetensors.numpy import save

    from snellen.ensemble.loading import REFERENCE

    write_bytes(run.path / REFERENCE, save({"scores": scores}))


def _write_data(run: RunFolder, work: Work) -> None:
    """What is known of the data: as the first member has it, but for who has learnt from what."""
    first = work.members[0].folder
    content = first.read_json("data.json")
    opened = int(work.test and bool(work.sides.test))
    uses = opened + sum(member.folder.read_json("data.json").get("test_uses", 0) for member in work.members)
    notes = [*content.get("notes", []), *work.sides.manifest.reasons]
    manifest = work.sides.manifest.to_json()
    run.write_json("data.json", {**content, "manifest": manifest, "notes": notes, "test_uses": uses})
    run.write_json("findings.json", first.read_json("findings.json", missing=[]))
    if first.pictures.is_dir():
        left_out = shutil.ignore_patterns("mistake-*")
        shutil.copytree(first.pictures, run.pictures, dirs_exist_ok=True, ignore=left_out)


def _write_rest(run: RunFolder, work: Work) -> None:
    """plan.json is that of the first member: the question, the classes, how images are seen."""
    from snellen.ensemble.recipe import Recipe
    from snellen.ensemble.ways import told_way
    from snellen.train.environment import environment

    plan = work.members[0].plan
    recipe = Recipe.read(run)
    told = told_way(work.way, len(recipe.counting), len(recipe.members))
    reasons = {"ensemble": f"{told}; what follows is of {work.names[0]}"}
    run.write_json("plan.json", replace(plan, reasons=reasons).to_json())
    run.write_json("environment.json", environment(plan, keeps_memory=prepare_process()))
