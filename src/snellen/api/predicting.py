"""What a model says of new images, one by one: from a run, or from what was exported from one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from snellen.api.opening import check_is_model, open_model
from snellen.api.places import check_place, fresh_folder
from snellen.core.console import Console
from snellen.core.errors import ConfigError
from snellen.core.files import write_json

if TYPE_CHECKING:
    from snellen.predict.prediction import Prediction
    from snellen.predict.predictor import Predictor
    from snellen.predict.sources import Images
    from snellen.predict.writing import PredictedFiles


class HasPath(Protocol):
    """A ``Run`` or an ``Artifact``."""

    @property
    def path(self) -> Path: ...


@overload
def predict(
    run: str | Path | HasPath,
    images: str | Path | Iterable[str | Path],
    *,
    every: int = 1,
    tile: int | str | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    tta: str | None = None,
    formats: None = None,
    resume: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Prediction]: ...


@overload
def predict(
    run: str | Path | HasPath,
    images: str | Path | Iterable[str | Path],
    *,
    every: int = 1,
    tile: int | str | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    tta: str | None = None,
    formats: str | Sequence[str],
    resume: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> PredictedFiles: ...


def predict(  # noqa: PLR0913  (each of them is an option)
    run: str | Path | HasPath,
    images: str | Path | Iterable[str | Path],
    *,
    every: int = 1,
    tile: int | str | tuple[int, int] | None = None,
    tile_overlap: float | None = None,
    tile_merge: str | None = None,
    tta: str | None = None,
    formats: str | Sequence[str] | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> list[Prediction] | PredictedFiles:
    """One prediction of a run, or of what was exported from one, for each image, in order; or files of them, where
    ``formats`` names some, which take no memory.

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
    tta           views that are looked at as well: 'auto', 'flip', 'scale', ...; ``measure_views`` tells their worth
    formats       one or several of pictures (pictures-jpg, pictures-png), csv, jsonl, coco, yolo and masks
    resume        go on with the ``formats`` in ``out`` that were begun with the same arguments and interrupted: they
                  become what they would have become
    """
    from snellen.data.tiles import Tiling
    from snellen.predict.predictor import Predictor
    from snellen.predict.sources import Images
    from snellen.predict.writers.table import names_of

    tiling = Tiling.of(tile, tile_overlap, tile_merge)
    if resume and (not formats or out is None):
        raise ConfigError("resume goes on with files in a folder: name that folder (out) and the formats as before")
    names = None if formats is None else names_of(formats)
    if out is not None and not resume:
        check_place(out, resumable=formats is not None)
    check_is_model(_path_of(run))
    target = Path(out) if out is not None else fresh_folder(f"predictions-{_path_of(run).name}")
    given = [images] if isinstance(images, str | Path) else images
    found = Images(given, every=every, without=target)
    console = console or Console()
    opened = open_model(_path_of(run), device=device, tta=tta)
    for note in opened.notes:
        console.say(note)
    predictor = Predictor(opened.answering, tiling)
    if names is not None:
        tiles = {"tile": tile, "tile_overlap": tile_overlap, "tile_merge": tile_merge}
        asked = {**opened.identity(), "device": device, "every": every, "tta": tta, **tiles}
        return _written(predictor, found, target, names, asked, resume, console)
    return _listed(predictor, found, out, console)


def _path_of(run: str | Path | HasPath) -> Path:
    return Path(run) if isinstance(run, str | Path) else run.path


def _listed(predictor: Predictor, images: Images, out: str | Path | None, console: Console) -> list[Prediction]:
    predictions = []
    with console.progress("Predicting", images.total) as advance:
        for prediction in predictor.predictions(images):
            predictions.append(prediction)
            advance(len(predictions), images.total or 0)
    if out is not None:
        write_json(Path(out) / "predictions.json", [prediction.to_json() for prediction in predictions])
    return predictions


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
