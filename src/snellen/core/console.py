"""What the user reads while Snellen works: sentences, and bars on long work when someone is watching."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Advance = Callable[[int, int], None]  # (done, total)

# They turn the direction of what stands beside them; other invisible marks join emoji and letters, and may stay.
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """``text`` on one line, with what would command a terminal written as an escape: names come from strangers."""
    return "".join(
        character.encode("unicode_escape", "backslashreplace").decode() if _commands(character) else character
        for character in text
    )


def _commands(character: str) -> bool:
    return character in _DIRECTION_MARKS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


class Console:
    """Writes to one stream. On a terminal long work shows a bar; elsewhere it is one plain line when done.

    ``started`` is the moment that durations are counted from (``time.monotonic()`` seconds).
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False, started: float | None = None) -> None:
        self._stream = stream
        self.quiet = quiet
        self.started = time.monotonic() if started is None else started

    @property
    def stream(self) -> TextIO | None:
        """None when the process was started with a closed output."""
        return self._stream if self._stream is not None else sys.stdout

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def say(self, text: str = "") -> None:
        """Print one line."""
        if not self.quiet and self.stream is not None:
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            # A C locale cannot print every file name.
            safe = printable(text).encode(encoding, errors="replace").decode(encoding)
            print(safe, file=self.stream, flush=True)

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Advance]:
        """Yields ``advance(done, total)``. The bar vanishes when the work is done.

        With a total of None, which is for work of which nobody knows the end, it counts what is done.
        """
        known = total is not None
        if self.quiet or (total is not None and total <= 0) or self.stream is None or not self.stream.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # Without markup: the label may hold a folder's name, and "[/]" is one.
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=RichConsole(file=self.stream), transient=True) as bars:
            bar = bars.add_task(printable(label), total=total)
            yield lambda done, total: bars.update(bar, completed=done, total=total if known else None)
