"""How many bytes requests hold together, so that many large ones cannot take all memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from snellen.serve.refusal import busy

Hold = Callable[[int], None]


class Ledger:
    """Of one kind of thing; used in the event loop's thread only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    @contextmanager
    def request(self) -> Iterator[Hold]:
        """What a request calls with the bytes that it holds more; all are given back when the block ends.

        It raises Refusal 503 when too many are held. Only the first thing that is held may be more alone: how large one
        thing can be is capped elsewhere, and not how many things a request has.
        """
        own = 0

        def hold(num: int) -> None:
            nonlocal own
            own += num
            self.held += num
            if self.held > self._most and self.held > num:
                raise busy("other requests hold all the memory there is for them")

        try:
            yield hold
        finally:
            self.held -= own
