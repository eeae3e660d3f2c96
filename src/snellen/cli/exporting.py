"""export and verify: a model for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from snellen.cli.options import Device, Json, RunPath, Seed, console_for, print_json
from snellen.core.errors import ExportError


def export_verb(  # noqa: PLR0913  (each of them is an option)
    run: RunPath,
    /,
    *,
    to: Annotated[str, Parameter(help="onnx, openvino or torch.")] = "onnx",
    precision: Annotated[
        str, Parameter(help="fp32; int8 by static quantisation, if it keeps the metric; bf16 for openvino.")
    ] = "fp32",
    data: Annotated[
        str | None, Parameter(help="Labelled images to verify on, where those of the run are gone.")
    ] = None,
    images: Annotated[str | None, Parameter(help="Where the images are that a table names.")] = None,
    out: Annotated[
        Path | None, Parameter(help="The folder to write; it must not exist. Default: one in runs/.")
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """A run's model for other runtimes, verified on real images or not written."""
    from snellen.api.exporting import export

    del device, seed  # a graph is traced on the CPU and draws nothing; every verb takes the options
    artifact = export(run, to, precision=precision, data=data, images=images, out=out, console=console_for(json))
    print_json(json, artifact.to_json())
    return 0


def verify_verb(
    artifact: Annotated[Path, Parameter(help="The folder that 'snellen export' wrote.")],
    /,
    *,
    device: Device = "cpu",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Whether an exported model still says what it said when it was written; needs no torch."""
    from snellen.api.exporting import verify

    del device, seed
    console = console_for(json)
    wrong = verify(artifact, console=console)
    for line in wrong:
        console.say(f"  {line}")
    print_json(json, {"artifact": str(artifact), "wrong": wrong})
    if wrong:
        told = wrong[0] if len(wrong) == 1 else f"{len(wrong)} differences, the first: {wrong[0]}"
        raise ExportError(f"{artifact} is not what was verified: {told}")
    console.say("All golden images come out as they should.")
    return 0
