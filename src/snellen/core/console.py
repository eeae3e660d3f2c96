"""What the user reads while Snellen works: sentences, and bars on long work when someone is watching."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Advance = Callable[[int, int], None]  # (done, total)


class Console:
    """Writes to one stream. On a terminal long work shows a bar; elsewhere it is one plain line when done.

    ``started`` is the moment that durations are counted from (``time.monotonic()`` seconds).
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False, started: float | None = None) -> None:
        self._stream = stream
        self.quiet = quiet
        self.started = time.monotonic() if started is None else started

    @property
    def stream(self) -> TextIO:
        return self._stream if self._stream is not None else sys.stdout

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def say(self, text: str = "") -> None:
        if not self.quiet:
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            safe = text.encode(encoding, errors="replace").decode(encoding)  # a C locale cannot print every file name
            print(safe, file=self.stream, flush=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Yields ``advance(done, total)``. The bar vanishes when the work is done."""
        if self.quiet or total <= 0 or not self.stream.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(file=self.stream), transient=True) as bars:
            bar = bars.add_task(label, total=total)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
