"""The plain way to ask: /predict, /explain, /models, /health, /metrics, the page, and what is said of all of them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from evil_images import encoded, exif, samples, scene
from serve_cases import CLASSES, Shades, asking, photograph, plain, served
from snellen.draw.palette import colour_of
from snellen.predict.predictor import Predictor
from snellen.serve.models import Served
from snellen.serve.page_files import read_page

TASKS = ("classification", "multilabel", "regression", "detection", "segmentation")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """One model a task, by the name of the task."""
    with asking(served(**{task: Shades(task) for task in TASKS})) as found:
        yield found


def ask(client: TestClient, file: bytes, address: str = "/predict?model=classification", **headers: str) -> Any:
    response = client.post(address, content=file, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("task", TASKS)
def test_answer_is_that_of_the_predictor(client: TestClient, task: str, tmp_path: Path) -> None:
    files = [photograph(), plain(200), plain(3, width=33)]
    paths = [tmp_path / f"{i}" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    for file, prediction in zip(files, Predictor(Shades(task)).predict(paths), strict=True):
        told = ask(client, file, f"/predict?model={task}")
        assert prediction.result is not None
        assert {name: told[name] for name in prediction.result} == prediction.result
        assert (told["model"], told["task"]) == (task, task)


@pytest.mark.parametrize("format", sorted(samples()))
def test_every_format_is_answered(client: TestClient, format: str) -> None:
    assert ask(client, samples()[format])["size"] == [40, 24]


def test_size_and_picture_are_of_the_upright_image(client: TestClient) -> None:
    file = encoded(scene(40, 24), "JPEG", exif=exif(6))
    told = ask(client, file, "/predict?model=detection&picture=1")
    assert told["size"] == [24, 40]
    width, height = picture_of(told).size
    assert width / height == 24 / 40  # tiny images are drawn larger


def picture_of(told: Any) -> Image.Image:
    kind, _, text = told["picture"].partition(";base64,")
    assert kind == "data:image/webp"
    return Image.open(BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize("task", TASKS)
def test_picture_is_no_larger_than_a_screen(client: TestClient, task: str) -> None:
    told = ask(client, plain(200, width=3000, height=30, format="JPEG"), f"/predict?model={task}&picture=1")
    assert max(picture_of(told).size) <= 1280
    assert told["size"] == [3000, 30]


def test_answer_has_a_picture_only_when_asked(client: TestClient) -> None:
    assert "picture" not in ask(client, plain(1))
    assert client.post("/predict?model=classification&picture=yes", content=plain(1)).status_code == 400


def test_form_with_one_file_is_as_the_file(client: TestClient) -> None:
    address = "/predict?model=classification"
    told = client.post(address, files={"anything": ("../../etc/passwd", photograph(), "text/plain")}).json()
    assert told == ask(client, photograph())
    two = client.post(address, files={"a": ("a", photograph()), "b": ("b", photograph())})
    assert two.status_code == 400 and "2 file parts" in two.json()["error"]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=zz",
        "multipart/form-data;",
    ],
)
def test_damaged_form_is_refused(client: TestClient, kind: str) -> None:
    response = client.post("/predict?model=classification", content=photograph(), headers={"content-type": kind})
    assert response.status_code == 400
    assert "form" in response.json()["error"]


def test_file_that_curl_took_the_line_ends_out_of_is_told_how_to_be_sent(client: TestClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    whole = photograph()
    shortened = whole.translate(None, b"\0\r\n")  # what -d makes of it
    answer, refused, text = (
        client.post("/predict?model=classification", content=sent, headers=headers)
        for sent in (whole, shortened, b"hello")
    )
    assert answer.status_code == 200
    assert refused.status_code == 400 and "--data-binary" in refused.json()["error"]
    assert text.status_code == 422


def test_content_decides_what_a_file_is_not_its_type(client: TestClient) -> None:
    for kind in ("text/html", "application/x-www-form-urlencoded", "image/gif", "nonsense"):
        assert ask(client, plain(200), **{"content-type": kind})["label"] == "dark"


@pytest.mark.parametrize("file", [b"no image", photograph()[:200], b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_is_refused_in_one_line(client: TestClient, file: bytes) -> None:
    response = client.post("/predict?model=classification", content=file)
    assert response.status_code == 422
    assert re.fullmatch(r"the uploaded image [^\n]+", response.json()["error"])
    assert client.post("/predict?model=classification", content=b"").status_code == 400


def test_model_is_named_where_there_are_several(client: TestClient) -> None:
    unnamed, unknown = client.post("/predict", content=plain(1)), client.post("/predict?model=<i>", content=plain(1))
    assert unnamed.status_code == 400 and "classification" in unnamed.json()["error"]
    assert unknown.status_code == 404 and "classification" in unknown.json()["error"]


def test_cards_are_listed_with_what_can_be_explained() -> None:
    def explain(answering: Any, pixels: np.ndarray, of: str | None) -> tuple[Image.Image, str]:
        raise AssertionError("nobody asked")

    with asking(served(one=Shades()) | {"two": Served(Shades(), {"task": "classification"}, explain)}) as client:
        told = client.get("/models").json()["models"]
    assert told == [
        {"task": "classification", "classes": list(CLASSES), "name": "one", "explains": False},
        {"task": "classification", "name": "two", "explains": True},
    ]


@pytest.mark.parametrize("task", ["detection", "segmentation", "regression"])
def test_card_has_the_colours_of_the_pictures_where_an_answer_has_places(task: str) -> None:
    with asking(served(shades=Shades(task))) as client:
        (card,) = client.get("/models").json()["models"]
    told = [tuple(bytes.fromhex(colour[1:])) for colour in card.get("colours", [])]
    assert told == ([] if task == "regression" else [colour_of(i) for i in range(len(CLASSES))])


def test_metrics_count_requests_by_route_not_by_path(client: TestClient) -> None:
    ask(client, plain(1))
    client.post("/predict?model=classification", content=b"no image")
    for i in range(5):
        client.get(f"/nowhere-{i}")
    text = client.get("/metrics").text
    assert re.search(r'snellen_requests_total\{code="200",method="POST",route="/predict"\} \d', text)
    assert 'snellen_requests_total{code="404",method="GET",route="other"}' in text
    assert "nowhere" not in text
    assert re.search(r'snellen_decode_errors_total\{reason="refused"\} [1-9]', text)
    assert 'snellen_queue_images{model="classification"} 0.0' in text
    assert "snellen_batch_images_bucket" in text and "snellen_request_seconds_bucket" in text
    assert 'snellen_request_seconds_bucket{le="60.0"' in text


def test_page_and_its_files_are_served_and_nothing_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert named and all(client.get(f"/{address}").status_code == 200 for address in named)
    for name in ("../app.py", "%2e%2e%2fapp.py", "..%2f..%2fpy.typed", "%00", "index.html/", "__init__.py"):
        assert client.get(f"/page/{name}").status_code == 404, name
    assert {"index.html"} <= set(read_page())


def test_every_answer_tells_a_browser_what_it_may_do(client: TestClient) -> None:
    for response in (client.get("/"), client.get("/nowhere"), client.post("/predict", content=b"")):
        headers = response.headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "camera=(self)" in headers["permissions-policy"]
        assert "access-control-allow-origin" not in headers


def test_unknown_addresses_and_methods_are_refused_as_json(client: TestClient) -> None:
    for verb, address, status in [
        ("GET", "/nowhere", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/models", 405),
        ("BREW", "/", 405),
        ("GET", "/models/", 404),
        ("GET", "//evil.example/", 404),
    ]:
        response = client.request(verb, f"http://testserver{address}", follow_redirects=False)
        assert response.status_code == status, address
        assert set(response.json()) == {"error"}
