"""What the verbs share on the command line: options of the same name mean the same everywhere."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from snellen.core.console import Console

INTERRUPTED = 130  # the shell's code for a command that Ctrl-C ended

Data = Parameter(help="A folder of images, a table of labels, or sample:digits.")

RunPath = Annotated[Path, Parameter(help="The folder that 'snellen train' wrote.")]
ModelPath = Annotated[Path, Parameter(help="The folder that 'snellen train', 'ensemble' or 'export' wrote.")]
Out = Annotated[Path | None, Parameter(help="The folder to write; it must not exist. Default: a fresh one in runs/.")]
OutFile = Annotated[Path | None, Parameter(help="A folder to write the result to as well; it must not exist.")]
Json = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Results as one JSON object; all else on stderr."),
]
Device = Annotated[str, Parameter(help="cpu, cuda, cuda:1, mps or auto.")]
Seed = Annotated[int, Parameter(help="Same seed, same machine: same bits.")]

_started: float | None = None


def started_at(moment: float | None) -> None:
    """When the process began, in ``time.monotonic()`` seconds."""
    global _started
    _started = moment


def console_for(json: bool) -> Console:
    """Standard output, or standard error where JSON has the other."""
    return Console(sys.stderr if json else sys.stdout, started=_started)


def print_json(wanted: bool, content: dict[str, Any]) -> None:
    if wanted:
        print(json_module.dumps(content, ensure_ascii=True, allow_nan=False))
