"""A model over a set of images: predictions in order, losses, and numbers with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snellen.core.config import Config
from snellen.core.console import Advance, Console
from snellen.core.device import available_cores
from snellen.core.errors import DataError, RunError
from snellen.core.estimate import Estimate
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.core.run import RunFolder
from snellen.data.image_sets import ImageSet, Places
from snellen.data.loader import EVALUATION_BATCH, evaluation_batches
from snellen.data.manifest import Manifest
from snellen.data.scan import scan
from snellen.data.store import ImageStore
from snellen.data.survey import read_listing
from snellen.tasks.base import Task
from snellen.tasks.loading import LoadedModel

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Predictions, one an image in the set's order, and the mean of each loss term over the images."""

    predicted: Sequence[Any]
    truth: Sequence[Any]
    losses: dict[str, float]

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


class Several(Protocol):
    """Models that answer as one, each of which sees images in its own way."""

    @property
    def task(self) -> Task[Any]: ...

    def answers(self, records: Sequence[Record], advance: Advance | None = None) -> Sequence[Any]: ...


def assess(
    model: nn.Module, task: Task[Any], images: ImageSet, plan: Plan, *, advance: Advance | None = None
) -> Assessment:
    """Run ``model`` in evaluation mode over ``images``; its mode is put back."""
    import torch

    from snellen.nn.folding import for_inference
    from snellen.nn.placement import to_device
    from snellen.nn.precision import arithmetic

    device = torch.device(plan.device)
    was_training = [(module, module.training) for module in model.modules()]
    network = for_inference(model)
    predicted: list[Any] = []
    totals: dict[str, float] = {}
    with torch.inference_mode(), arithmetic(device, plan.precision):
        for batch in evaluation_batches(images, EVALUATION_BATCH, plan.workers):
            losses, predictions = task.assess(network, to_device(batch, plan), plan)
            predicted.extend(predictions)
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + float(loss) * len(batch)
            if advance is not None:
                advance(len(predicted), len(images))
    for module, training in was_training:
        module.training = training
    losses_per_image = {name: total / max(1, len(images)) for name, total in totals.items()}
    return Assessment(predicted=predicted, truth=images.targets, losses=losses_per_image)


def score(
    task: Task[Any],
    predicted: Sequence[Any],
    truth: Sequence[Any],
    *,
    intervals: bool = True,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every metric of the task over the whole set."""
    metrics = task.metrics()
    metrics.update(predicted, truth)
    return metrics.compute(intervals=intervals, groups=groups, seed=seed)


def evaluate_run(
    run: RunFolder,
    labelled: Config | None,
    *,
    model: LoadedModel | Several,
    seed: int,
    cache: Path,
    console: Console,
) -> dict[str, dict[str, Estimate]]:
    """A run's model on its own validation and test images, or on other ``labelled`` data; by split or name.

    Looking at the sealed test images again is counted in data.json, and said.
    """
    if labelled is None:
        sides = own_sides(run, cache, console)
    else:
        own = run.config  # marks are read as they were for training
        read_as = {"task": model.task.name, "void": own.void, "outlines": own.outlines, "box_origin": own.box_origin}
        name, listing = read_listing(labelled.model_copy(update=read_as), cache)
        sides = {name: list(listing.with_outputs(model.task.classes).records)}
    if not sides:
        raise DataError(f"{run.path} has no images that it has not learnt from: name other labelled data")
    numbers = {}
    for name, records in sides.items():
        found, hashes = readable(records, console)
        if labelled is not None:
            _tell_known(run, name, hashes, console)
        answers = answer(model, name, found, console)
        groups = groups_of(found)
        numbers[name] = score(model.task, answers.predicted, answers.truth, groups=groups, seed=seed)
    return numbers


def answer(model: LoadedModel | Several, name: str, records: Sequence[Record], console: Console) -> Assessment:
    """What a model says of images that can all be decoded, beside what is true of them.

    Several models have no loss together: there are only their losses apart.
    """
    targets = [model.task.target(record) for record in records]
    if not isinstance(model, LoadedModel):
        with console.progress(f"Evaluating {name}", len(records)) as advance:
            return Assessment(predicted=model.answers(records, advance), truth=targets, losses={})
    store = ImageStore(preprocessing=model.plan.preprocessing, budget=0, keep_sources=False)
    images = ImageSet(records=records, targets=targets, store=store, places=places_of(model.task))
    with console.progress(f"Evaluating {name}", len(images)) as advance:
        return assess(model.network, model.task, images, model.plan, advance=advance)


def places_of(task: Task[Any]) -> Places | None:
    """What moves the task's targets with their images; None where they lie nowhere."""
    return task if task.dense else None


def groups_of(records: Sequence[Record]) -> list[str] | None:
    """What must be resampled together when an interval is made; None when every image stands alone."""
    if all(record.group is None for record in records):
        return None
    return [record.unit for record in records]


def own_sides(
    run: RunFolder, cache: Path, console: Console, splits: Sequence[str] = ("val", "test")
) -> dict[str, list[Record]]:
    """The records of a run's validation and test images, or of one of these ``splits`` alone, as they are now; opening
    the test images is counted.

    Raises DataError when some of its images are gone, RunError when data.json is damaged.
    """
    content = run.read_json("data.json")
    try:
        manifest = Manifest.from_json(content["manifest"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path / 'data.json'} is damaged: {error!r}") from None
    _, listing = read_listing(run.config, cache)
    found = {record.id: record for record in listing.records}
    rows = {split: [row for row in manifest.rows if row.split == split] for split in splits}
    needed = [row.id for side in rows.values() for row in side]
    missing = [image_id for image_id in needed if image_id not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(needed)} {' and '.join(rows)} images of this run are no longer in "
            f"{run.config.data}, the first is {missing[0]}: put them back, or name other labelled data"
        )
    if rows.get("test"):
        uses = content.get("test_uses", 1) + 1
        run.write_json("data.json", {**content, "test_uses": uses})
        times = "are opened for the first time" if uses == 1 else f"have now been used {uses} times"
        console.say(f"The test images {times}: choose nothing by their numbers.")
    return {split: [replace(found[row.id], group=row.group) for row in rows[split]] for split in rows if rows[split]}


def readable(records: Sequence[Record], console: Console) -> tuple[list[Record], list[str]]:
    """The records that can be decoded with the sha256 of their files; the rest is told."""
    scanned = scan(records, workers=max(2, available_cores()))
    for left in scanned.left_out:
        console.say(f"  left out {left.path}: {left.reason}")
    if not scanned.facts:
        raise DataError(f"none of the {len(records)} images can be decoded; the first is {records[0].path}")
    found = [record for record in records if record.id in scanned.facts]
    return found, [scanned.facts[record.id].sha256 for record in found]


def _tell_known(run: RunFolder, name: str, hashes: Sequence[str], console: Console) -> None:
    """Numbers on images that the model learnt from say little about new ones."""
    rows = run.read_json("data.json", missing={}).get("manifest", {}).get("rows", [])
    known = {row["sha256"] for row in rows if row["split"] != "test"}
    found = sum(sha256 in known for sha256 in hashes)
    if found:
        console.say(
            f"warning: {found} of the {len(hashes)} images of {name} are among those that the model was trained or "
            "chosen with: their numbers flatter it."
        )
