"""Who is next where only a few fit: clients in turn, so that what one of them sent in heaps holds up nobody else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """``num`` at a time; in the event loop's thread only."""

    def __init__(self, num: int) -> None:
        self._free = num
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the first of these clients is next

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Waits for a turn of this client, which ends with the block."""
        if self._free:
            self._free -= 1
        else:
            await self._given(client)
        try:
            yield
        finally:
            self._pass_on()

    async def _given(self, client: str) -> None:
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # it was given in the meantime
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            client = next(iter(self._waiting))
            futures = self._waiting.pop(client)
            mine = futures.popleft()
            if futures:
                self._waiting[client] = futures  # behind the others
            if not mine.done():
                mine.set_result(None)
                return
        self._free += 1
