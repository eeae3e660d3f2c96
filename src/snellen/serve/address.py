"""Where the server listens and who may ask: this machine alone, or whoever knows a token."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass

from snellen.core.errors import ConfigError

_SHORTEST_TOKEN = 8
_FRESH_TOKEN = 24  # bytes
_OF_ALL = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # what stands for all addresses -> one for a browser
_OWN_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Raises ConfigError for a port that is none, and for a token that a header cannot carry or that is soon guessed.

    host      a name or an address of this machine
    port      0: any that is free
    token     what requests must bring; None: on an address that only this machine reaches none, else a fresh one
    insecure  no token, whoever reaches the address
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port = {self.port} is none: give one of 1 to 65535, or 0 for any that is free")
        if self.insecure and self.token is not None:
            raise ConfigError("insecure asks for no token, and one is given: leave one of them out")
        if self.token is not None and not _is_token(self.token):
            raise ConfigError(
                f"a token has at least {_SHORTEST_TOKEN} letters, digits or signs, and no blanks, quotes or backslashes"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def access(self) -> Access:
        """Who may ask; with a fresh token each time where one is needed and none is given."""
        if self.is_loopback:
            return Access(self.token, _OWN_NAMES | {self.host.lower()})
        return Access(None if self.insecure else self.token or secrets.token_urlsafe(_FRESH_TOKEN))

    def url(self, port: int) -> str:
        """``http://127.0.0.1:8000/``; on all addresses, as this machine itself reaches it."""
        host = _OF_ALL.get(self.host, self.host)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def is_of_all(self) -> bool:
        """Whether it is all addresses of this machine."""
        return self.host in _OF_ALL


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    token   that requests must bring; None: none
    hosts   names in the Host header that are answered; None: any. A page of another site that has its own name point
            to this machine (DNS rebinding) is told by its name
    """

    token: str | None = None
    hosts: frozenset[str] | None = None


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the 64 bits of an IPv6 one, of which a house has as many as it
    likes."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Address(int(found) >> 64 << 64))


def _is_token(text: str) -> bool:
    return len(text) >= _SHORTEST_TOKEN and text.isascii() and text.isprintable() and not set(text) & set(' ",;\\')
