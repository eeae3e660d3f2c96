"""Somebody's own training: a function in a file of theirs that gives a ``Training``, or the parts of one."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from snellen.core.errors import ConfigError, SnellenError, did_you_mean
from snellen.doctor.case import Answers, Case, History, Training
from snellen.doctor.learning import learn
from snellen.doctor.scores import answers_of

_NEEDED = ("model", "loss", "train", "val")


def training_of(script: str) -> Training:
    """The training at its beginning that ``file.py:function`` gives.

    The function takes the seed, or nothing, and returns a ``Training`` or a mapping with its fields. Raises
    ConfigError where the file, the function or what it returns is not as it should be.
    """
    build = _function(script)
    takes_seed = bool(inspect.signature(build).parameters)

    def begin(seed: int = 0) -> Training:
        try:
            given = build(seed) if takes_seed else build()
        except SnellenError:
            raise
        except Exception as error:
            raise ConfigError(f"{script} failed: {type(error).__name__}: {error}") from error
        training = _checked(given, script)
        return training if training.build is not None else replace(training, build=begin)

    return begin(0)


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


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"no script at {path}: give it as train.py:build")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file: give it as train.py:build")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside a script is imported by it
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except SnellenError:
        raise
    except Exception as error:
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
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


def case_of(training: Training, *, seed: int = 0, should_stop: Callable[[], bool] = lambda: False) -> Case:
    """Train it, where it says for how many epochs, and gather what can be examined.

    A training of 0 epochs is taken as it is: examined where it stands, with its weights as they are.
    """
    if training.build is None:
        training = replace(training, build=None, epochs=0)
    history = learn(training, seed=seed, watched=True, should_stop=should_stop) if training.epochs else History()
    return Case(
        training=training, history=history, answers=_answers(training), classes=tuple(training.classes), seed=seed
    )


def _answers(training: Training) -> dict[str, Answers]:
    sides = {"train": training.plain, "val": training.val}
    found = {side: answers_of(training, batches) for side, batches in sides.items() if batches is not None}
    return {side: each for side, each in found.items() if each is not None}
