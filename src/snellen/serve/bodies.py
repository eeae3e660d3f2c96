"""The body of a request: capped before it is parsed, in memory only, and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from snellen.serve.ledger import Hold
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MOST_PARTS = 16


async def read_body(request: Request, limits: Limits, hold: Hold) -> bytes:
    """The whole body. Raises Refusal: 413 when it is too long, told in its head or not, 408 when it takes too long, and
    as ``hold``; ClientDisconnect when the client went away."""
    _check(_announced(request), limits)
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                _check(len(content) + len(piece), limits)
                hold(len(piece))
                content += piece
    except TimeoutError:
        raise Refusal(408, f"the request was not sent within {limits.body_seconds:g} s: send less, or faster") from None
    return bytes(content)


def _check(length: int, limits: Limits) -> None:
    if length > limits.max_body:
        raise Refusal(413, f"the request has more than {limits.max_body} bytes, which is the limit")


def _announced(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


# ---- multipart/form-data


def file_of(body: bytes, content_type: str) -> bytes:
    """The one file in a body: the body itself, or the file part of a form. Takes a while for a large form.

    Raises Refusal 400.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        if not body:
            raise Refusal(
                400, "no image was sent, or an empty file: send it as the body, or as a form with one file part"
            )
        if kind == b"application/x-www-form-urlencoded" and _is_stripped(body):
            raise Refusal(
                400, "the file lost bytes on its way: with curl it is --data-binary that leaves all of them in"
            )
        return body
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 256:
        raise Refusal(400, "the form does not say where its parts end: its Content-Type needs a boundary")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise Refusal(400, "the form is damaged: its parts do not end where its boundary says") from None
    files = parts.files if parts.files or len(parts.all) != 1 else parts.all
    if len(files) != 1:
        raise Refusal(400, f"the form has {len(files)} file parts: send exactly one image")
    return bytes(files[0])


def _is_stripped(body: bytes) -> bool:
    """Whether it went through ``curl -d``, which takes three bytes out of a file; no image is without all of them."""
    return not body.isascii() and not any(byte in body for byte in (b"\0", b"\r", b"\n"))


class _Parts:
    """The parts of a form: their contents, and which of them name a file. The parser caps their headers."""

    def __init__(self) -> None:
        self.all: list[bytearray] = []
        self.files: list[bytearray] = []
        self._field, self._value = b"", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
        }

    def _begin(self) -> None:
        self.all.append(bytearray())
        if len(self.all) > _MOST_PARTS:
            raise Refusal(400, f"the form has more than {_MOST_PARTS} parts: send one file")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition" and b"filename" in parse_options_header(self._value)[1]:
            self.files.append(self.all[-1])
        self._field, self._value = b"", b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.all[-1] += data[start:end]
