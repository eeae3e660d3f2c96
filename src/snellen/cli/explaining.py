"""explain: what answers hang on, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from snellen.cli.options import Device, Json, Out, Seed, console_for, print_json
from snellen.core.errors import DataError


def explain_verb(  # noqa: PLR0913  (each of them is an option)
    run: Annotated[Path, Parameter(help="The folder that 'snellen train' wrote; for occlusion, an export as well.")],
    images: Annotated[tuple[Path, ...], Parameter(help="Image files, or folders of them; filters need none.")] = (),
    /,
    *,
    how: Annotated[
        str,
        Parameter(
            help="grad-cam: places that the answer hangs on. occlusion: what happens as a patch hides one place after "
            "another; slower. features: what channels make of an image. filters: what channels look for."
        ),
    ] = "grad-cam",
    of: Annotated[str | None, Parameter(help="The class, or number, to explain. Default: what the model says.")] = None,
    patch: Annotated[int | None, Parameter(help="Occlusion: side of the patch in pixels of the image.")] = None,
    stride: Annotated[int | None, Parameter(help="Occlusion: step of the patch in pixels of the image.")] = None,
    fill: Annotated[str | None, Parameter(help="Occlusion: what the patch shows, blur or grey. Default: blur.")] = None,
    out: Out = None,
    device: Device = "auto",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """What a model's answers hang on, as maps over images; or what its channels look for, as pictures."""
    from snellen.api.explaining import explain
    from snellen.api.places import fresh_folder
    from snellen.explain.explanation import MEANING

    console = console_for(json)
    folder = out or fresh_folder(f"explained-{run.name}")
    made = explain(
        run,
        images,
        how=how,
        of=of,
        patch=patch,
        stride=stride,
        fill=fill,
        out=folder,
        device=device,
        seed=seed,
        console=console,
    )
    for each in made:
        said = each.caption if each.error is None else f"not explained: {each.error}"
        console.say("  ".join(part for part in (each.path, said) if part))
        if each.deletion is not None:
            console.say(f"  {each.deletion}")
    if any(each.heat is not None for each in made):
        console.say(MEANING)
    console.say(f"Pictures: {folder}")
    print_json(json, {"out": str(folder), "meaning": MEANING, "explanations": [each.to_json() for each in made]})
    if all(each.error is not None for each in made):
        first = f"the only one: {made[0].error}" if len(made) == 1 else f"the first: {made[0].error}"
        raise DataError(f"none of the images can be explained; {first}")
    return 0
