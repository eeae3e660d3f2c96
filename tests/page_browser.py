"""A browser for the page of the server, and a server that answers whatever a test tells it to."""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from snellen.serve.address import Access
from snellen.serve.guard import Guard
from snellen.serve.page_files import Page as PageFiles
from snellen.serve.page_files import read_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PATIENCE = 20_000  # milliseconds, which only a test that fails waits for
_SWITCHES = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came in."""

    verb: str
    model: str
    content_type: str
    body: bytes


@dataclass(slots=True)
class StandIn:
    """The page behind its guard, as the server gives it, with answers that a test makes up.

    reply    answers /predict and /explain: a response, or what it says as JSON, or an awaitable of that
    largest  bytes of a request; more is refused before it is read
    """

    models: list[dict[str, Any]] = field(default_factory=list)
    reply: Callable[[Asked], Any] = lambda asked: {}
    largest: int = 10**9
    access: Access = field(default_factory=Access)
    asked: list[Asked] = field(default_factory=list)
    at_once: set[int] = field(default_factory=set)  # how many requests were being answered, each time one came
    _answering: int = 0
    address: str = ""

    def anew(self) -> StandIn:
        """As before any test."""
        self.models, self.reply, self.largest, self.access = [MODEL], lambda asked: ONE, 10**9, Access()
        self.asked.clear()
        self.at_once.clear()
        return self

    def app(self) -> ASGIApp:
        asked = [Route(f"/{verb}", self._answer, methods=["POST"]) for verb in ("predict", "explain")]
        routes = Starlette(routes=[*PageFiles(read_page()).routes(), Route("/models", self._models), *asked])

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            await Guard(routes, self.access)(scope, receive, send)

        return guarded

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"models": self.models})

    async def _answer(self, request: Request) -> Response:
        if int(request.headers["content-length"]) > self.largest:
            return refusal(413, f"the file has more than {self.largest} bytes")
        verb, content_type = request.url.path.strip("/"), request.headers["content-type"]
        asked = Asked(verb, request.query_params["model"], content_type, await request.body())
        self.asked.append(asked)
        self._answering += 1
        self.at_once.add(self._answering)
        reply = self.reply(asked)
        if isinstance(reply, Awaitable):
            reply = await reply
        self._answering -= 1
        return reply if isinstance(reply, Response) else JSONResponse(reply)


def refusal(status: int, message: str, retry_after: int | None = None) -> Response:
    return JSONResponse({"error": message}, status, {} if retry_after is None else {"retry-after": str(retry_after)})


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """``stand_in`` on a port of this machine, until the end of the block."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(stand_in.app(), log_level="critical", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    stand_in.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield stand_in
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        expect.set_options(timeout=_PATIENCE)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_SWITCHES.split())
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    path: str = "/",
    *,
    before: str = "",
    expected: tuple[str, ...] = (),
    **settings: Any,
) -> Iterator[Page]:
    """The page at ``path`` of ``address`` in a fresh context, which may not say anything in the console but what is
    ``expected``, open a dialog, break its own policy, or ask another server. ``before`` is a script that runs before
    its own."""
    faults = list[str]()
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    try:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: faults.extend(_foreign(request.url, address)))
        if before:
            page.add_init_script(before)
        page.goto(address + path)
        yield page
        faults = [fault for fault in faults if not fault.startswith(expected or "nothing")]
        assert not faults, faults
    finally:
        context.close()


def _foreign(url: str, address: str) -> list[str]:
    local = (f"{address}/", f"blob:{address}/", "data:image/")
    return [] if url.startswith(local) else [f"request to {url}"]


class Hold:
    """Keeps an answer back until it is released."""

    def __init__(self) -> None:
        self._released = threading.Event()

    def reply(self, answer: dict[str, Any]) -> Callable[[Asked], Awaitable[dict[str, Any]]]:
        async def held(asked: Asked) -> dict[str, Any]:
            while not self._released.is_set():
                await asyncio.sleep(0.01)
            return answer

        return held

    def release(self) -> None:
        self._released.set()


def jpeg(size: tuple[int, int] = (64, 48), colour: str = "teal") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "JPEG")
    return written.getvalue()


def sideways(size: tuple[int, int], red: tuple[int, int, int, int]) -> bytes:
    """A white JPEG with a red box, stored turned by a quarter as phones do, with the EXIF that says so."""
    upright = Image.new("RGB", size, "white")
    upright.paste("red", red)
    exif, written = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(written, "JPEG", exif=exif, quality=95, subsampling=0)
    return written.getvalue()


