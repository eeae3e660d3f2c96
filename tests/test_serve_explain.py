"""/explain: what an answer rests on, of one class, one explanation at a time, and not for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve_cases import Shades, asking, listening, plain, post, served
from snellen.api.serving import explanation_of
from snellen.core.errors import DataError
from snellen.serve.models import Explain, Served

MAP = Image.new("RGB", (24, 16))


def explained(explain: Explain, **models: Any) -> dict[str, Served]:
    return {"shades": Served(Shades(**models), {}, explain)}


class Held:
    """An explanation that goes on until it is let go, or nobody waits for it; ``begun`` is set by each."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, answering: Any, pixels: np.ndarray, of: str | None) -> tuple[Image.Image, str]:
        self.begun.set()
        try:
            while not self.go.wait(0.005):
                answering.decide([answering.prepare(pixels, (24, 16))])
            return MAP, "let go"
        finally:
            self.ended.set()


def test_explanation_asks_the_model_through_its_queue() -> None:
    def explain(answering: Any, pixels: np.ndarray, of: str | None) -> tuple[Image.Image, str]:
        if pixels[0, 0, 0] == 0:
            raise DataError("the model finds nothing here")
        targets = answering.decide([answering.prepare(pixels, (24, 16))] * 20)
        return Image.fromarray(pixels), f"{len(targets)} times {answering.task.classes[targets[0].index]}, {of}"

    models = explained(explain)
    with asking(models) as client:
        told = client.post("/explain", content=plain(200)).json()
        of = client.post("/explain?class=red", content=plain(200)).json()
        nothing = client.post("/explain", content=plain(0))
    assert told["about"] == "20 times dark, None" and of["about"] == "20 times dark, red"
    assert told["picture"].startswith("data:image/webp;base64,")
    assert models["shades"].answering.asked.count(200) == 40  # type: ignore[attr-defined]
    assert (nothing.status_code, nothing.json()["error"]) == (422, "the model finds nothing here")


def test_what_cannot_be_explained_is_said_before_the_image_is_looked_at() -> None:
    with asking(served(shades=Shades())) as client:
        response = client.post("/explain", content=b"no image")
        assert response.status_code == 404 and "cannot be shown" in response.json()["error"]
    with asking(explained(explanation_of)) as client:
        response = client.post("/explain?class=blue", content=b"no image")
        assert response.status_code == 400 and "no class 'blue'" in response.json()["error"]


@pytest.mark.parametrize(("task", "first"), [("classification", "dark"), ("multilabel", "dark"), ("detection", "dark")])
def test_only_one_map_is_made_of_an_answer_with_several_classes(
    task: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snellen.explain import occlusion

    checked: list[str] = []
    check: Callable[..., Any] = occlusion.deletion_of
    monkeypatch.setattr(occlusion, "deletion_of", lambda *given: (checked.append(given[2].name), check(*given))[1])
    photograph = np.full((16, 24, 3), (200, 150, 140), np.uint8)
    for of in (None, "red"):
        explanation_of(Shades(task), photograph, of)  # type: ignore[arg-type]
    assert checked == [first, "red"]


def test_second_explanation_is_refused_before_its_image_arrives() -> None:
    held = Held()
    announced = b"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\nConnection: close\r\n\r\n"
    with listening(explained(held)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.send, post("/explain", plain(1)))
        assert held.begun.wait(20)
        refused = server.send(announced)
        assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in refused
        assert server.send(post("/predict", plain(1))).startswith(b"HTTP/1.1 200")
        held.go.set()
        assert b"let go" in first.result()
        assert b"let go" in server.send(post("/explain", plain(1)))


def test_explanation_that_takes_too_long_is_given_up_and_makes_room_for_the_next() -> None:
    held = Held()
    with asking(explained(held), explain_seconds=0.1) as client:
        response = client.post("/explain", content=plain(1))
        assert (response.status_code, "more than 0.1 s" in response.json()["error"]) == (503, True)
        assert "retry-after" not in response.headers  # it would take as long again
        assert held.ended.wait(20)
        held.go.set()
        while (response := client.post("/explain", content=plain(1))).status_code == 503:
            pass
        assert response.json()["about"] == "let go"


def test_image_that_cannot_be_decoded_leaves_room_for_the_next() -> None:
    held = Held()
    held.go.set()
    with asking(explained(held)) as client:
        assert client.post("/explain", content=b"no image").status_code == 422
        while (response := client.post("/explain", content=plain(1))).status_code == 503:
            pass
        assert response.status_code == 200
