"""/openapi.json: what it says is what there is. Each operation is asked in each way that it says it answers."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from serve_cases import HOST, Shades, asking, plain, served
from snellen.api.serving import explanation_of
from snellen.serve.address import Access
from snellen.serve.models import Served
from snellen.serve.outputs import _BY_TASK

TASKS = ("classification", "multilabel", "regression", "detection", "segmentation")
BROKEN = 13  # the red at which the model fails
MOST = 20_000  # bytes of a body
TOKEN = "a-token-of-its-own"
BEARER = {"authorization": f"Bearer {TOKEN}"}
OF_MANY = {"408", "429", "503"}  # statuses that a single request does not get, tested elsewhere


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    def explain(answering: Any, pixels: Any, of: str | None) -> tuple[Image.Image, str]:
        if pixels[0, 0, 0] == BROKEN:
            raise RuntimeError
        return explanation_of(answering, pixels, of)

    models = {task: Served(Shades(task, broken=(BROKEN,)), {"task": task}, explain) for task in TASKS}
    with asking(models, Access(TOKEN, frozenset({HOST})), max_body=MOST) as found:
        yield found


@pytest.fixture(scope="module")
def document(client: TestClient) -> Any:
    return client.get("/openapi.json", headers=BEARER).json()


def check(value: Any, schema: dict[str, Any], document: Any) -> None:
    """The part of JSON Schema that the description uses; fails on any other, which would be looked over."""
    if "$ref" in schema:
        assert set(schema) == {"$ref"}
        return check(value, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    for keyword, said in schema.items():
        if keyword == "type":
            kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
            assert isinstance(value, kinds[said]) and isinstance(value, bool) == (said == "boolean"), (value, schema)
        elif keyword == "properties":
            for name in said.keys() & value.keys():
                check(value[name], said[name], document)
        elif keyword in ("items", "additionalProperties"):
            for each in value if keyword == "items" else value.values():
                check(each, said, document)
        else:
            holds = {
                "required": lambda said: set(said) <= set(value),
                "enum": lambda said: value in said,
                "const": lambda said: value == said,
                "minimum": lambda said: value >= said,
                "minItems": lambda said: len(value) >= said,
                "maxItems": lambda said: len(value) <= said,
                "description": lambda said: True,
            }[keyword]
            assert holds(said), (keyword, value, schema)
    return None


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("1", {"type": "integer"}),
        (True, {"type": "integer"}),
        ({}, {"required": ["a"]}),
        ({"a": -1}, {"properties": {"a": {"minimum": 0}}}),
        ([1, "2"], {"items": {"type": "integer"}}),
        ({"a": 1}, {"additionalProperties": {"$ref": "#/components/schemas/Text"}}),
        ("c", {"enum": ["a", "b"]}),
    ],
)
def test_check_notices_what_does_not_conform(value: Any, schema: Any) -> None:
    with pytest.raises(AssertionError):
        check(value, schema, {"components": {"schemas": {"Text": {"type": "string"}}}})


def test_description_is_of_exactly_the_routes_that_there_are(client: TestClient, document: Any) -> None:
    app: Any = client.app
    routes = [route for route in app._app._app.routes if route.include_in_schema]
    there = {(route.path, verb) for route in routes for verb in route.methods - {"HEAD"}}
    told = {(path, verb.upper()) for path, verbs in document["paths"].items() for verb in verbs}
    assert document["openapi"].startswith("3.1") and document["info"]["version"] == "1.2.3"
    assert told == there
    for path, verbs in document["paths"].items():
        for operation in verbs.values():
            named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == set(document["components"]["schemas"])


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            yield path, verb, operation


def addresses(path: str, operation: Any) -> Iterator[str]:
    """With each value of each parameter that has a list of them."""
    parameters = [each for each in operation.get("parameters", []) if each["in"] != "header"]
    first = {each["name"]: each["schema"].get("enum", ["red"])[0] for each in parameters}
    for parameter in parameters:
        for value in parameter["schema"].get("enum", [])[1:]:
            yield address(path, parameters, {**first, parameter["name"]: value})
    yield address(path, parameters, first)


def address(path: str, parameters: Any, values: dict[str, str]) -> str:
    query = "&".join(
        f"{each['name']}={values[each['name']]}"
        for each in parameters
        if each["in"] == "query" and each["name"] != "token"  # a wrong one, asked below
    )
    return path.format_map(values) + ("?" + query if query else "")


def body(path: str, file: bytes, **more: Any) -> bytes:
    if not path.endswith("/infer"):
        return file
    data = [base64.b64encode(file).decode()]
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    return json.dumps({"inputs": [image], **more}).encode()


def variants(path: str, verb: str) -> Iterator[tuple[dict[str, str], bytes]]:
    """Headers and a body of requests that are each wrong in another way."""
    yield {}, b"" if verb == "get" else body(path, plain(200))
    yield {**BEARER, "host": "evil.example"}, b""
    yield {**BEARER, "origin": "http://evil.example"}, b""
    if verb == "post":
        yield BEARER, b""
        yield BEARER, body(path, b"no image")
        yield BEARER, body(path, plain(BROKEN))
        yield BEARER, b"x" * (MOST + 1)
        yield {**BEARER, "content-encoding": "gzip"}, body(path, plain(200))


def test_every_status_and_answer_is_as_described(client: TestClient, document: Any) -> None:
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path, verb, operation in operations(document):
        sound = body(path, plain(200)) if verb == "post" else b""
        asked = [(each, BEARER, sound) for each in addresses(path, operation)]
        asked += [(asked[-1][0], headers, sent) for headers, sent in variants(path, verb)]
        wrong = re.sub(r"(?<=\{)\w+(?=\})", "wrong", path).format(wrong="nothing") + "?model=nothing"
        asked += [(wrong, BEARER, sound)]
        asked += [(f"/?token={token}", {}, b"") for token in (TOKEN, "wrong") if path == "/"]
        for at, headers, sent in asked:
            response = client.request(verb, at, headers=headers, content=sent or None, follow_redirects=False)
            client.cookies.clear()
            status, kind = str(response.status_code), response.headers.get("content-type", "").partition(";")[0]
            assert status in operation["responses"], (verb, at, status, response.text)
            contents = operation["responses"][status].get("content", {"": {}})
            if kind == "application/json":
                check(response.json(), contents[kind]["schema"], document)
            else:
                assert {kind, "*/*"} & set(contents), (verb, at, kind)
            seen[path, verb].add(status)
    for path, verb, operation in operations(document):
        assert seen[path, verb] == set(operation["responses"]) - OF_MANY, (verb, path)


def test_binary_answers_are_described(client: TestClient, document: Any) -> None:
    path = "/v2/models/{model}/infer"
    sent = body(path, plain(200), parameters={"binary_data_output": True})
    response = client.post("/v2/models/detection/infer", content=sent, headers=BEARER)
    head = int(response.headers["Inference-Header-Content-Length"])
    contents = document["paths"][path]["post"]["responses"]["200"]["content"]
    assert response.headers["content-type"] in contents
    check(json.loads(response.content[:head]), contents["application/json"]["schema"], document)


def test_model_is_needed_where_there_are_several() -> None:
    for num in (1, 2):
        with asking(served(**{f"m{i}": Shades() for i in range(num)})) as client:
            [model, _] = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["parameters"]
        assert model["required"] == (num > 1)
        assert model["schema"]["enum"] == [f"m{i}" for i in range(num)]


def test_every_task_has_outputs_that_are_described(client: TestClient, document: Any) -> None:
    assert set(TASKS) | {"instances"} == set(_BY_TASK)
    for task in TASKS:
        metadata = client.get(f"/v2/models/{task}", headers=BEARER).json()
        config = client.get(f"/v2/models/{task}/config", headers=BEARER).json()
        assert [each["name"] for each in config["output"]] == [each["name"] for each in metadata["outputs"]]
        assert [each["dims"] for each in config["output"]] == [each["shape"] for each in metadata["outputs"]]
