"""How much the server takes on, in one place: what is beyond is refused at once, with a word on why."""

from __future__ import annotations

from dataclasses import dataclass, fields

from snellen.core.device import available_cores
from snellen.core.errors import ConfigError

_LARGEST = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Raises ConfigError for a number that makes no sense.

    max_batch        images that a model answers together
    max_delay        milliseconds that an image waits for others that are on their way to join its batch
    queue            images that a model has taken in and not answered yet; who holds many gets no more
                     while few are free, unless in one request
    per_client       requests of one address that are being worked on; it may have twice as many connections open. All
                     behind a proxy have its address: raise it there, and limit each client in the proxy
    max_body         bytes of a request
    max_held         bytes of all requests that are being worked on; as many again of their pixels
    max_json         bytes of JSON in a request: it is parsed in one go, and 1 byte may become 60 of memory
    max_pixels       of an image, told by its header before a pixel is decoded
    connections      that are open
    head_seconds     that the head of a request may take to arrive; also for a connection that sends nothing
    body_seconds     that the rest may take
    decode_seconds   of a processor that a file may take to decode, before what decodes it is ended
    request_decode_seconds  that all files of a request may take together
    explain_seconds  that an explanation may take: less than the minute that proxies and people wait
    stop_seconds     that answers may take after the server was told to stop; requests are then told that it does
    """

    max_batch: int = 16
    max_delay: float = 5.0
    queue: int = 128
    per_client: int = 64
    max_body: int = 32 * 2**20
    max_held: int = 512 * 2**20
    max_json: int = 8 * 2**20
    max_pixels: int = 50_000_000
    connections: int = 512
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    decode_seconds: float = 10.0
    request_decode_seconds: float = 30.0
    explain_seconds: float = 50.0
    stop_seconds: float = 7.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), 0 if each.name == "max_delay" else 1e-3
            if not least <= value <= _LARGEST:
                fitting = "above 0" if least else "from 0 on"
                raise ConfigError(f"{each.name} = {value} does not fit: give a number {fitting}")
        if self.queue < self.max_batch:
            raise ConfigError(
                f"queue = {self.queue} is less than max_batch = {self.max_batch}, which then never fills: raise it, "
                "or lower max_batch"
            )

    @property
    def connections_per_client(self) -> int:
        """Open at once from one address."""
        return 2 * self.per_client

    @property
    def decoders(self) -> int:
        """Processes that decode images."""
        return max(2, available_cores())
