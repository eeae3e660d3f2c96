"""The runs that are to answer together, and the images that may judge them: those that no one of them learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from snellen.core.errors import ConfigError, DataError, RunError
from snellen.core.files import sha256_of_file
from snellen.core.plan import Plan
from snellen.core.run import RunFolder, names_of
from snellen.data.manifest import Manifest, Row


@dataclass(frozen=True)
class Member:
    """A run with one model. ``name`` tells it from the others."""

    name: str
    folder: RunFolder

    @property
    def checkpoint(self) -> Path:
        return self.folder.best_checkpoint

    @cached_property
    def sha256(self) -> str:
        return sha256_of_file(self.checkpoint)

    @cached_property
    def plan(self) -> Plan:
        return self.folder.plan

    @cached_property
    def manifest(self) -> Manifest:
        content = self.folder.read_json("data.json")
        try:
            return Manifest.from_json(content["manifest"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.folder.path / 'data.json'} is damaged: {error!r}") from None

    @cached_property
    def side_of(self) -> dict[str, str]:
        """By ``_key``."""
        return {_key(row): row.split for row in self.manifest.rows}

    @property
    def learnt(self) -> frozenset[str]:
        """By ``_key``, without their kin."""
        return frozenset(key for key, side in self.side_of.items() if side == "train")

    @cached_property
    def known(self) -> frozenset[str]:
        """What it learnt from: files, and the copies and groups that they belong to."""
        rows = [row for row in self.manifest.rows if row.split == "train"]
        return frozenset(mark for row in rows for mark in _marks(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What the members may be judged by.

    val, test  rows of the first member that are on that side for every member, and that none has learnt from
    manifest   every image of every member: for training what any of them learnt from, or was chosen by alone
    notes      sentences about what was left out
    """

    val: tuple[Row, ...]
    test: tuple[Row, ...]
    manifest: Manifest
    notes: tuple[str, ...]


def open_members(paths: Sequence[Path]) -> list[Member]:
    """The runs at ``paths``; of a cross-validation its folds.

    Raises ConfigError for fewer than two, RunError for one that has no finished model, is an ensemble itself or is
    given twice, DataError when they answer different questions.
    """
    folders = [folder for path in paths for folder in _runs_of(RunFolder.open(path))]
    if len(folders) < 2:
        raise ConfigError("give two runs or more: an ensemble of one model is that model")
    paths = [folder.path.absolute() for folder in folders]
    repeated = next((path for path in paths if paths.count(path) > 1), None)
    if repeated is not None:
        raise RunError(f"{repeated} is given twice: name each run once")
    names = names_of(paths)
    members = [Member(name, folder) for name, folder in zip(names, folders, strict=True)]
    twice = [name for name, count in Counter(member.sha256 for member in members).items() if count > 1]
    if twice:
        same = [member.name for member in members if member.sha256 == twice[0]]
        raise RunError(f"{' and '.join(same)} have the same model: name each once")
    for member in members[1:]:
        _check_question(members[0], member)
    return members


def _runs_of(run: RunFolder) -> Iterator[RunFolder]:
    if run.is_ensemble and run.status == "done" and not run.best_checkpoint.is_file():
        raise RunError(f"{run.path} is an ensemble itself: name the runs that it was made of, and what you would add")
    if run.is_cross_validation:
        run.models()
        yield from (RunFolder.open(run.fold(number, repeat)) for repeat, number in run.folds())
        return
    if run.status != "done" and not run.is_ensemble:
        raise RunError(f"{run.path} is not done, but {run.status}: go on with snellen train --resume {run.path}")
    run.models()
    yield run


def _check_question(first: Member, other: Member) -> None:
    if other.plan.task != first.plan.task:
        raise DataError(
            f"{first.name} and {other.name} answer different questions, {first.plan.task} and {other.plan.task}: an "
            "ensemble is of runs of one task"
        )
    if sorted(other.plan.classes) != sorted(first.plan.classes):
        odd = sorted(set(first.plan.classes) ^ set(other.plan.classes))
        raise DataError(
            f"{first.name} and {other.name} have different classes ({', '.join(odd[:5])}): an ensemble is of runs on "
            "the same classes"
        )


def shared_sides(members: Sequence[Member]) -> Sides:
    """Raises DataError when there is no image that may judge all of the members."""
    first = members[0]
    notes: list[str] = []
    val = _clean(members, "val", frozenset().union(*(member.known for member in members)), notes)
    seen = frozenset().union(*(_known_or_chosen(member) for member in members))
    test = _clean(members, "test", seen, notes)
    if not val and not test:
        raise DataError(
            f"there is no image that could judge {' and '.join(member.name for member in members)} together: each was "
            "learnt from by one of them; train them with one --split-seed, or on sides that you give"
        )
    judged = {_key(row): row.split for row in (*val, *test)}
    rows = {_key(row): row for row in first.manifest.rows}
    for member in members[1:]:
        taken = {row.id for row in rows.values()}
        for row in member.manifest.rows:
            if _key(row) not in rows:
                rows[_key(row)] = row if row.id not in taken else replace(row, id=f"{member.name}: {row.id}")
    sided = [replace(row, split=judged.get(key, "train")) for key, row in rows.items()]
    reason = f"what any of {len(members)} members has learnt from counts as learnt from"
    manifest = replace(first.manifest, rows=tuple(sorted(sided, key=lambda row: row.id)), reasons=(reason, *notes))
    return Sides(val=val, test=test, manifest=manifest, notes=tuple(notes))


def _clean(members: Sequence[Member], side: str, known: frozenset[str], notes: list[str]) -> tuple[Row, ...]:
    """The rows of a side that all members have there, with the same truth, and of which nothing is ``known``."""
    told = {"val": "validation", "test": "test"}[side]
    every = {_key(row) for member in members for row in member.manifest.rows if row.split == side}
    shared = {key for key in every if all(member.side_of.get(key) == side for member in members)}
    learnt = {_key(row) for member in members for row in member.manifest.rows if known & _marks(row)} & every
    truths = [{_key(row): _truth(row, member.plan.classes) for row in member.manifest.rows} for member in members]
    odd = {key for key in shared - learnt if len({truth[key] for truth in truths}) > 1}
    if learnt:
        notes.append(
            f"{len(learnt)} of {len(every)} {told} images are left out: another member has learnt from them, or from "
            "copies of them"
        )
    if alone := every - shared - learnt:
        notes.append(f"{len(alone)} of {len(every)} {told} images are left out: they are not {told} images of all")
    if odd:
        notes.append(f"{len(odd)} of {len(every)} {told} images are left out: they have other labels in another run")
    kept = shared - learnt - odd
    return tuple(row for row in members[0].manifest.rows if _key(row) in kept)


def _known_or_chosen(member: Member) -> frozenset[str]:
    chosen = (row for row in member.manifest.rows if row.split == "val")
    return member.known.union(*(_marks(row) for row in chosen))


def _key(row: Row) -> str:
    return row.sha256 or row.id


def _marks(row: Row) -> frozenset[str]:
    """What tells an image and its kin: its file, its copies, its group."""
    kin = {"copies of": row.cluster, "group": row.group}
    return frozenset((_key(row), *(f"{kind} {name}" for kind, name in kin.items() if name is not None)))


def _truth(row: Row, names: Sequence[str]) -> tuple[object, ...]:
    """``names``: of the values, in their order."""
    values = None if row.values is None else frozenset(zip(names, row.values, strict=True))
    return frozenset(row.labels), values, row.truth
