"""Clients that cost little: HTTP over raw connections, in one thread, with requests that were written beforehand.

A client of the standard library takes half a millisecond of processor for a request, and two hundred of them in threads
take turns at it; beside a server on two cores that is measured as the server's. This one takes a fifth of that.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Done = Callable[["Connection", int, bytes], None]

_PAUSE = 0.002  # seconds between looks whether everything was answered


@dataclass(frozen=True, slots=True)
class Reply:
    """When a request was due, was sent and was answered, in seconds of one clock; 0 as status: the connection broke."""

    due: float
    sent: float
    ended: float
    status: int
    number: int
    body: bytes = b""


@dataclass
class Run:
    """replies in the order in which they came, and the seconds until the last; cpu: the clients' own seconds."""

    replies: list[Reply] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0


class Connection(asyncio.Protocol):
    """One request at a time, on a connection that stays open."""

    def __init__(self) -> None:
        self.is_closed = False
        self._received, self._done = bytearray(), None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, raw: bytes, done: Done) -> None:
        self._done: Done | None = done
        self.transport.write(raw)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= end + 4 + length:
            body = bytes(self._received[end + 4 :])
            self._received.clear()
            self._tell(int(head[9:12]), body)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        self._tell(0, b"")

    def _tell(self, status: int, body: bytes) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            done(self, status, body)


def written(port: int, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A request as it goes over the wire."""
    told = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def closed_loop(port: int, raws: Sequence[bytes], clients: int, seconds: float) -> Run:
    """So many clients, each of which asks again as soon as it was answered."""
    return asyncio.run(_closed(port, raws, clients, seconds, None))


def each_once(port: int, raws: Sequence[bytes], clients: int) -> list[Reply]:
    """Every request once, with its body; in their order."""
    replies = asyncio.run(_closed(port, raws, clients, float("inf"), len(raws))).replies
    return sorted(replies, key=lambda reply: reply.number)


async def _closed(port: int, raws: Sequence[bytes], clients: int, seconds: float, most: int | None) -> Run:
    loop, run, over = asyncio.get_running_loop(), Run(), asyncio.Event()
    connections = [await _connected(port) for _ in range(clients)]
    begun, cpu, asked, working = loop.time(), time.process_time(), 0, clients

    def turn(connection: Connection) -> None:
        nonlocal asked, working
        if asked == most or connection.is_closed or loop.time() - begun >= seconds:
            working -= 1
            if not working:
                over.set()
            return
        number, sent = asked, loop.time()
        asked += 1

        def done(connection: Connection, status: int, body: bytes) -> None:
            kept = body if most is not None else b""
            run.replies.append(Reply(sent, sent, loop.time(), status, number, kept))
            turn(connection)

        connection.ask(raws[number % len(raws)], done)

    for connection in connections:
        turn(connection)
    await over.wait()
    run.seconds, run.cpu = loop.time() - begun, time.process_time() - cpu
    for connection in connections:
        connection.transport.close()
    return run


def open_loop(port: int, raws: Sequence[bytes], rate: float, seconds: float, seed: int) -> Run:
    """Requests at random moments (a Poisson process), whether or not earlier ones were answered."""
    return asyncio.run(_open(port, raws, rate, seconds, seed))


async def _open(port: int, raws: Sequence[bytes], rate: float, seconds: float, seed: int) -> Run:
    loop, run, rng = asyncio.get_running_loop(), Run(), random.Random(seed)
    idle: list[Connection] = []
    begun, cpu, asked = loop.time(), time.process_time(), 0
    due = begun + rng.expovariate(rate)

    def done_for(due: float, sent: float, number: int) -> Done:
        def done(connection: Connection, status: int, body: bytes) -> None:
            run.replies.append(Reply(due, sent, loop.time(), status, number))
            if not connection.is_closed:
                idle.append(connection)

        return done

    while due < begun + seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        while idle and idle[-1].is_closed:
            idle.pop()
        connection = idle.pop() if idle else await _connected(port)
        connection.ask(raws[asked % len(raws)], done_for(due, loop.time(), asked))
        asked, due = asked + 1, due + rng.expovariate(rate)
    while len(run.replies) < asked:
        await asyncio.sleep(_PAUSE)
    run.seconds, run.cpu = loop.time() - begun, time.process_time() - cpu
    for connection in idle:
        connection.transport.close()
    return run


async def _connected(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection
