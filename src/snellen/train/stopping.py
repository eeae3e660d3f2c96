"""Reasons to stop in good order: the user's Ctrl-C, a request to terminate, the end of the time that was given."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

INTERRUPTED = "interrupted"
OUT_OF_TIME = "time limit"
StopQuestion = Callable[[], str | None]  # None: go on; otherwise why training is to stop
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequests:
    """Within the block the first Ctrl-C (or SIGTERM, SIGHUP) asks to stop; a second one interrupts at once.

    deadline  ``time.monotonic()`` seconds, or None
    question  another reason to stop, asked when there is none of these
    """

    def __init__(self, deadline: float | None, question: StopQuestion | None = None) -> None:
        self.deadline = deadline
        self._question = question
        self._asked = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            # A signal that the parent told us to ignore, as nohup does, stays ignored.
            heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def __call__(self) -> str | None:
        if self._asked:
            return INTERRUPTED
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return OUT_OF_TIME
        return None if self._question is None else self._question()
