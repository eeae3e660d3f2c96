"""A request that is not answered: why, in one line without paths or traces, and with which status."""

from __future__ import annotations

_LONGEST = 400  # characters


class Refusal(Exception):
    """Ends a request with ``status`` and ``{"error": message}``. ``retry_after`` is in seconds."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        self.message = " ".join(message.split())[:_LONGEST]


def busy(what: str) -> Refusal:
    return Refusal(503, f"{what}: try again in a moment", retry_after=1)


def quoted(name: object) -> str:
    """Text of a request within a sentence, cut to what a person reads."""
    return repr(str(name)[:60])
