"""Connections that are cut off when a request does not arrive in time, or its answer is not fetched.

uvicorn has a limit for idle connections only: one that sends a byte now and then, or nothing at all, would stay.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from snellen.serve.address import network_of
from snellen.serve.limits import Limits

_GRACE = 5.0  # seconds beyond ``body_seconds``, in which the application tells it was too slow

_Part = Literal["head", "body"]


class PatientProtocol(H11Protocol):
    """A connection with a deadline for what it is to send next."""

    limits: ClassVar[Limits]
    open_from: ClassVar[Counter[str]]  # connections, by network_of their client

    _network = ""
    _fetching: asyncio.TimerHandle | None = None
    _awaited: _Part | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._network = network_of(self.client[0] if self.client else "")
        self.open_from[self._network] += 1
        if (
            len(self.connections) > self.limits.connections
            or self.open_from[self._network] > self.limits.connections_per_client
        ):
            transport.abort()
        else:
            self._await("head")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._await("body")
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._await("head")
        else:
            self._await(None)

    def pause_writing(self) -> None:
        """More is written than is fetched: an answer, or answers to requests in a row, that nobody reads."""
        super().pause_writing()
        if self._fetching is None:
            self._fetching = self.loop.call_later(self.limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_fetching()

    def _stop_fetching(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            self._fetching = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_from[self._network] -= 1
        if not self.open_from[self._network]:
            del self.open_from[self._network]
        self._await(None)
        self._stop_fetching()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await("body")  # closing waits until what was written is fetched

    def _await(self, part: _Part | None) -> None:
        """Begin to wait for a part of a request; the wait for it goes on when it has begun already."""
        if part is not None and part == self._awaited:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        seconds = {None: None, "head": self.limits.head_seconds, "body": self.limits.body_seconds + _GRACE}[part]
        self._awaited = part
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def patient_protocol(limits: Limits) -> type[PatientProtocol]:
    """The protocol with these limits; uvicorn makes an instance for each connection."""
    return type("PatientProtocol", (PatientProtocol,), {"limits": limits, "open_from": Counter()})
