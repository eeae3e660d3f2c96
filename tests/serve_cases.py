"""Models that need no training, and servers that answer with them: in this process, or on a socket of this machine."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from evil_images import encoded, scene
from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.serve.address import Access, Address
from snellen.serve.app import build_app
from snellen.serve.limits import Limits
from snellen.serve.models import Served
from snellen.serve.server import Server, make_server
from snellen.serve.service import Service
from snellen.tasks.base import Task, create_task
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.detection.target import Boxes
from snellen.tasks.regression.target import Values
from snellen.tasks.segmentation.target import ClassMap

CLASSES = ("dark", "red", "<b>green</b>")
LIMITS: dict[str, Any] = {"max_delay": 0.0, "body_seconds": 5.0, "head_seconds": 5.0, "decode_seconds": 5.0}
HOST = "testserver"


@dataclass
class Shades:
    """Answers by the mean colour of an image, exactly; ``batches`` are how many images it was asked together.

    broken   colours, as rounded means of red, at which it raises
    gate     waited for before each batch; ``reached`` is set when it is
    """

    task_name: str = "classification"
    broken: tuple[int, ...] = ()
    gate: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    batch: int = 8
    min_side: int | None = None

    @property
    def task(self) -> Task[Any]:
        return create_task(self.task_name, CLASSES)

    @property
    def preprocessing(self) -> Preprocessing:
        half = (0.5, 0.5, 0.5)
        return Preprocessing(input_size=(8, 8), fit="squash", crop_fraction=1.0, mean=half, std=half)

    def prepare(self, pixels: np.ndarray, size: Size) -> tuple[np.ndarray, Size]:
        return pixels.reshape(-1, 3).mean(axis=0), size

    def decide(self, seen: Sequence[tuple[np.ndarray, Size]]) -> list[Any]:
        self.reached.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        reds = [round(colour[0]) for colour, _ in seen]
        self.batches.append(len(seen))
        self.asked += reds
        if set(reds) & set(self.broken):
            raise RuntimeError("/home/secret/model.py broke on this colour")
        return [_TARGETS[self.task_name](colour.astype(np.float32), size) for colour, size in seen]


def _label(colour: np.ndarray, size: Size) -> Label:
    scores = (colour + 1) / (colour + 1).sum()
    return Label(int(scores.argmax()), scores.astype(np.float32))


def _boxes(colour: np.ndarray, size: Size) -> Boxes:
    """One box for each channel that is at all bright, and one that is too unsure to be shown."""
    labels = np.append(np.flatnonzero(colour > 64), 0)
    scores = np.append(np.linspace(0.9, 0.8, len(labels) - 1), 0.01).astype(np.float32)
    corners = np.array([[0, 0, size[0] - 1.5, size[1] / 2]] * len(labels), np.float32)
    return Boxes.predicted(size, corners, labels.astype(np.int64), scores)


def _map(colour: np.ndarray, size: Size) -> ClassMap:
    classes = np.full((size[1], size[0]), int(colour.argmax()), np.uint8)
    classes[0, 0] = 1
    return ClassMap.from_array(classes, np.array([0.9, 0.8, 0.7], np.float32))


_TARGETS: Mapping[str, Any] = {
    "classification": _label,
    "multilabel": lambda colour, size: LabelSet(colour > 128, (colour / 255).astype(np.float32)),
    "regression": lambda colour, size: Values(colour),
    "detection": _boxes,
    "segmentation": _map,
}


def plain(red: int, *, width: int = 24, height: int = 16, format: str = "PNG") -> bytes:
    """An image file of one colour."""
    from PIL import Image

    return encoded(Image.new("RGB", (width, height), (red, 10, 10)), format)


def photograph(format: str = "JPEG", width: int = 40, height: int = 24) -> bytes:
    return encoded(scene(width, height), format)


def served(**models: Any) -> dict[str, Served]:
    cards = {name: {"task": model.task_name, "classes": list(CLASSES)} for name, model in models.items()}
    return {name: Served(model, cards[name]) for name, model in models.items()}


@contextlib.contextmanager
def asking(
    models: Mapping[str, Served] | None = None, access: Access | None = None, **limits: Any
) -> Iterator[TestClient]:
    """A client of a server in this process."""
    service = Service(models or served(shades=Shades()), Limits(**{**LIMITS, **limits}))
    try:
        with TestClient(build_app(service, access or Access(), version="1.2.3"), base_url=f"http://{HOST}") as client:
            yield client
    finally:
        service.close()


@dataclass(frozen=True)
class Listening:
    """A server on a socket of this machine."""

    port: int
    server: Server
    thread: threading.Thread

    def connected(self, address: str = "127.0.0.1") -> socket.socket:
        """``address`` is that of the client."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10, source_address=(address, 0))

    def send(self, raw: bytes) -> bytes:
        """Everything that the server says to ``raw`` before it closes."""
        with self.connected() as connection:
            connection.sendall(raw)
            return received(connection)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive()


def received(connection: socket.socket) -> bytes:
    """Until the other side closes."""
    found = io.BytesIO()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found.write(piece)
    return found.getvalue()


@contextlib.contextmanager
def listening(models: Mapping[str, Served] | None = None, **limits: Any) -> Iterator[Listening]:
    """A server in a thread, on a port of its own, as ``snellen serve`` starts it."""
    allowed, address = Limits(**{**LIMITS, **limits}), Address(port=0)
    service = Service(models or served(shades=Shades()), allowed)
    with socket.create_server((address.host, 0)) as bound:
        server, started = make_server(build_app(service, address.access, version="1"), allowed), threading.Event()
        server.on_start = started.set
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        assert started.wait(10)
        running = Listening(bound.getsockname()[1], server, thread)
        try:
            yield running
        finally:
            running.stop()
            service.close()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as it goes over the wire; the connection is closed after the answer."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
