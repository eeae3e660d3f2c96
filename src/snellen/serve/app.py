"""Everything put together as one ASGI application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snellen.core.console import printable
from snellen.serve.address import Access
from snellen.serve.batching import ModelFailed
from snellen.serve.friendly import Friendly
from snellen.serve.guard import HEADERS, Guard
from snellen.serve.inference import Inference
from snellen.serve.openapi import description
from snellen.serve.page_files import Page, read_page
from snellen.serve.refusal import Refusal
from snellen.serve.requests import Desk
from snellen.serve.service import Service
from snellen.serve.telemetry import Telemetry

LOG = logging.getLogger("snellen.serve")

_GONE = 499  # nginx's code for a client that went away: in the log and the metrics; nobody is sent it
_LONGEST_PATH = 200  # characters, in the log
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))

Handler = Callable[[Request, Exception], Awaitable[Response]]


def build_app(service: Service, access: Access, *, version: str) -> ASGIApp:
    """The application; it closes ``service`` when it is shut down."""
    desk = Desk(service.limits)
    page = read_page()
    parts = (Friendly(service, desk), Inference(service, desk, version), Page(page))
    routes = [route for part in parts for route in part.routes()]
    told = description(version, [each.name for each in service.models], page)

    async def openapi(request: Request) -> Response:
        return JSONResponse(told)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)  # answers that are being given need the loop

    app = Starlette(
        routes=[*routes, Route("/openapi.json", openapi, methods=["GET"])],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _not_routed,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would answer with an address made from the Host header
    return Watch(Guard(app, access), service.telemetry)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if isinstance(error, ModelFailed):
        LOG.error("the model failed on an image", exc_info=error.error)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"error": error.message}, error.status, headers)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    nothing = "there is nothing at this address; see /openapi.json"
    if request.url.path.startswith("/v2/"):
        nothing = (
            "this part of the protocol is not served; /v2 names the extensions that are, /openapi.json all addresses"
        )
    told = {404: nothing, 405: "this address takes another method"}
    return JSONResponse({"error": told.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_GONE)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed on this request; its log says how"}, 500)


class Watch:
    """ASGI middleware: counts requests and logs a line for each, without queries (a token may be in them) and content;
    what nothing else caught ends here."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, answering = time.monotonic(), 500, False

        async def watched(message: Message) -> None:
            nonlocal status, answering
            if message["type"] == "http.response.start":
                status, answering = message["status"], True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:  # Starlette has answered already and raises it once more
            LOG.exception("a request failed")
        except asyncio.CancelledError:  # the server stops, and this request took longer than it waits
            if answering:
                raise
            told = {"error": "the server is stopping: ask another one, or later"}
            await JSONResponse(told, 503, {**HEADERS, "retry-after": "1"})(scope, receive, watched)
        finally:
            self._told(scope, status, time.monotonic() - started)

    def _told(self, scope: Scope, status: int, seconds: float) -> None:
        # By the route: paths are chosen by strangers, and every label is a row of its own.
        route = scope.get("route")
        path = route.path if isinstance(route, Route) else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._telemetry.answered(path, method, status, seconds)
        if not LOG.isEnabledFor(logging.INFO):
            return
        asked = printable(scope["path"][:_LONGEST_PATH])
        client = (scope.get("client") or ("-",))[0]
        LOG.info("%s %s %s %d %.0f ms", client, method, asked, status, 1000 * seconds)
