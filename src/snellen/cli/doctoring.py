"""doctor and lab: what is wrong, and how networks learn."""

from __future__ import annotations

from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from snellen.cli.options import Device, Json, OutFile, Seed, console_for, print_json


def doctor_verb(  # noqa: PLR0913  (each of them is an option)
    run: Annotated[Path | None, Parameter(help="The folder that 'snellen train' wrote.")] = None,
    /,
    *,
    script: Annotated[
        str | None,
        Parameter(help="A PyTorch training of your own instead, as train.py:build: a function that gives its parts."),
    ] = None,
    confirm: Annotated[bool, Parameter(negative="", help="Run the experiments that tell causes apart.")] = False,
    treat: Annotated[
        bool, Parameter(negative="", help="Try the first treatment beside a placebo, and say whether it helped.")
    ] = False,
    time_limit: Annotated[
        str | None, Parameter(help="Begin no experiment after this long: 90s, 5m. Default: 10m.")
    ] = None,
    seeds: Annotated[int, Parameter(help="Trainings in each of the three arms of a trial.")] = 3,
    out: OutFile = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """What is wrong with a run or with a training of your own, how that is known, and whether a treatment helps."""
    from snellen.api.doctoring import doctor

    asked: dict[str, Any] = {"script": script, "confirm": confirm, "treat": treat, "time_limit": time_limit}
    diagnosis = doctor(run, **asked, seeds=seeds, out=out, device=device, seed=seed, console=console_for(json))
    print_json(json, diagnosis.to_json())
    return 0


def lab_verb(
    name: Annotated[str | None, Parameter(help="Which one to run; without it they are listed.")] = None,
    /,
    *,
    data: Annotated[str | None, Parameter(help="Images for 'ladder': as for 'snellen train'.")] = None,
    out: Annotated[Path | None, Parameter(help="The folder for its picture. Default: runs/lab.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Demonstrations of how networks learn: each draws what it shows, in seconds."""
    from snellen.lab import DEFAULT_OUT, demonstrate, demonstrations

    console = console_for(json)
    if name is None:
        found = demonstrations().values()
        for each in found:
            console.say(f"{each.name:18} {'' if each.seconds is None else f'{each.seconds:.0f} s':>5}  {each.title}")
        print_json(json, {"demonstrations": [{"name": each.name, "title": each.title} for each in found]})
        return 0
    with redirect_stdout(console.stream):
        numbers = demonstrate(name, out=out or DEFAULT_OUT, seed=seed, data=data, console=console)
    print_json(json, {"demonstration": name, "numbers": numbers})
    return 0
