"""What runs said of the images that they were judged on, and which of these images they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from snellen.core.errors import DataError, RunError
from snellen.core.run import OUT_OF_FOLD, RunFolder, names_of
from snellen.data.manifest import Manifest, Row
from snellen.tasks.base import Task, create_task

# Where runs can be judged, what says most first: images that nothing was chosen by, then those that chose an epoch.
SIDES = ("test", OUT_OF_FOLD, "val")


@dataclass(frozen=True)
class Judged:
    """A run with its answers.

    sides  ids of the images that it was judged on, by side, in the order of the answers
    """

    folder: RunFolder
    name: str
    task: Task[Any]
    manifest: Manifest
    sides: Mapping[str, Sequence[str]]

    @cached_property
    def rows(self) -> dict[str, Row]:
        return {row.id: row for row in self.manifest.rows}

    @cached_property
    def learnt(self) -> dict[str, str]:
        """By sha256 of their files, the ids of the images that it was trained on."""
        return {row.sha256: row.id for row in self.manifest.rows if row.split == "train" and row.sha256 is not None}

    def answers(self, side: str) -> tuple[Sequence[Any], Sequence[Any]]:
        """Predictions and truth on ``side``. Raises RunError when the file is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.folder.predictions / f"{side}.safetensors"
        try:
            predicted, truth = self.task.read_arrays(load_file(path))
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise RunError(f"{path} is damaged: {error}; train anew") from None
        if len(predicted) != len(self.sides[side]):
            raise RunError(f"{path} is damaged: it has {len(predicted)} answers for {len(self.sides[side])} images")
        return predicted, truth


@dataclass(frozen=True, slots=True)
class Match:
    """The images that several runs were judged on.

    places  of each run, the place of every shared image among its answers [runs][n]
    groups  what must be resampled together; None when every image stands alone
    notes   sentences about what was left out, and warnings
    """

    side: str
    places: Sequence[Sequence[int]]
    groups: Sequence[str] | None
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.places[0])


def read_judged(runs: Sequence[RunFolder]) -> list[Judged]:
    """Raises RunError for a run without answers, DataError when the runs answer different questions."""
    names = names_of([run.path for run in runs])
    judged = [_read(run, name) for run, name in zip(runs, names, strict=True)]
    first = judged[0]
    for other in judged[1:]:
        if other.task.name != first.task.name:
            raise DataError(
                f"{first.name} and {other.name} answer different questions, {first.task.name} and {other.task.name}: "
                "compare runs of one task"
            )
        if other.task.classes != first.task.classes:
            odd = sorted(set(first.task.classes) ^ set(other.task.classes)) or ["their order"]
            raise DataError(
                f"{first.name} and {other.name} have different classes ({', '.join(odd[:5])}): compare runs on the "
                "same classes"
            )
    return judged


def _read(run: RunFolder, name: str) -> Judged:
    sides = {
        side: run.read_json(f"predictions/{side}.json")
        for side in SIDES
        if (run.predictions / f"{side}.json").is_file() and (run.predictions / f"{side}.safetensors").is_file()
    }
    if not sides:
        raise RunError(f"{run.path} has no answers to compare: it was an audit, or has not come to its end")
    content = run.read_json("data.json")
    try:
        manifest = Manifest.from_json(content["manifest"])
        task = create_task(content["task"], manifest.classes)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path / 'data.json'} is damaged: {error!r}") from None
    return Judged(run, name, task, manifest, sides)


def match(runs: Sequence[Judged]) -> Match | None:
    """The images that all ``runs`` were judged on, on the first side of SIDES where there are any; None: nowhere."""
    for side in SIDES:
        if all(side in run.sides for run in runs):
            places = _shared(runs, side)
            if places[0]:
                return _matched(runs, side, places)
    return None


def _shared(runs: Sequence[Judged], side: str) -> list[list[int]]:
    first = runs[0]
    found = [_partners(first, other, side) for other in runs[1:]]
    shared = [i for i in range(len(first.sides[side])) if all(i in partners for partners in found)]
    return [shared, *([partners[i] for i in shared] for partners in found)]


def _partners(first: Judged, other: Judged, side: str) -> dict[int, int]:
    """Place in ``first`` -> place in ``other`` of the same image: the same id and file, else the same file."""
    place_of = {image_id: j for j, image_id in enumerate(other.sides[side])}
    partners: dict[int, int] = {}
    lost: list[int] = []
    for i, image_id in enumerate(first.sides[side]):
        if image_id in place_of and _same_file(first.rows[image_id], other.rows[image_id]):
            partners[i] = place_of[image_id]
        else:
            lost.append(i)
    taken = set(partners.values())
    moved: dict[str, list[int]] = {}
    for j, image_id in enumerate(other.sides[side]):
        sha256 = other.rows[image_id].sha256
        if j not in taken and sha256 is not None:
            moved.setdefault(sha256, []).append(j)
    for i in lost:
        waiting = moved.get(first.rows[first.sides[side][i]].sha256 or "")
        if waiting:
            partners[i] = waiting.pop(0)
    return partners


def _same_file(one: Row, other: Row) -> bool:
    return one.sha256 == other.sha256 or None in (one.sha256, other.sha256)


def _matched(runs: Sequence[Judged], side: str, places: Sequence[Sequence[int]]) -> Match | None:
    rows = [[run.rows[run.sides[side][i]] for i in kept] for run, kept in zip(runs, places, strict=True)]
    agreed = [
        k for k in range(len(places[0])) if len({(frozenset(each[k].labels), each[k].values) for each in rows}) == 1
    ]
    notes = []
    if len(agreed) < len(places[0]):
        notes.append(f"{len(places[0]) - len(agreed)} images have other labels in one of the runs and are left out.")
        places = [[kept[k] for k in agreed] for kept in places]
        rows = [[each[k] for k in agreed] for each in rows]
    if not agreed:
        return None
    groups = None
    if any(row.group is not None for row in rows[0]):
        groups = [row.group or row.id for row in rows[0]]
    if side == OUT_OF_FOLD and any(run.folder.config.repeats > 1 for run in runs):
        notes.append("Of folds that were repeated, the first repeat is compared.")
    if side != OUT_OF_FOLD:  # there every image has trained the other folds' models, and rightly so
        notes += [*_partly(runs, side, len(agreed)), *_leaks(runs, rows)]
    return Match(side, places, groups, tuple(notes))


def _partly(runs: Sequence[Judged], side: str, n: int) -> list[str]:
    """What was not compared, and whether the other run has learnt from it."""
    first, other = runs[0], runs[-1]
    notes = []
    sizes = [len(run.sides[side]) for run in runs]
    if n < max(sizes):
        told = " and ".join(str(size) for size in sorted(set(sizes)))
        notes.append(f"{n} images are shared, of {told} that the runs were judged on.")
    for one, two in ((first, other), (other, first)):
        seen = sum(one.rows[image_id].sha256 in two.learnt for image_id in one.sides[side])
        if seen and n < max(sizes):
            notes.append(f"{two.name} was trained on {seen} of the {len(one.sides[side])} images of {one.name}.")
    return notes


def _leaks(runs: Sequence[Judged], rows: Sequence[Sequence[Row]]) -> list[str]:
    """A shared image whose copy is among the training images of a run."""
    counts = {run.name: sum(row.sha256 in run.learnt for row in rows[0]) for run in runs}
    return [
        f"Warning: {count} of the {len(rows[0])} shared images are among the training images of {name}: "
        "its number flatters it."
        for name, count in counts.items()
        if count
    ]