def red_in(screenshot: bytes) -> list[int]:
    """x0, y0, x1, y1 of what is red."""
    seen = np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB")).astype(int)
    rows, columns = np.nonzero((seen[..., 0] > 180) & (seen[..., 1] < 80))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def corners(found: Locator) -> list[float]:
    """x0, y0, x1, y1 in the window, of the shape without its stroke."""
    place = "(node) => { const box = node.getBoundingClientRect(); return [box.x, box.y, box.right, box.bottom]; }"
    told: list[float] = found.evaluate(place)
    return told


def file(name: str = "photo.jpg", content: bytes = b"", kind: str = "image/jpeg") -> dict[str, Any]:
    """As the browser's dialog would hand it over."""
    return {"name": name, "mimeType": kind, "buffer": content or jpeg()}


def data_uri(size: tuple[int, int] = (64, 48), colour: str = "purple") -> str:
    """A picture as the server sends it with an answer."""
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, "WEBP")
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()


SCRIPT = "</script><img src=x onerror=alert(1)>"
HOSTILE = [SCRIPT, "\u202egpj.exe \u05d0\u05d1", "W" * 4096, "\x00\x07", "'\"`${1}"]
ESTIMATE = {"value": 0.948, "low": 0.9, "high": 0.973, "n": 153}
MODEL = {
    "name": "ants",
    "task": "classification",
    "classes": ["ants", "bees"],
    "headline": "accuracy",
    "metrics": {"val": {"accuracy": ESTIMATE, "recall/ants": {"value": 1.0, "low": None, "high": None, "n": 70}}},
    "findings": [
        {"severity": "info", "message": "Some are small.", "advice": "Look."},
        {"severity": "serious", "message": "Copies lie on both sides.", "advice": "Move them."},
    ],
    "trained_on": "245 images",
    "versions": {"snellen": "0.1.0"},
    "explains": True,
}
HOSTILE_MODEL = {
    **MODEL,
    "name": SCRIPT,
    "classes": HOSTILE,
    "metrics": {SCRIPT: {f"recall/{name}": ESTIMATE for name in HOSTILE}},
    "findings": [{"severity": "warning", "message": name, "advice": name} for name in HOSTILE],
    "trained_on": SCRIPT,
    "versions": {SCRIPT: SCRIPT},
}
ONE = {"label": "bees", "confidence": 0.9, "probabilities": {"ants": 0.1, "bees": 0.9}, "size": [64, 48]}
# What serve_cases.Shades says of an image of RGB 200, 10, 10 with 24 x 16 pixels, as the page words it.
REAL = {
    "classification": "dark 90.1 % sure",
    "multilabel": "78.4 %",
    "regression": "200",
    "detection": "1 dark",
    "segmentation": "dark covers 99.7 %",
}
OBJECTS = [
    {"label": "bee", "confidence": 0.9, "box": [4, 4, 20, 20]},
    {"label": "ant", "confidence": 0.4, "box": [30, 20, 60, 40]},
    {"label": "bee", "confidence": 0.6, "box": [2, 30, 20, 46]},
]
CELLS = {**MODEL, "name": "cells", "task": "detection", "classes": ["ant", "bee"]}
FOUND = {"objects": OBJECTS, "size": [64, 48], "text": "1 ant, 2 bee", "picture": data_uri()}


def choose(page: Page, *files: dict[str, Any]) -> None:
    expect(page.locator("#main")).to_be_visible()
    page.locator("#files").set_input_files(list(files or [file()]))


def hand_over(page: Page, event: str, name: str) -> None:
    """What a browser does when a file, whose content is its name, is dropped on the page or pasted into it."""
    page.evaluate(
        """([event, name]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([name], name, { type: "image/png" }));
          const told = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
          const Kind = event === "paste" ? ClipboardEvent : DragEvent;
          document.body.dispatchEvent(new Kind(event, told));
        }""",
        [event, name],
    )


def is_narrow(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"))


def nameless(page: Page) -> list[str]:
    """What a screen reader reaches on the page but can only call by its role: controls and pictures without a name."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = []
    for node in nodes:
        role = node.get("role", {}).get("value", "")
        focusable = any(each["name"] == "focusable" for each in node.get("properties", []))
        if not node["ignored"] and role != "RootWebArea" and (focusable or role in ("image", "progressbar", "dialog")):
            found += [role] if not node.get("name", {}).get("value", "").strip() else []
    return found


FAINT = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return (parts(colour)[3] ?? 1) === 1 || !node.parentElement ? colour : ground(node.parentElement);
  };
  const contrast = (node) => {
    const [dark, bright] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const worded = [...document.querySelectorAll("body *:not(svg *)")].filter((node) => node.checkVisibility()
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  const told = worded.map((node) => [node.textContent.trim().slice(0, 40), contrast(node)]);
  return told.filter(([, ratio]) => ratio < 4.5);
}"""
"""Texts of the page that are fainter than 4.5 to 1 (WCAG 2.2, success criterion 1.4.3), with their contrast."""
