"""What stands before every request: who may ask, how much at once, and what a browser is told to allow."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snellen.serve.address import Access, network_of
from snellen.serve.refusal import Refusal

_COOKIE = "snellen_token"
_OPEN = ("/", "/health", "/v2/health/live", "/v2/health/ready")  # without a token: they tell nothing of a model
_OPEN_BELOW = "/page/"

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware: 421 for a foreign host name, 403 for a page of another site, 401 without the token."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        response = self._refused(Headers(scope=scope), scope) or self._welcomed(scope)
        await (self._app if response is None else response)(scope, receive, guarded)

    def _refused(self, headers: Headers, scope: Scope) -> Response | None:
        host = headers.get("host", "")
        if self._access.hosts is not None and _name(host) not in self._access.hosts:
            return _error(421, "this server answers to this machine's own names only; see --host")
        origin = headers.get("origin")
        # Behind a proxy Host may be another name. What the browser itself says, no page can write.
        own = headers.get("sec-fetch-site") == "same-origin"
        if origin is not None and not own and _origin_host(origin) != host.lower():
            return _error(403, "pages of other sites may not ask this server")
        path = scope["path"]
        if self._access.token is None or path in _OPEN or path.startswith(_OPEN_BELOW) or self._knows(headers):
            return None
        told = "send the server's token, as 'Authorization: Bearer TOKEN'"
        return _error(401, told, {"www-authenticate": "Bearer"})

    def _knows(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(_cookie(headers), "")
        return (kind.lower() == "bearer" and self._is_token(given.strip())) or self._is_token(cookie)

    def _is_token(self, given: str) -> bool:
        token = self._access.token
        return token is not None and hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())

    def _welcomed(self, scope: Scope) -> Response | None:
        """The address with the token in it, that was printed, becomes one without, and a cookie that no page reads."""
        if self._access.token is None or scope["path"] != "/" or scope["method"] != "GET":
            return None
        given = Request(scope).query_params.get("token")
        if given is None:
            return None
        response = Response(status_code=303, headers={"location": "./"})
        if self._is_token(given):  # else the page asks for it
            response.set_cookie(_cookie(Headers(scope=scope)), given, httponly=True, samesite="strict")
        return response


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


def _cookie(headers: Headers) -> str:
    """Cookies are shared by all ports of a host, so that the port is in the name: the one that the browser asked, which
    may be that of a tunnel."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"{_COOKIE}_{port}" if port.isascii() and port.isdigit() else _COOKIE


def _name(host: str) -> str:
    """The name in a Host header, without the port: 'localhost', '127.0.0.1', '::1'."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _origin_host(origin: str) -> str:
    """Host and port of an Origin header; '' for 'null' and what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def client_of(request: Request) -> str:
    """Whom a request is counted for: who shares an address is one client."""
    return network_of(request.client.host if request.client else "")


class Clients:
    """How many requests of each address are being worked on; in the event loop's thread only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._working: Counter[str] = Counter()

    @contextmanager
    def request(self, request: Request) -> Iterator[None]:
        """Raises Refusal 429."""
        address = client_of(request)
        if self._working[address] >= self._most:
            raise Refusal(429, f"more than {self._most} requests of this address at once: wait for some", retry_after=1)
        self._working[address] += 1
        try:
            yield
        finally:
            self._working[address] -= 1
            if not self._working[address]:
                del self._working[address]
