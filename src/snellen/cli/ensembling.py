"""ensemble: several runs become one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from snellen.cli.options import Device, Json, Out, Seed, console_for, print_json


def ensemble_verb(
    runs: Annotated[
        tuple[Path, ...],
        Parameter(help="Folders that 'snellen train' wrote; a cross-validation stands for its folds."),
    ],
    /,
    *,
    way: Annotated[
        str,
        Parameter(
            help="mean of what they say; weighted, as fitted on validation; vote; rank; or soup, which averages "
            "weights and costs no more than one model. auto: weighted for boxes and objects, else mean."
        ),
    ] = "auto",
    test: Annotated[bool, Parameter(help="Open the sealed test images at the end.")] = True,
    out: Out = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Join runs into one that answers for them, and say whether that was worth it."""
    from snellen.api.ensembling import ensemble

    run = ensemble(*runs, way=way, out=out, test=test, device=device, seed=seed, console=console_for(json))
    print_json(json, {**run.to_json(), "ensemble": run.folder.read_json("results.json")["ensemble"]})
    return 0
