"""train, tune and audit: the verbs that have the settings as options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Parameter

from snellen.cli.options import INTERRUPTED, Data, Device, Json, Out, console_for, print_json

_AUDIT_SETTINGS = ("images", "task", "split", "groups", "overlay", "cache", "seed", "void", "outlines", "box_origin")
_NOT_FOR_A_SEARCH = ("folds", "fold", "repeats", "test")


def __getattr__(name: str) -> Callable[..., int]:
    """The commands that have settings as options, made when one of them is called."""
    if name in ("train", "tune"):
        from snellen.core.config import Config

        left_out = {"data"} if name == "train" else {"data", *_NOT_FOR_A_SEARCH}
        verb = train_verb if name == "train" else tune_verb
        return _with_settings(verb, [setting for setting in Config.model_fields if setting not in left_out])
    if name == "audit":
        return _with_settings(audit_verb, _AUDIT_SETTINGS)
    raise AttributeError(f"module 'snellen.cli.training' has no attribute '{name}'")


def _with_settings(verb: Callable[..., int], names: Iterable[str]) -> Callable[..., int]:
    """``verb(..., **settings)`` with each setting of Config that is named as an option of its own."""
    from snellen.core.config import Config

    fixed = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = []
    for name in names:
        field = Config.model_fields[name]
        kind: Any = bool | None if field.annotation is bool else str | None
        choices = f" One of {', '.join(get_args(field.annotation))}." if get_origin(field.annotation) is Literal else ""
        shown = "" if field.default is None else f" Default: {_as_written(field.default)}."
        annotation = Annotated[kind, Parameter(help=f"{field.description}{choices}{shown}", group="Settings")]
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    def command(*args: Any, **given: Any) -> int:
        settings = {option.name: given.pop(option.name) for option in options if option.name in given}
        return verb(*args, **given, **{name: value for name, value in settings.items() if value is not None})

    command.__doc__ = verb.__doc__
    command.__signature__ = inspect.Signature([*fixed, *options], return_annotation=int)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*fixed, *options)}
    return command


def _as_written(default: object) -> str:
    if isinstance(default, tuple):
        return "/".join(f"{100 * share:g}" for share in default)
    return {True: "yes", False: "no"}.get(default, str(default)) if isinstance(default, bool) else str(default)


def train_verb(
    data: Annotated[str | None, Data] = None,
    /,
    *,
    out: Out = None,
    config: Annotated[Path | None, Parameter(help="A TOML file of settings; options win over it.")] = None,
    resume: Annotated[Path | None, Parameter(help="A stopped run folder to go on with.")] = None,
    json: Json = False,
    **settings: Any,
) -> int:
    """Train a model on a folder of images, a table of labels, or sample:digits, and write a report."""
    from snellen.api.starting import train

    console = console_for(json)
    run = train(data, out=out, config=config, resume=resume, console=console, **settings)
    print_json(json, run.to_json())
    return INTERRUPTED if run.status == "stopped" else 0


def audit_verb(
    data: Annotated[str, Data],
    /,
    *,
    out: Out = None,
    quick: Annotated[
        bool, Parameter(negative="", help="Leave out what needs a network to look at the images.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
    **settings: Any,
) -> int:
    """Say what is in the data and whether it is fit to train on."""
    from snellen.api.auditing import audit

    audited = audit(data, out=out, quick=quick, device=device, console=console_for(json), **settings)
    print_json(json, audited.to_json())
    return 0


def tune_verb(
    data: Annotated[str | None, Data] = None,
    /,
    *,
    trials: Annotated[int, Parameter(help="How many trainings, those of a resumed search included.")] = 20,
    search: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True,
            negative="",
            show_default=False,
            help="What may change, as in lr=1e-4..1e-2 or optimizer=sgd|adamw. Default: rates and regularisation.",
        ),
    ] = (),
    out: Out = None,
    resume: Annotated[Path | None, Parameter(help="The folder of a search to go on with.")] = None,
    json: Json = False,
    **settings: Any,
) -> int:
    """Search for settings that validate better; the test images stay sealed."""
    from snellen.api.tuning import tune

    console = console_for(json)
    found = tune(data, trials=trials, search=search, out=out, resume=resume, console=console, **settings)
    print_json(json, found.to_json())
    return INTERRUPTED if found.status == "stopped" else 0
