"""What the routes do alike: read a request within its limits, and give up when its sender has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from snellen.serve.bodies import read_body
from snellen.serve.guard import Clients
from snellen.serve.ledger import Ledger
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal

T = TypeVar("T")


class Desk:
    """Takes requests in."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._bodies, self._clients = limits, Ledger(limits.max_held), Clients(limits.per_client)

    @asynccontextmanager
    async def taken(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request that is one of few from its address, held until the block ends. Raises Refusal."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "compressed requests are not taken: send it as it is")
        with self._clients.request(request), self._bodies.request() as hold:
            yield await read_body(request, self._limits, hold)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives; it is cancelled when the client goes away, which raises ClientDisconnect.

    Only after the body was read.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def flag(request: Request, name: str) -> bool:
    """``?name=1`` or ``?name=0``. Raises Refusal."""
    given = request.query_params.get(name, "0")
    if given not in ("0", "1"):
        raise Refusal(400, f"{name} is 0 or 1")
    return given == "1"
