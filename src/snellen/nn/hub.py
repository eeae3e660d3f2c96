"""Files of huggingface.co, kept in its client's cache. No torch."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies


@contextmanager
def without_waiting() -> Iterator[None]:
    """Where the hub's name cannot be looked up, only its cache is asked: its client would retry for 50 seconds."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not getproxies():
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@lru_cache(maxsize=32)  # settings are read more than once, and nothing is asked of the hub again
def download(name: str, patterns: tuple[str, ...]) -> Path:
    """The folder of what the hub has under ``name`` ('owner/model'), with at least the files that fit ``patterns``.

    The folder is named after the revision. Raises what the hub's client raises, which is of many kinds.
    """
    import huggingface_hub

    with without_waiting():
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
