"""What the server answers, as OpenAPI 3.1 describes it. A test holds it to the routes."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff", "application/octet-stream")
_REFUSALS = {
    "400": "The request is not in order.",
    "401": "The server asks for a token.",
    "403": "A page of another site asked.",
    "404": "There is no such model, or no such address.",
    "408": "The request took too long to arrive.",
    "413": "The request, or the number of its images, is too large.",
    "415": "The request is compressed.",
    "421": "The Host header is not a name of this machine.",
    "422": "The image cannot be decoded, has too many pixels, or takes too long.",
    "429": "Too many requests of this address at once; Retry-After says when to come back.",
    "500": "The model failed on this image.",
    "503": "Too many images are waiting, or the server is stopping; Retry-After says when to come back.",
}
_ALWAYS = ("401", "403", "421")
_ANY_OBJECT: Json = {"type": "object", "additionalProperties": True}


def description(version: str) -> Json:
    """The whole document. ``version`` is Snellen's."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Snellen",
            "version": version,
            "summary": "Vision models, asked plainly or by the Open Inference Protocol v2.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_friendly(), **_inference(), **_page()},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": _object({"error": {"type": "string"}}),
                "Answer": _answer(),
                "InferRequest": _infer_request(),
                "InferResponse": _infer_response(),
            },
        },
        "security": [{"token": []}, {}],
    }


# ---- pieces


def _object(properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _operation(summary: str, good: Json, *refusals: str, **more: Any) -> Json:
    """``good`` is the content of a 200; ``refusals`` are the statuses of this operation beside those of all."""
    error = _json(_reference("Error"))
    refused = {code: {"description": _REFUSALS[code], "content": error} for code in sorted({*_ALWAYS, *refusals})}
    answered: Json = {"description": "As asked."}
    if good:
        answered["content"] = good
    return {"summary": summary, "responses": {"200": answered, **refused}, **more}


def _query(name: str, schema: Json, told: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": told}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


# ---- the plain way


def _friendly() -> Json:
    model = _query("model", {"type": "string"}, "Which model; needed where there are several.")
    picture = _query("picture", {"enum": ["0", "1"]}, "1: the answer has a picture of itself.")
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    contents: Json = {kind: {"schema": file} for kind in _IMAGE_TYPES}
    contents["multipart/form-data"] = {"schema": _object({"file": file})}
    image = {"required": True, "content": contents, "description": "One image file, or a form with one file part."}
    refusals = ("400", "404", "408", "413", "422", "429", "500", "503")
    explained = _object({"picture": {"type": "string"}, "about": {"type": "string"}})
    listed = _object({"models": {"type": "array", "items": _ANY_OBJECT}})
    return {
        "/health": {"get": _operation("The server lives.", _json(_object({"status": {"const": "ok"}})), security=[])},
        "/metrics": {"get": _operation("Numbers for Prometheus.", {"text/plain": {"schema": {"type": "string"}}})},
        "/models": {"get": _operation("What there is to know of each model.", _json(listed))},
        "/predict": {
            "post": _operation(
                "What a model says of an image.",
                _json(_reference("Answer")),
                *refusals,
                parameters=[model, picture],
                requestBody=image,
            )
        },
        "/explain": {
            "post": _operation(
                "A picture of what the answer for an image rests on.",
                _json(explained),
                *refusals,
                parameters=[model],
                requestBody=image,
            )
        },
        "/openapi.json": {"get": _operation("This document.", _json(_ANY_OBJECT))},
    }


def _answer() -> Json:
    size = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    told = _object(
        {
            "model": {"type": "string"},
            "task": {"type": "string"},
            "size": {**size, "description": "Width and height of the image, upright; what boxes are pixels of."},
            "picture": {"type": "string", "description": "A data URI (WebP) of the image with the answer on it."},
        },
        optional=("picture",),
    )
    about = (
        "label, confidence and probabilities; labels and probabilities; values; objects; or shares: as the task has it"
    )
    return {**told, "additionalProperties": True, "description": about}


# ---- the protocol


def _inference() -> Json:
    found: Json = {
        "/v2": {"get": _operation("The server and its extensions.", _json(_ANY_OBJECT))},
        "/v2/health/live": {"get": _operation("The server lives.", {}, security=[])},
        "/v2/health/ready": {"get": _operation("All models answer.", {}, security=[])},
        "/v2/repository/index": {
            "post": _operation("The models.", _json({"type": "array", "items": _ANY_OBJECT})),
        },
        "/v2/models/stats": {"get": _operation("Statistics of all models.", _json(_ANY_OBJECT))},
    }
    one = [_in_path("model")]
    for path, parameters in (
        ("/v2/models/{model}", one),
        ("/v2/models/{model}/versions/{version}", [*one, _in_path("version")]),
    ):
        found |= _of_model(path, parameters)
    return found


def _of_model(path: str, parameters: list[Json]) -> Json:
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "schema": {"type": "integer"},
        "description": "Bytes of JSON, where binary tensors follow it.",
    }
    binary = {"application/octet-stream": {"schema": {"type": "string"}}}
    return {
        path: {"get": _operation("Its inputs and outputs.", _json(_ANY_OBJECT), "404", parameters=parameters)},
        f"{path}/ready": {"get": _operation("It answers.", {}, "404", parameters=parameters)},
        f"{path}/stats": {"get": _operation("Its statistics.", _json(_ANY_OBJECT), "404", parameters=parameters)},
        f"{path}/infer": {
            "post": _operation(
                "Answers for tensors: pixels, or image files.",
                {**_json(_reference("InferResponse")), **binary},
                *("400", "404", "408", "413", "415", "422", "429", "500", "503"),
                parameters=[*parameters, length],
                requestBody={"required": True, "content": {**_json(_reference("InferRequest")), **binary}},
            )
        },
    }


def _tensor() -> Json:
    return _object(
        {
            "name": {"type": "string"},
            "datatype": {"enum": ["UINT8", "BYTES", "FP32", "INT64"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {"type": "array", "description": "Flat or nested; image files as base64."},
            "parameters": _object({"binary_data_size": {"type": "integer"}}, optional=("binary_data_size",)),
        },
        optional=("data", "parameters"),
    )


def _infer_request() -> Json:
    output = _object({"name": {"type": "string"}, "parameters": _ANY_OBJECT}, optional=("parameters",))
    return _object(
        {
            "id": {"type": "string"},
            "parameters": _ANY_OBJECT,
            "inputs": {"type": "array", "items": _tensor(), "minItems": 1, "maxItems": 1},
            "outputs": {"type": "array", "items": output},
        },
        optional=("id", "parameters", "outputs"),
    )


def _infer_response() -> Json:
    return _object(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _tensor()},
        },
        optional=("id",),
    )


# ---- the page


def _page() -> Json:
    html = {"text/html": {"schema": {"type": "string"}}}
    token = _query("token", {"type": "string"}, "Becomes a cookie, and the address one without it.")
    file = {"*/*": {"schema": {"type": "string"}}}
    return {
        "/": {"get": _operation("A page to ask from.", html, parameters=[token], security=[])},
        "/page/{name}": {
            "get": _operation("Its files.", file, "404", parameters=[_in_path("name")], security=[]),
        },
    }
