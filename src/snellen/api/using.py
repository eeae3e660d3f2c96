"""A finished run, and what its model says: of labelled data, in numbers; of new images, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from snellen.api.places import cache_of, check_place, fresh_folder
from snellen.api.results import Evaluation
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError
from snellen.core.estimate import Estimate
from snellen.core.files import sha256_of_file, write_json
from snellen.core.finding import Finding
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.predict.prediction import Prediction
    from snellen.predict.predictor import Predictor
    from snellen.predict.sources import Images
    from snellen.predict.writing import PredictedFiles


class Run:
    """A finished (or stopped) training run, or a cross-validation. A notebook shows it with its numbers."""

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(Path(path))

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def status(self) -> str:
        return self.folder.status

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def verdict(self) -> str:
        return str(self.folder.read_json("results.json")["verdict"])

    @property
    def findings(self) -> list[Finding]:
        return self.folder.findings

    @property
    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """By split, then by metric."""
        splits = self.folder.read_json("results.json")["splits"]
        return {split: {name: Estimate.from_json(e) for name, e in sides.items()} for split, sides in splits.items()}

    def predict(
        self,
        images: str | Path | Iterable[str | Path],
        *,
        tile: int | str | tuple[int, int] | None = None,
        tile_overlap: float | None = None,
        tile_merge: str | None = None,
        every: int = 1,
    ) -> list[Prediction]:
        """As ``snellen.predict``, which also writes files of them."""
        return predict(self, images, every=every, tile=tile, tile_overlap=tile_overlap, tile_merge=tile_merge)

    def to_json(self) -> dict[str, Any]:
        results = self.folder.read_json("results.json", missing={})
        keys = ("headline", "verdict", "shipped", "best_epoch", "ended", "seconds", "splits", "baselines", "folds")
        return {
            "run": str(self.path),
            "status": self.status,
            "report": str(self.report),
            **{key: results[key] for key in keys if key in results},
            "findings": [finding.to_json() for finding in self.findings],
        }

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def _repr_html_(self) -> str:
        from snellen.report.notebook import run_as_html

        return run_as_html(self.path)


def evaluate(
    run: str | Path | Run,
    data: str | Path | None = None,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> Evaluation:
    """Numbers with intervals for a run: on its own validation and test images, or on other labelled ``data``.

    A cross-validation answers with the ensemble of its fold models. ``out`` is a folder for evaluation.json; ``seed``
    is of the bootstrap. Raises SnellenError.
    """
    from snellen.ensemble import load_run
    from snellen.evaluate import evaluate_run

    if images is not None and data is None:
        raise ConfigError("images says where the images of other labelled data are: name that data as well")
    folder = _ready(run, device, seed, out)
    labelled = None if data is None else Config.of(data=str(data), images=None if images is None else str(images))
    cache = cache_of(labelled or folder.config)
    model = load_run(folder, device=device)
    numbers = evaluate_run(folder, labelled, model=model, seed=seed, cache=cache, console=console or Console())
    evaluation = Evaluation(str(folder.path), numbers)
    if out is not None:
        write_json(Path(out) / "evaluation.json", evaluation.to_json())
    return evaluation


@overload
def predict(
    run: str | Path | Run,
    images: str | Path | Iterable[str | Path],
    *,
    every: int = 1,
    tile: int | str | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    formats: None = None,
    resume: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Prediction]: ...


@overload
def predict(
    run: str | Path | Run,
    images: str | Path | Iterable[str | Path],
    *,
    every: int = 1,
    tile: int | str | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    formats: str | Sequence[str],
    resume: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> PredictedFiles: ...


def predict(  # noqa: PLR0913  (each of them is an option)
    run: str | Path | Run,
    images: str | Path | Iterable[str | Path],
    *,
    every: int = 1,
    tile: int | str | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    formats: str | Sequence[str] | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Prediction] | PredictedFiles:
    """One prediction for each image, in order; or files of them, where ``formats`` names some, which take no memory.

    An image that cannot be read has an ``error``. ``out`` is a folder for predictions.json, or for what ``formats``
    asks for; then a fresh one in runs/ where none is given. Raises SnellenError.

    images        files, folders that stand for the images in them, lists of files (.txt, a path a line, relative to the
                  list), and videos, each frame of which is an image
    every         of a video, each how many-th frame
    tile          for small things in images that are far larger than those of the training: they are looked at in
                  tiles of (width, height) pixels, or of that side, at full resolution. Where objects are asked for, the
                  whole image is looked at as well, for what no tile holds. A tile as large as the image changes nothing
    tile_overlap  the least share of a tile's side that its neighbour shows as well; 0.2
    tile_merge    boxes, or masks, of different tiles are of one object where they overlap by more than half of their
                  union ('iou', the usual way), or of the smaller one ('smaller')
    formats       one or several of pictures (pictures-jpg, pictures-png), csv, jsonl, coco, yolo and masks
    resume        go on with the ``formats`` in ``out`` that were begun with the same arguments and interrupted: they
                  become what they would have become
    """
    from snellen.data.tiles import Tiling
    from snellen.ensemble import load_run
    from snellen.predict.predictor import Predictor
    from snellen.predict.sources import Images
    from snellen.predict.writers.table import names_of

    tiling = Tiling.of(tile, tile_overlap, tile_merge)
    if resume and (not formats or out is None):
        raise ConfigError("resume goes on with files in a folder: name that folder (out) and the formats as before")
    names = None if formats is None else names_of(formats)
    folder = _ready(run, device, 0, None if resume else out)
    given = [images] if isinstance(images, str | Path) else images
    found = Images(given, every=every, without=None if out is None else Path(out))
    predictor = Predictor(load_run(folder, device=device), tiling)
    console = console or Console()
    if names is not None:
        asked = _asked(folder, device=device, every=every, tile=tile, tile_overlap=tile_overlap, tile_merge=tile_merge)
        target = Path(out) if out is not None else fresh_folder(f"predictions-{folder.path.name}")
        return _written(predictor, found, target, names, asked, resume, console)
    predictions = []
    with console.progress("Predicting", found.total) as advance:
        for prediction in predictor.predictions(found):
            predictions.append(prediction)
            advance(len(predictions), found.total or 0)
    if out is not None:
        write_json(Path(out) / "predictions.json", [prediction.to_json() for prediction in predictions])
    return predictions


def _asked(folder: RunFolder, **settings: Any) -> dict[str, Any]:
    """What answers follow from: the weights, by their content, and the settings."""
    models = [sha256_of_file(path) for path in folder.models()]
    return {"run": str(folder.path.absolute()), "models": models, **settings}


def _written(
    predictor: Predictor,
    images: Images,
    folder: Path,
    formats: list[str],
    asked: dict[str, Any],
    resume: bool,
    console: Console,
) -> PredictedFiles:
    """Says how to go on when it is interrupted."""
    from snellen.predict.writing import write_predictions

    try:
        with console.progress("Predicting", images.total) as advance:
            return write_predictions(predictor, images, folder, formats, asked=asked, resume=resume, advance=advance)
    except KeyboardInterrupt:
        console.say(f"What is finished stays in {folder}: the same command with --out {folder} --resume goes on.")
        raise


def _ready(run: str | Path | Run, device: str, seed: int, out: str | Path | None) -> RunFolder:
    """The folder of a run that has a model. Raises SnellenError for it and for the other three, before any work."""
    Config.of(data="any", device=device, seed=seed)  # what is shared with training is checked as there
    folder = (run if isinstance(run, Run) else Run(run)).folder
    folder.models()
    if out is not None:
        check_place(out)
    prepare_process()
    return folder
