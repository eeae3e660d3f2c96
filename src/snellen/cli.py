"""Arguments in, a verb called, one line for every error. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import inspect
import json as json_module
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from snellen.core.console import Console, printable
from snellen.core.errors import ConfigError, DataError, SnellenError

_INTERRUPTED = 130  # the shell's code for a command that Ctrl-C ended
_PIPE_CLOSED = 141  # and for one whose reader went away, as in snellen predict ... | head
_AUDIT_SETTINGS = ("images", "task", "split", "groups", "overlay", "cache", "seed", "void", "outlines", "box_origin")
_NOT_FOR_A_SEARCH = ("folds", "fold", "repeats", "test")

_DATA = Parameter(help="A folder of images, a table of labels, or sample:digits.")

RunPath = Annotated[Path, Parameter(help="The folder that 'snellen train' wrote.")]
Out = Annotated[Path | None, Parameter(help="The folder to write; it must not exist. Default: a fresh one in runs/.")]
OutFile = Annotated[Path | None, Parameter(help="A folder to write the result to as well; it must not exist.")]
Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Results as one JSON object; all else on stderr."),
]
Device = Annotated[str, Parameter(help="cpu, cuda, cuda:1, mps or auto.")]
Seed = Annotated[int, Parameter(help="Same seed, same machine: same bits.")]


def build_app() -> App:
    """The command line: one command a verb. Settings come from Config, so that each default is written once."""
    app = App(
        name="snellen",
        help="From a folder of images to a vision model you can trust.",
        help_format="plaintext",
        version=_version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    # By name: these have settings as options, and Config takes longer to load than the rest of the command line.
    app.command("snellen.cli:train", name="train", help=inspect.getdoc(_train))
    app.command("snellen.cli:audit", name="audit", help=inspect.getdoc(_audit))
    app.command(_evaluate, name="evaluate")
    app.command(_predict, name="predict")
    app.command(_doctor, name="doctor")
    app.command(_compare, name="compare")
    app.command("snellen.cli:tune", name="tune", help=inspect.getdoc(_tune))
    app.command(_lab, name="lab")
    return app


def __getattr__(name: str) -> Callable[..., int]:
    """The commands that have settings as options, made when one of them is called."""
    if name in ("train", "tune"):
        from snellen.core.config import Config

        left_out = {"data"} if name == "train" else {"data", *_NOT_FOR_A_SEARCH}
        verb = _train if name == "train" else _tune
        return _with_settings(verb, [setting for setting in Config.model_fields if setting not in left_out])
    if name == "audit":
        return _with_settings(_audit, _AUDIT_SETTINGS)
    raise AttributeError(f"module 'snellen.cli' has no attribute '{name}'")


def _version() -> str:
    from importlib.metadata import version

    return version("snellen")


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


def _train(
    data: Annotated[str | None, _DATA] = None,
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

    console = _console(json)
    run = train(data, out=out, config=config, resume=resume, console=console, **settings)
    _print_json(json, run.to_json())
    return _INTERRUPTED if run.status == "stopped" else 0


def _audit(
    data: Annotated[str, _DATA],
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

    audited = audit(data, out=out, quick=quick, device=device, console=_console(json), **settings)
    _print_json(json, audited.to_json())
    return 0


def _evaluate(
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

    console = _console(json)
    evaluation = evaluate(run, data, images=images, out=out, device=device, seed=seed, console=console)
    for split, numbers in evaluation.numbers.items():
        console.say(f"{split}:")
        for name, estimate in numbers.items():
            console.say(f"  {name:28} {estimate}")
    _print_json(json, evaluation.to_json())
    return 0


def _predict(  # noqa: PLR0913  (each of them is an option)
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
    console = _console(json)
    tiles: dict[str, Any] = {"tile": tile, "tile_overlap": tile_overlap, "tile_merge": tile_merge}
    predictions = predict(run, images, **tiles, out=out, device=device, console=console)
    for prediction in predictions:
        said = f"{prediction.label}" if prediction.error is None else f"not read: {prediction.error}"
        sure = "" if prediction.confidence is None else f"  {100 * prediction.confidence:.1f} %"
        console.say(f"{prediction.path}  {said}{sure}")
    _print_json(json, {"predictions": [prediction.to_json() for prediction in predictions]})
    if all(prediction.error is not None for prediction in predictions):
        which = "the only image cannot" if len(predictions) == 1 else f"none of the {len(predictions)} images can"
        raise DataError(f"{which} be read: give images of a known format, and whole ones")
    return 0


def _doctor(  # noqa: PLR0913  (each of them is an option)
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
    diagnosis = doctor(run, **asked, seeds=seeds, out=out, device=device, seed=seed, console=_console(json))
    _print_json(json, diagnosis.to_json())
    return 0


def _compare(
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
    console = _console(json)
    comparison = compare(*runs, versus=versus, out=out, seed=seed)
    for line in comparison.lines():
        console.say(line)
    if out is not None:
        console.say(f"Report: {out / 'report.html'}")
    _print_json(json, comparison.to_json())
    return 0


def _tune(
    data: Annotated[str | None, _DATA] = None,
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

    console = _console(json)
    found = tune(data, trials=trials, search=search, out=out, resume=resume, console=console, **settings)
    _print_json(json, found.to_json())
    return _INTERRUPTED if found.status == "stopped" else 0


def _lab(
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

    console = _console(json)
    if name is None:
        found = demonstrations().values()
        for each in found:
            console.say(f"{each.name:18} {'' if each.seconds is None else f'{each.seconds:.0f} s':>5}  {each.title}")
        _print_json(json, {"demonstrations": [{"name": each.name, "title": each.title} for each in found]})
        return 0
    with redirect_stdout(console.stream):
        numbers = demonstrate(name, out=out or DEFAULT_OUT, seed=seed, data=data, console=console)
    _print_json(json, {"demonstration": name, "numbers": numbers})
    return 0


def _console(json: bool) -> Console:
    return Console(sys.stderr if json else sys.stdout, started=_started)


def _print_json(wanted: bool, content: dict[str, Any]) -> None:
    if wanted:
        print(json_module.dumps(content, ensure_ascii=True, allow_nan=False))


_started: float | None = None


def run(arguments: list[str], *, started: float | None = None) -> int:
    """The whole command: its exit code. ``started`` is when the process began, in ``time.monotonic()`` seconds."""
    global _started
    _started = started
    try:
        if arguments == ["--version"]:
            print(_version())  # the whole application takes five times as long to start
            return 0
        if "" in arguments:
            raise ConfigError(
                "one of the arguments is empty: give a name, or look for a shell variable that is not set"
            )
        code = build_app()(arguments, exit_on_error=False, print_error=False)
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return _fail(_reworded(error), ConfigError.exit_code)
    except SnellenError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe went away: there is nobody left to tell
        sys.stdout = None
        return _PIPE_CLOSED
    except OSError as error:  # the disk, a permission, a name that is too long: for the user to mend
        where = f" ({error.filename})" if error.filename is not None else ""
        return _fail(f"the operating system refused: {error.strerror or error}{where}", SnellenError.exit_code)


def _reworded(error: CycloptsError) -> str:
    """What is wrong with the command line, and where its help is."""
    command = " ".join(("snellen", *(error.command_chain or ())))
    if isinstance(error, UnusedCliTokensError):
        first = (error.unused_tokens or [""])[0]
        message = f"'{first}' is one argument too many; put quotes around a path with blanks in it"
    elif isinstance(error, MissingArgumentError) and error.argument is not None and not error.keyword:
        message = f"{error.argument.name.lstrip('-')} is missing"
    else:
        message = str(error).strip().rstrip(".")
        message = message[:1].lower() + message[1:]
    return message if message.endswith("?") else f"{message}; see {command} --help"


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"error: {printable(line)}", file=sys.stderr)
    return code
