"""A run as an artifact for other runtimes, and the check that an artifact still does what it was verified to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.places import cache_of, check_place, fresh_folder
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError, RunError
from snellen.core.estimate import Estimate
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snellen.core.record import Record
    from snellen.export.manifest import Manifest
    from snellen.tasks.loading import LoadedModel

_CALIBRATION = 200  # training images that 8-bit arithmetic learns its ranges from


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

    precision  fp32, or int8 by static quantisation, which may lose 0.003 of the headline metric and no more
    data       labelled images to verify on, where those of the run are gone; ``images`` as for training

    Raises SnellenError.
    """
    console = console or Console()
    from snellen.export.formats import check_precision

    check_precision(to, precision)
    folder = (run if isinstance(run, Run) else Run(run)).folder
    folder.models()
    check_place(out)
    prepare_process()
    from snellen.export.write import export_model

    model = _network_of(folder)
    judged = _judged(folder, model, data, images, console)
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
    from snellen.export.verify import verify_folder

    return verify_folder(Path(artifact), console or Console())


def _network_of(folder: RunFolder) -> LoadedModel:
    from snellen.ensemble import load_run
    from snellen.tasks.loading import LoadedModel

    model = load_run(folder, device="cpu")
    if not isinstance(model, LoadedModel):
        raise ConfigError(
            f"{folder.path} is several models that see images in ways of their own, which no one graph holds: export a "
            "member, or make a soup of them (snellen ensemble --way soup)"
        )
    return model


def _judged(
    folder: RunFolder, model: LoadedModel, data: str | Path | None, images: str | Path | None, console: Console
) -> dict[str, Sequence[Record]]:
    """Labelled images that the model has not learnt from, under the name of their split."""
    from snellen.data.survey import read_listing
    from snellen.evaluate import own_sides, readable

    if data is not None:
        asked = Config.of(data=str(data), images=None if images is None else str(images), task=model.plan.task)
        name, listing = read_listing(asked, cache_of(asked))
        return {name: readable(listing.with_outputs(model.task.classes).records, console)[0]}
    sides = own_sides(folder, cache_of(folder.config), console, ("val",))
    if not sides:
        raise DataError(f"{folder.path} has no validation images to verify by: give labelled images with --data")
    return {"val": readable(sides["val"], console)[0]}


def _calibration(folder: RunFolder, console: Console) -> list[Record]:
    from snellen.evaluate import own_sides

    train = own_sides(folder, cache_of(folder.config), console, ("train",)).get("train", [])
    if not train:
        raise RunError(f"{folder.path} has no training images left to learn the ranges of 8-bit numbers from")
    step = max(1, len(train) // _CALIBRATION)
    return list(train[::step][:_CALIBRATION])


def _manifest(folder: RunFolder, model: LoadedModel, to: str, precision: str) -> Manifest:
    from snellen.export.manifest import Manifest

    results = folder.read_json("results.json", missing={})
    splits = results.get("splits", {})
    metrics = {split: {name: Estimate.from_json(e) for name, e in sides.items()} for split, sides in splits.items()}
    weak = [f for f in folder.findings if f.severity != "info"]
    return Manifest(
        format=to,  # type: ignore[arg-type]  # check_precision has seen it
        precision=precision,  # type: ignore[arg-type]
        plan=model.plan,
        decision=model.task.decision,
        headline=model.task.headline,
        metrics=metrics,
        weaknesses=tuple({"code": f.code, "severity": f.severity, "message": f.message} for f in weak),
    )
