"""From models to a server that listens, says where, and ends when it is told to."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from snellen.core.console import Console
from snellen.serve.address import Access, Address
from snellen.serve.app import LOG, build_app
from snellen.serve.limits import Limits
from snellen.serve.models import Served
from snellen.serve.server import make_server
from snellen.serve.service import Service


def serve_models(
    models: Mapping[str, Served],
    bound: socket.socket,
    address: Address,
    limits: Limits,
    *,
    version: str,
    log_requests: bool,
    console: Console,
) -> None:
    """Answer on a bound socket until SIGTERM or SIGINT, then what was taken in. A second SIGINT ends that: raises
    KeyboardInterrupt."""
    access, port = address.access, bound.getsockname()[1]
    service = Service(models, limits)
    try:
        server = make_server(build_app(service, access, version=version), limits)
        server.on_start = lambda: _announce(models, address, access, port, console)
        with _logging_to(console, logging.INFO if log_requests else logging.ERROR):
            server.run(sockets=[bound])
    finally:
        service.close()
    if server.force_exit:
        raise KeyboardInterrupt
    console.say("Stopped.")


def _announce(models: Mapping[str, Served], address: Address, access: Access, port: int, console: Console) -> None:
    for name, served in models.items():
        classes = served.answering.task.classes
        shown = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
        console.say(f"{name}: {served.task} ({shown})")
    url = address.url(port)
    console.say(f"Serving on {url}" + (f"?token={quote(access.token, safe='')}" if access.token else ""))
    if address.is_of_all:
        console.say("From other machines it is reached by the name or an address of this one.")
    if access.token:
        console.say(f"Programs send the header 'Authorization: Bearer {access.token}'.")
    elif not address.is_loopback:
        console.say("Whoever reaches this address may ask: it was started as insecure.")


@contextmanager
def _logging_to(console: Console, level: int) -> Iterator[None]:
    """Within the block, what the server logs goes to the console."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a stranger's damaged form is no news
    handler = _Lines(console)
    LOG.addHandler(handler)
    LOG.setLevel(level)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.propagate = True


class _Lines(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._console.say(line)
