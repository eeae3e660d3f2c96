"""The application on a socket; a signal ends it when all is answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from snellen.core.errors import ConfigError
from snellen.serve.limits import Limits
from snellen.serve.patience import patient_protocol

_KEEP_ALIVE = 5  # seconds that a connection may wait for its next request
_MOST_HEAD = 16 * 2**10  # bytes of a request's line and headers
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listening_socket(host: str, port: int) -> socket.socket:
    """Bound to an address of ``host``. Raises ConfigError where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(f"host = {host!r} with port = {port} is no address here: {error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        bound.close()
        told = getattr(error, "strerror", None) or error
        other = "--host" if getattr(error, "errno", None) == errno.EADDRNOTAVAIL else "--port"
        raise ConfigError(f"port {port} of {host} cannot be used ({told}): give another {other}") from None
    return bound


def make_server(app: ASGIApp, limits: Limits) -> Server:
    config = uvicorn.Config(
        app,
        http=patient_protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # what fails is logged by ``app.Watch``
        access_log=False,
        proxy_headers=False,  # the address of a client is that of its connection, whatever it says
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(limits.stop_seconds),
        h11_max_incomplete_event_size=_MOST_HEAD,
    )
    return Server(config)


class Server(uvicorn.Server):
    """Ends well on a signal. ``on_start`` is called when it listens."""

    on_start: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.on_start is not None:
            self.on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, it does not raise the signal again at the end: what was taken in is answered, and that is
        success."""
        loop = asyncio.get_running_loop()
        try:
            for each in _SIGNALS:
                loop.add_signal_handler(each, self.stop, each)
        except (ValueError, RuntimeError, NotImplementedError):  # not in the main thread, or on Windows
            yield
            return
        try:
            yield
        finally:
            for each in _SIGNALS:
                loop.remove_signal_handler(each)

    def stop(self, told: signal.Signals = signal.SIGTERM) -> None:
        """Takes nothing in any more, and answers what it has. Ctrl-C after that: waits for nothing. (Only Ctrl-C: what
        passes signals on may tell of one twice.)"""
        if self.should_exit and told is signal.SIGINT:
            self.force_exit = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        self.should_exit = True
