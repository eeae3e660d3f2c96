"""Somebody's own training: a function in a file of theirs that gives a ``Training``, or the parts of one."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from snellen.core.errors import ConfigError, SnellenError, did_you_mean
from snellen.doctor.case import Answers, Case, History, Training
from snellen.doctor.learning import learn
from snellen.doctor.safety import untouched
from snellen.doctor.schedules import full_schedule
from snellen.doctor.scores import answers_of

_NEEDED = ("model", "loss", "train", "val")
_FORKS = 4  # that fit into the time which a training that was cut was given: what is left for them is about as much


def training_of(script: str) -> Training:
    """The training at its beginning that ``file.py:function`` gives.

    The function takes the seed, or nothing, and returns a ``Training`` or a mapping with its fields. Raises
    ConfigError where the file, the function or what it returns is not as it should be.
    """
    build = _function(script)
    by_name, by_place = _seeded(build)

    def begin(seed: int = 0) -> Training:
        with failures_told(f"{script} failed"):
            given = build(seed=seed) if by_name else build(seed) if by_place else build()
        training = _checked(given, script)
        return training if training.build is not None else replace(training, build=begin)

    training = begin(0)
    with untouched(training):
        for name in ("train", "val", "plain"):
            _check_batches(name, getattr(training, name), script)
    return training


@contextmanager
def beside(script: str | Path) -> Iterator[None]:
    """What lies in the folder of ``script`` (``train.py``, or ``train.py:build``) can be imported while this lasts."""
    name = str(script)
    path = Path(name if name.endswith(".py") else name.rpartition(":")[0])
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the script may have put its own folders before it, or taken it away
            sys.path.remove(folder)


@contextmanager
def failures_told(what: str) -> Iterator[None]:
    """Whatever somebody's own code raises becomes a sentence with its type and its message. Raises ConfigError."""
    try:
        yield
    except SnellenError:
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}") from error


def _function(script: str) -> Callable[..., Any]:
    path, separator, name = script.rpartition(":")
    if not separator or not path or not name:
        raise ConfigError(f"--script {script} names no function: give it as train.py:build")
    module = _module(Path(path))
    function = getattr(module, name, None)
    if not callable(function):
        there = [each for each, value in vars(module).items() if callable(value)]
        raise ConfigError(f"{path} has no function '{name}'{did_you_mean(name, there)}")
    return function  # type: ignore[no-any-return]


def _seeded(build: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a function takes the seed by its name, and whether by its place: where it needs one thing and no more.

    What has another name and a value of its own (``build(width=64)``) is no seed.
    """
    try:
        parameters = inspect.signature(build).parameters.values()
    except ValueError:  # a class or a builtin that does not say
        return False, False
    placed = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    by_name = any(
        each.name == "seed" and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters
    )
    return by_name, sum(each.default is each.empty for each in placed) == 1


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"no script at {path}: give it as train.py:build")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file: give it as train.py:build")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with beside(path), failures_told(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    return module


def _checked(given: Any, script: str) -> Training:
    if isinstance(given, Training):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{script} returned a {type(given).__name__}: return a snellen.Training, or a dict with at least "
            f"{', '.join(_NEEDED)}"
        )
    known = {field.name for field in fields(Training)}
    for name in given:
        if name not in known:
            raise ConfigError(f"{script} returned an unknown part '{name}'{did_you_mean(str(name), known)}")
    missing = [name for name in _NEEDED if name not in given]
    if missing:
        raise ConfigError(f"{script} returned no {' and no '.join(missing)}: a training needs {', '.join(_NEEDED)}")
    return Training(**given)


def _check_batches(name: str, loader: Any, script: str) -> None:
    """That it can be asked for its batches again and again, and that they are pairs, by the first of them."""
    if loader is None:
        return
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise ConfigError(f"{script} returned a {type(loader).__name__} as '{name}': it must give batches")
    with failures_told(f"{script}: '{name}' failed to give a batch"):
        batches = iter(loader)
        if batches is loader:
            raise ConfigError(
                f"{script} returned a {type(loader).__name__} as '{name}', which gives its batches once: return what "
                "can be asked anew for each epoch, as a DataLoader or a list"
            )
        for batch in islice(batches, 1):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise ConfigError(
                    f"{script}: a batch of '{name}' is {_shape_of(batch)}, and must be a pair (inputs, targets): give "
                    "the loader a collate_fn that returns one"
                )


def _shape_of(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with {', '.join(map(str, list(batch)[:5])) or 'nothing in it'}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"


def case_of(training: Training, *, seed: int = 0, should_stop: Callable[[], bool] = lambda: False) -> Case:
    """Train it, where it says for how many epochs, and gather what can be examined.

    A training of 0 epochs is taken as it is: examined where it stands, with its weights as they are. Raises ConfigError
    where the user's own code fails.
    """
    if training.build is None:
        training = replace(training, build=None, epochs=0)
    with failures_told("the training failed"):
        history = learn(training, seed=seed, watched=True, should_stop=should_stop) if training.epochs else History()
    with failures_told("the model failed to answer in evaluation mode"):
        answers = _answers(training)
    return Case(
        training=_within_the_time(training, history),
        history=history,
        answers=answers,
        classes=tuple(training.classes),
        seed=seed,
    )


def _within_the_time(training: Training, history: History) -> Training:
    """Where there was no time for all epochs, forks are trained for a part of those that there was time for; where not
    even one came to its end, there are no forks."""
    build, done = training.build, len(history.epochs)
    if not history.cut or build is None or training.build_short is not None:
        return training
    if not done:
        return replace(training, build=None)
    epochs = max(1, done // _FORKS)

    def build_short(seed: int) -> Training:
        short = replace(build(seed), epochs=epochs)
        return short if short.scheduler is None else full_schedule(short)

    return replace(training, build_short=build_short, shortened=epochs / training.epochs)


def _answers(training: Training) -> dict[str, Answers]:
    sides = {"train": training.plain, "val": training.val}
    found = {side: answers_of(training, batches) for side, batches in sides.items() if batches is not None}
    return {side: each for side, each in found.items() if each is not None}
