"""evaluate, predict and compare: verbs that use what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from snellen.cli.options import Device, Json, OutFile, RunPath, Seed, console_for, print_json
from snellen.core.errors import DataError


def evaluate_verb(
    run: RunPath,
    data: Annotated[str | None, Parameter(help="Other labelled data, of the same classes.")] = None,
    /,
    *,
    images: Annotated[str | None, Parameter(help="Where the images are that a table names.")] = None,
    out: OutFile = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Numbers with intervals for a run, on its own validation and test images or on other labelled data."""
    from snellen.api.using import evaluate

    console = console_for(json)
    evaluation = evaluate(run, data, images=images, out=out, device=device, seed=seed, console=console)
    for split, numbers in evaluation.numbers.items():
        console.say(f"{split}:")
        for name, estimate in numbers.items():
            console.say(f"  {name:28} {estimate}")
    print_json(json, evaluation.to_json())
    return 0


def predict_verb(  # noqa: PLR0913  (each of them is an option)
    run: RunPath,
    images: Annotated[tuple[Path, ...], Parameter(help="Image files, or folders of them.")],
    /,
    *,
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
    out: OutFile = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """What a run's model says of new images: files, or folders of them."""
    from snellen.api.using import predict

    del seed  # prediction draws nothing; every verb takes the option so that scripts need not know
    console = console_for(json)
    tiles: dict[str, Any] = {"tile": tile, "tile_overlap": tile_overlap, "tile_merge": tile_merge}
    predictions = predict(run, images, **tiles, out=out, device=device, console=console)
    for prediction in predictions:
        said = f"{prediction.label}" if prediction.error is None else f"not read: {prediction.error}"
        sure = "" if prediction.confidence is None else f"  {100 * prediction.confidence:.1f} %"
        console.say(f"{prediction.path}  {said}{sure}")
    print_json(json, {"predictions": [prediction.to_json() for prediction in predictions]})
    if all(prediction.error is not None for prediction in predictions):
        which = "the only image cannot" if len(predictions) == 1 else f"none of the {len(predictions)} images can"
        raise DataError(f"{which} be read: give images of a known format, and whole ones")
    return 0


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
