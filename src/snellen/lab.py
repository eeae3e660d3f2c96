"""The demonstrations in examples/: found, listed and run. Each is a script that draws what it shows."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from snellen.core.console import Console
from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.files import storage_errors
from snellen.core.process import prepare_process

DEFAULT_OUT = Path("runs/lab")

_HERE = Path(__file__).parent
_PLACES = (_HERE / "examples", _HERE.parents[1] / "examples")  # in an installed package; in the repository
_ROW = re.compile(r"^\| \[(\w+)\].*\| *([\d.]+) s *\|$", re.MULTILINE)  # of the table in examples/README.md


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """name; path of the script; title: what it shows, in a line; seconds: measured last, None if never."""

    name: str
    path: Path
    title: str
    seconds: float | None


def demonstrations() -> dict[str, Demonstration]:
    """By name, in the order of examples/README.md. The scripts are read, not run. Raises ConfigError without them."""
    folder = next((place for place in _PLACES if place.is_dir()), None)
    if folder is None:
        raise ConfigError("the demonstrations are not installed; install Snellen from its wheel or its repository")
    readme = folder / "README.md"
    measured = dict(_ROW.findall(readme.read_text(encoding="utf-8"))) if readme.is_file() else {}
    scripts = {path.stem: path for path in sorted(folder.glob("*.py"))}
    names = [*(name for name in measured if name in scripts), *(name for name in scripts if name not in measured)]
    return {
        name: Demonstration(
            name=name,
            path=scripts[name],
            title=_title(scripts[name]),
            seconds=float(measured[name]) if name in measured else None,
        )
        for name in names
    }


def _title(script: Path) -> str:
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")


def demonstrate(
    name: str, *, out: Path = DEFAULT_OUT, seed: int = 0, data: str | None = None, console: Console | None = None
) -> dict[str, float]:
    """Run a demonstration: it prints what it finds, writes ``out/<name>.png`` and returns its numbers.

    data  for those that learn from images that can be chosen

    Raises ConfigError for an unknown name or data that the demonstration does not take, StorageError, and whatever
    training raises.
    """
    known = demonstrations()
    if name not in known:
        raise ConfigError(f"unknown demonstration '{name}'{did_you_mean(name, known)}")
    prepare_process()
    start = time.monotonic()
    run = load(known[name]).run
    chosen = {} if data is None else {"data": data}
    if data is not None and "data" not in inspect.signature(run).parameters:
        raise ConfigError(f"the demonstration '{name}' makes its own data: leave --data out")
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        numbers: dict[str, float] = run(out, seed=seed, **chosen)
    (console or Console()).say(f"Picture: {out / name}.png   ({time.monotonic() - start:.1f} s)")
    return numbers


def load(demonstration: Demonstration) -> ModuleType:
    """The script as a fresh module; its ``run(out, *, seed, ...)`` draws the picture and returns the numbers."""
    spec = importlib.util.spec_from_file_location(f"snellen_examples_{demonstration.name}", demonstration.path)
    assert spec is not None and spec.loader is not None, demonstration.path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
