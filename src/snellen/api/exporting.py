"""A run as an artifact for other runtimes, and the check that an artifact still does what it was verified to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.opening import is_exported
from snellen.api.places import cache_of, check_place, fresh_folder
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import DataError, RunError
from snellen.core.estimate import Estimate
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snellen.core.record import Record
    from snellen.export.manifest import Manifest
    from snellen.export.members import Model

_CALIBRATION = 200  # training images: 8-bit arithmetic learns its ranges from half, and is chosen by the others


@dataclass(frozen=True, slots=True)
class Artifact:
    """What ``snellen.export`` wrote.

    path     of the folder
    checked  on how many images it was held against the network, how many decisions differ, both metrics
    """

    path: Path
    format: str
    precision: str
    checked: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        named = {"artifact": str(self.path), "format": self.format, "precision": self.precision}
        return {**named, "checked": dict(self.checked)}


def export(
    run: str | Path | Run,
    to: str = "onnx",
    *,
    precision: str = "fp32",
    data: str | Path | None = None,
    images: str | Path | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
) -> Artifact:
    """A run's model as a folder that runs elsewhere: ``to`` onnx, openvino or torch.

    It is run on the validation images and must decide as the network does; else ExportError, and nothing is written.
    The networks of an ensemble, or of a cross-validation, are one graph where their answers are a mean, or boxes that
    are fused.

    precision  fp32, or int8 by static quantisation, which may lose 0.003 of the headline metric and no more
    data       labelled images to verify on, where those of the run are gone; ``images`` as for training

    Raises SnellenError.
    """
    console = console or Console()
    folder = (run if isinstance(run, Run) else Run(run)).folder
    folder.models()
    check_place(out)
    prepare_process()
    from snellen.export.formats import check_precision  # torch is loaded here, after the process is prepared
    from snellen.export.write import export_model

    check_precision(to, precision)
    model = _model_of(folder)
    if data is None:
        judged = _own_images(folder, console)
    else:
        judged = _labelled(model, str(data), images, console)
    calibration = _calibration(folder, console) if precision == "int8" else []
    where = Path(out) if out is not None else fresh_folder(f"{folder.path.name}-{to}")
    about = _manifest(folder, model, to, precision)
    manifest = export_model(model, about, judged, where, calibration=calibration, console=console)
    console.say(f"Wrote {where}")
    return Artifact(where, manifest.format, manifest.precision, manifest.checked)


def verify(artifact: str | Path, *, console: Console | None = None) -> list[str]:
    """What is wrong with an artifact, a line each: files that were changed, goldens that come out otherwise.

    Needs no torch for onnx and openvino. Raises RunError for what is no artifact, ConfigError when the runtime is not
    installed.
    """
    from snellen.export.verify import SUMS, verify_folder

    path = Path(artifact)
    if not path.exists():
        raise RunError(f"{path} does not exist: give the folder that 'snellen export' wrote")
    if path.is_dir() and not is_exported(path) and not (path / SUMS).is_file():
        raise RunError(f"{path} is no artifact: give the folder that 'snellen export' wrote")
    return verify_folder(path, console or Console())


def _model_of(folder: RunFolder) -> Model:
    """Raises ConfigError for several networks that no one graph answers for."""
    from snellen.ensemble import Ensemble, load_run
    from snellen.export.members import check_members

    model = load_run(folder, device="cpu")
    if isinstance(model, Ensemble) and len(model.members) == 1:  # weights were fitted, and the others count nothing
        return model.members[0]
    check_members(model)
    return model


def _labelled(model: Model, data: str, images: str | Path | None, console: Console) -> dict[str, Sequence[Record]]:
    from snellen.data.survey import read_listing
    from snellen.evaluate import readable

    asked = Config.of(data=data, images=None if images is None else str(images), task=model.task.name)
    name, listing = read_listing(asked, cache_of(asked))
    return {name: readable(listing.with_outputs(model.task.classes).records, console)[0]}


def _own_images(folder: RunFolder, console: Console) -> dict[str, Sequence[Record]]:
    """Images of the run that the model has not learnt from, under the name of their split: for validation, or where
    there are none, as of the folds of a cross-validation, test images that its results were told on already: nothing is
    chosen by their numbers.
    """
    from snellen.evaluate import own_sides, readable

    told = folder.read_json("results.json", missing={}).get("splits", {})
    for side in ("val", "test") if "test" in told else ("val",):
        found = own_sides(folder, cache_of(folder.config), console, (side,))
        if found:
            return {side: readable(found[side], console)[0]}
    raise DataError(f"{folder.path} has no validation images to verify by: give labelled images with --data")


def _calibration(folder: RunFolder, console: Console) -> list[Record]:
    from snellen.evaluate import own_sides

    train = own_sides(folder, cache_of(folder.config), console, ("train",)).get("train", [])
    if not train:
        raise RunError(f"{folder.path} has no training images left to learn the ranges of 8-bit numbers from")
    step = max(1, len(train) // _CALIBRATION)
    return list(train[::step][:_CALIBRATION])


def _manifest(folder: RunFolder, model: Model, to: str, precision: str) -> Manifest:
    from snellen.export.manifest import Manifest
    from snellen.export.members import plan_of, told_members

    results = folder.read_json("results.json", missing={})
    splits = results.get("splits", {})
    metrics = {split: {name: Estimate.from_json(e) for name, e in sides.items()} for split, sides in splits.items()}
    weak = [f for f in folder.findings if f.severity != "info"]
    return Manifest(
        format=to,  # type: ignore[arg-type]  # check_precision has seen it
        precision=precision,  # type: ignore[arg-type]
        plan=plan_of(model),
        members=told_members(model),
        decision=model.task.decision,
        headline=model.task.headline,
        metrics=metrics,
        weaknesses=tuple({"code": f.code, "severity": f.severity, "message": f.message} for f in weak),
    )
