"""Is what was exported the model that was trained: asked of real images, whole, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snellen.core.console import Console
from snellen.core.errors import DataError, ExportError
from snellen.core.estimate import spoken
from snellen.core.record import Record
from snellen.data.image import decode
from snellen.evaluate import groups_of, score
from snellen.export.artifact import ArtifactAnswering
from snellen.export.manifest import Precision
from snellen.export.reference import Reference

_SAME = 1e-4  # share of the decisions that may differ in single precision; ties are not counted as decisions
_LOSS: dict[Precision, float] = {"fp32": 5e-4, "bf16": 3e-3, "int8": 3e-3}  # of the headline metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """images      how many were asked, of ``split``
    decisions   how many things were decided in them, and how many of these differ; shifted: how many of those say the
                same of a place a little elsewhere, or a little surer
    apart       the largest difference of a number behind a decision (``tasks.base.Difference``)
    headline    the name of the metric; network: of the network in this process; artifact: of what was exported
    odd         which of the images something differs in
    """

    split: str
    images: int
    decisions: int
    different: int
    shifted: int
    apart: float
    headline: str
    network: float
    artifact: float
    odd: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "odd"}

    def sentence(self) -> str:
        same = differing(self.to_json()) if self.different else "the same"
        return (
            f"on {self.images} images of {self.split}: {same}; {spoken(self.headline)} {self.artifact:.4f} "
            f"(network {self.network:.4f}); numbers at most {self.apart:.1g} apart"
        )


def compare(
    reference: Reference, artifact: ArtifactAnswering, records: Sequence[Record], split: str, console: Console
) -> Verified:
    """Both on the same images, each decoded at its full size."""
    task = reference.task
    ours: list[Any] = []
    theirs: list[Any] = []
    with console.progress("Verifying", len(records)) as advance:
        for start in range(0, len(records), artifact.batch):
            some = records[start : start + artifact.batch]
            images = [decode(record.path) for record in some]
            sizes = [(image.shape[1], image.shape[0]) for image in images]
            for answering, said in ((reference.answering, ours), (artifact, theirs)):
                seen = [answering.prepare(*each) for each in zip(images, sizes, strict=True)]
                said += answering.decide(seen)
            advance(len(ours), len(records))
    differences = [task.difference(one, other) for one, other in zip(ours, theirs, strict=True)]
    truth = [task.target(record) for record in records]
    groups = groups_of(records)
    numbers = [score(task, said, truth, intervals=False, groups=groups) for said in (ours, theirs)]
    if any(task.headline not in each for each in numbers):
        others = "use more to train on" if split == "train" else "give more, or others, with --data"
        raise DataError(
            f"the {len(records)} images of {split} cannot judge the {spoken(task.headline)} of a model: {others}"
        )
    return Verified(
        split=split,
        images=len(records),
        decisions=sum(each.decisions for each in differences),
        different=sum(each.different for each in differences),
        shifted=sum(each.shifted for each in differences),
        apart=max((each.apart for each in differences), default=0.0),
        headline=task.headline,
        network=numbers[0][task.headline].value,
        artifact=numbers[1][task.headline].value,
        odd=tuple(i for i, each in enumerate(differences) if each.different),
    )


def differing(checked: Mapping[str, Any]) -> str:
    """How many decisions differ, from ``Verified.to_json`` or a manifest of before ``shifted`` was counted."""
    different, decisions, shifted = checked["different"], checked["decisions"], checked.get("shifted", 0)
    share = f" ({100 * different / decisions:.3g} %)" if different else ""
    only = f", {shifted} of them shifted only" if shifted else ""
    return f"{different} of {decisions} decisions differ{share}{only}"


def check(verified: Verified, precision: Precision) -> None:
    """Raises ExportError when the artifact is not the model."""
    lost = verified.network - verified.artifact
    lost = abs(lost) if precision == "fp32" else lost  # 8 bits may be luckier by chance
    if precision == "fp32" and verified.different > _SAME * verified.decisions:
        raise ExportError(f"the exported model decides otherwise, so nothing was written: {verified.sentence()}")
    if lost > _LOSS[precision]:
        raise ExportError(
            f"the exported model has another {spoken(verified.headline)}, so nothing was written: "
            f"{verified.sentence()}; allowed for {precision} is {_LOSS[precision]:g}"
        )
