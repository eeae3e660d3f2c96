"""evaluate, predict and compare: verbs that use what was trained."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from snellen.cli.options import Device, Json, ModelPath, OutFile, RunPath, Seed, console_for, print_json
from snellen.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from snellen.core.console import Console
    from snellen.predict.writing import PredictedFiles

Images = Annotated[
    tuple[Path, ...], Parameter(help="Image files, folders of them, lists of them (.txt, a path a line), or videos.")
]
Formats = Annotated[
    tuple[str, ...],
    Parameter(
        name="--as",
        negative="",
        show_default=False,
        help="Files to write, with commas between: pictures (-jpg, -png), csv, jsonl, coco, yolo, masks.",
    ),
]
TestTime = Annotated[
    str | None,
    Parameter(help="Look at further views of each image too: auto, flip, scale, vflip, turns, d4, crops."),
]

_MOST_TOLD = 10  # images that could not be read, which are named one by one


def evaluate_verb(
    run: RunPath,
    data: Annotated[str | None, Parameter(help="Other labelled data, of the same classes.")] = None,
    /,
    *,
    images: Annotated[str | None, Parameter(help="Where the images are that a table names.")] = None,
    tta: TestTime = None,
    out: OutFile = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Numbers with intervals for a run, on its own validation and test images or on other labelled data.

    With --tta: what further views of each validation image gain, and what they cost.
    """
    from snellen.api.using import evaluate

    console = console_for(json)
    if tta is not None:
        return _tell_gain(run, tta, data, {"out": out, "device": device, "seed": seed}, json)
    evaluation = evaluate(run, data, images=images, out=out, device=device, seed=seed, console=console)
    for split, numbers in evaluation.numbers.items():
        console.say(f"{split}:")
        for name, estimate in numbers.items():
            console.say(f"  {name:28} {estimate}")
    print_json(json, evaluation.to_json())
    return 0


def _tell_gain(run: Path, tta: str, data: str | None, settings: dict[str, Any], json: bool) -> int:
    from snellen.api.viewing import measure_views

    if data is not None:
        raise ConfigError("tta is measured on a run's own validation images: leave out the other data")
    console = console_for(json)
    gain = measure_views(run, tta=tta, console=console, **settings)
    for line in gain.lines():
        console.say(line)
    print_json(json, gain.to_json())
    return 0


def predict_verb(  # noqa: PLR0913  (each of them is an option)
    run: ModelPath,
    images: Images,
    /,
    *,
    formats: Formats = (),
    every: Annotated[int, Parameter(help="Of a video, each how many-th frame.")] = 1,
    tile: Annotated[
        str | None,
        Parameter(help="Look at large images in tiles of this size, as 640x480: for things that are small in them."),
    ] = None,
    tile_overlap: Annotated[
        float | None,
        Parameter(help="Share of a tile that its neighbour shows too; objects should be no larger. Default: 0.2."),
    ] = None,
    tile_merge: Annotated[
        str | None,
        Parameter(help="Objects in tiles are one by overlap over their union, or over the smaller: iou, smaller."),
    ] = None,
    tta: TestTime = None,
    out: Annotated[
        Path | None,
        Parameter(help="The folder to write; it must not exist. Default with --as: a fresh one in runs/."),
    ] = None,
    resume: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Go on with what the same command began in --out."),
    ] = False,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """What a run's model says of new images: of files, folders, lists or videos; on the console, or as files."""
    from snellen.api.predicting import predict

    del seed  # prediction draws nothing; every verb takes the option so that scripts need not know
    console = console_for(json)
    asked: dict[str, Any] = {"every": every, "tile": tile, "tile_overlap": tile_overlap, "tile_merge": tile_merge}
    asked |= {"tta": tta, "out": out, "device": device, "console": console}
    if formats or resume:
        written = predict(run, images, formats=formats, resume=resume, **asked)
        _tell_files(written, console)
        print_json(json, written.to_json())
        _refuse_nothing_read(written.num_images, written.num_errors)
        return 0
    predictions = predict(run, images, **asked)
    for prediction in predictions:
        said = f"{prediction.label}" if prediction.error is None else f"not read: {prediction.error}"
        sure = "" if prediction.confidence is None else f"  {100 * prediction.confidence:.1f} %"
        console.say(f"{prediction.path}  {said}{sure}")
    print_json(json, {"predictions": [prediction.to_json() for prediction in predictions]})
    _refuse_nothing_read(len(predictions), sum(prediction.error is not None for prediction in predictions))
    return 0


def _tell_files(written: PredictedFiles, console: Console) -> None:
    for told in islice(written.errors(), _MOST_TOLD):
        console.say(f"{told['path']}  not read: {told['error']}")
    if written.num_errors > _MOST_TOLD:
        console.say(f"... {written.num_errors - _MOST_TOLD} more are in {written.folder / 'errors.jsonl'}")
    not_read = f", {written.num_errors} of them not read" if written.num_errors else ""
    console.say(f"{written.num_images} image{'s' * (written.num_images != 1)}{not_read}:")
    for name, path in written.formats.items():
        console.say(f"  {name:12} {path}")


def _refuse_nothing_read(num_images: int, num_errors: int) -> None:
    if num_errors == num_images:
        which = "the only image cannot" if num_images == 1 else f"none of the {num_images} images can"
        raise DataError(f"{which} be read: give images of a known format, and whole ones")


def compare_verb(
    runs: Annotated[tuple[Path, ...], Parameter(help="Folders that 'snellen train' wrote; the first is the baseline.")],
    /,
    *,
    versus: Annotated[
        tuple[Path, ...],
        Parameter(
            name="--with",
            consume_multiple=True,
            negative="",
            show_default=False,
            help="Runs of a second arm: then the first ones are an arm as well, each of runs that differ only in their "
            "seed.",
        ),
    ] = (),
    out: OutFile = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Which of several runs is better, by how much, and whether that is shown: on the images that they share."""
    from snellen.api.comparing import compare

    del device  # no model is run; every verb takes the option so that scripts need not know
    console = console_for(json)
    comparison = compare(*runs, versus=versus, out=out, seed=seed)
    for line in comparison.lines():
        console.say(line)
    if out is not None:
        console.say(f"Report: {out / 'report.html'}")
    print_json(json, comparison.to_json())
    return 0
