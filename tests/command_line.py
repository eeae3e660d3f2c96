"""Calling ``snellen`` in the process of a test."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from snellen.cli import run

FAST = "--epochs 1 --device cpu --precision fp32 --threads 1 --workers 1 --groups none"


def called(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of ``snellen ARGUMENTS``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    return code, out.getvalue(), err.getvalue()


def tree(folder: Path) -> set[str]:
    """Everything below a folder, by its relative path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
