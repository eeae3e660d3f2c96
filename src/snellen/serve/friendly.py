"""The plain way to ask: an image as the body, JSON as the answer; what the page uses."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from snellen.core.geometry import Size
from snellen.draw.palette import colour_of
from snellen.serve.bodies import file_of
from snellen.serve.guard import client_of
from snellen.serve.refusal import Refusal
from snellen.serve.requests import Desk, flag, unless_gone
from snellen.serve.service import PICTURE_SIDE, Service, Working

_WEBP_QUALITY = 80
_WITH_PLACES = frozenset(("detection", "instances", "segmentation"))


class Friendly:
    """The routes /models, /predict, /explain, /health and /metrics."""

    def __init__(self, service: Service, desk: Desk) -> None:
        self._service, self._desk = service, desk

    def routes(self) -> list[Route]:
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/models", self.models, methods=["GET"]),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/explain", self.explain, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"models": [_card(each) for each in self._service.models]})

    async def predict(self, request: Request) -> Response:
        working = self._service.model(request.query_params.get("model"))
        with_picture = flag(request, "picture")
        client = client_of(request)
        working.batcher.check_room(client)
        async with self._desk.taken(request) as body:
            file = await self._service.describing(file_of, body, request.headers.get("content-type", ""))
            told = await unless_gone(request, self._told(working, file, with_picture, client))
        return Response(told, media_type="application/json")

    async def _told(self, working: Working, file: bytes, with_picture: bool, client: str) -> bytes:
        (target,), (size,) = await self._service.targets(working, [file], client)
        pixels = None
        if with_picture:
            pixels = await self._service.shown(file, client)
        return await self._service.describing(_worded, working, target, size, pixels)

    async def explain(self, request: Request) -> Response:
        working, of = self._service.model(request.query_params.get("model")), request.query_params.get("class")
        self._service.check_explaining(working, of)
        async with self._desk.taken(request) as body:
            file = await self._service.describing(file_of, body, request.headers.get("content-type", ""))
            told = await unless_gone(request, self._explained(working, file, of))
        return JSONResponse(told)

    async def _explained(self, working: Working, file: bytes, of: str | None) -> dict[str, Any]:
        picture, about = await self._service.explained(working, file, of)
        return {"picture": await self._service.describing(data_uri, picture), "about": about}


def _card(working: Working) -> dict[str, Any]:
    """What is told of a model. ``explains``: whether /explain has an answer; ``colours``: as its pictures have them."""
    told = {**working.served.card, "name": working.name, "explains": working.served.explain is not None}
    if working.served.task in _WITH_PLACES:
        told["colours"] = ["#" + bytes(colour_of(i)).hex() for i in range(len(working.task.classes))]
    return told


def _worded(working: Working, target: Any, size: Size, pixels: np.ndarray | None) -> bytes:
    told = {"model": working.name, "task": working.task.name, "size": list(size), **working.task.describe(target)}
    if pixels is not None:
        told["picture"] = data_uri(working.task.draw(pixels, target))
    return finite_json(told)


def data_uri(picture: Image.Image) -> str:
    """A picture as a data URI (WebP), made smaller where a side is longer than 1280 pixels."""
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    written = BytesIO()
    small.save(written, "WEBP", quality=_WEBP_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()


def finite_json(told: Any) -> bytes:
    """Raises Refusal 500 where the model gave NaN or an infinity, which JSON cannot tell."""
    try:
        return json.dumps(told, allow_nan=False).encode()
    except ValueError:
        raise Refusal(500, "the model gave a number that is not finite for this image") from None
