"""What the server answers, as OpenAPI 3.1 describes it. A test holds it to the routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from snellen.serve.models import MODEL_VERSION
from snellen.serve.outputs import DATATYPES
from snellen.serve.tensors import HEAD_LENGTH, IMAGE

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
    "503": "Too many images wait, it took too long, or the server is stopping; Retry-After says when to come back.",
}
_ALWAYS = ("403", "421")
_ANY_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}


def description(version: str, models: Sequence[str], page: Iterable[str]) -> Json:
    """The whole document.

    version  Snellen's
    models   the names of those that answer
    page     the names of the page's files
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Snellen",
            "version": version,
            "summary": "Vision models, asked plainly or by the Open Inference Protocol v2.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_friendly(models), **_inference(models), **_page(page)},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": _object({"error": {"type": "string"}}),
                "Answer": _answer(),
                "Card": _card(),
                **_protocol_schemas(),
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
    guarded = ("401",) if "security" not in more else ()
    codes = sorted({*_ALWAYS, *guarded, *refusals})
    refused = {code: {"description": _REFUSALS[code], "content": error} for code in codes}
    answered: Json = {"description": "As asked."}
    if good:
        answered["content"] = good
    return {"summary": summary, "responses": {"200": answered, **refused}, **more}


def _query(name: str, schema: Json, told: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": told}


def _in_path(name: str, known: Iterable[str]) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": list(known)}}


def _list(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


# ---- the plain way


def _friendly(models: Sequence[str]) -> Json:
    model = {
        **_query("model", {"type": "string", "enum": list(models)}, "Which model."),
        "required": len(models) > 1,
    }
    picture = _query("picture", {"enum": ["0", "1"]}, "1: the answer has a picture of itself.")
    explained = _query("class", _TEXT, "The class, or the number, whose part is shown; else the first of the answer.")
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    contents: Json = {kind: {"schema": file} for kind in _IMAGE_TYPES}
    contents["multipart/form-data"] = {"schema": _object({"file": file})}
    image = {"required": True, "content": contents, "description": "One image file, or a form with one file part."}
    refusals = ("400", "404", "408", "413", "415", "422", "429", "500", "503")
    asked = (
        (("predict", "What a model says of an image.", _reference("Answer")), [model, picture]),
        (("explain", "A picture of what the answer for an image rests on.", _explanation()), [model, explained]),
    )
    return {
        "/health": {"get": _operation("The server lives.", _json(_object({"status": {"const": "ok"}})), security=[])},
        "/metrics": {"get": _operation("Numbers for Prometheus.", {"text/plain": {"schema": _TEXT}})},
        "/models": {
            "get": _operation(
                "What there is to know of each model.", _json(_object({"models": _list(_reference("Card"))}))
            )
        },
        **{
            f"/{name}": {
                "post": _operation(summary, _json(schema), *refusals, parameters=parameters, requestBody=image)
            }
            for (name, summary, schema), parameters in asked
        },
        "/openapi.json": {"get": _operation("This document.", _json(_ANY_OBJECT))},
    }


def _explanation() -> Json:
    picture = {**_TEXT, "description": "A data URI (WebP) of the map over the image."}
    return _object(
        {"picture": picture, "about": {**_TEXT, "description": "What it shows, and whether that says anything."}}
    )


def _card() -> Json:
    properties = {
        "name": _TEXT,
        "task": _TEXT,
        "explains": {"type": "boolean"},
        "classes": _list(_TEXT),
        "colours": _list(_TEXT, description="#rrggbb of each class, as pictures of answers have them."),
    }
    return {
        **_object(properties, optional=("classes", "colours")),
        "description": "With metrics, findings, versions, preprocessing.",
    }


def _answer() -> Json:
    size = _list({"type": "integer", "minimum": 1}, minItems=2, maxItems=2)
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
    return {**told, "description": about}


# ---- the protocol


def _inference(models: Sequence[str]) -> Json:
    found: Json = {
        "/v2": {"get": _operation("The server and its extensions.", _json(_reference("ServerMetadata")))},
        "/v2/health/live": {
            "get": _operation("The server lives.", _json(_object({"live": {"const": True}})), security=[])
        },
        "/v2/health/ready": {
            "get": _operation("All models answer.", _json(_object({"ready": {"const": True}})), security=[])
        },
        "/v2/repository/index": {"post": _operation("The models.", _json(_list(_reference("IndexEntry"))))},
        "/v2/models/stats": {"get": _operation("Statistics of all models.", _json(_reference("Statistics")))},
    }
    one = [_in_path("model", models)]
    for path, parameters in (
        ("/v2/models/{model}", one),
        ("/v2/models/{model}/versions/{version}", [*one, _in_path("version", [MODEL_VERSION])]),
    ):
        found |= _of_model(path, parameters)
    return found


def _of_model(path: str, parameters: list[Json]) -> Json:
    length = {
        "name": HEAD_LENGTH,
        "in": "header",
        "schema": _COUNT,
        "description": "Bytes of JSON, where binary tensors follow it.",
    }
    binary = {"application/octet-stream": {"schema": _TEXT}}
    ready = _object({"name": _TEXT, "ready": {"const": True}})
    told = {
        "": ("Its inputs and outputs.", _reference("ModelMetadata")),
        "/config": ("The same as Triton words it.", _reference("ModelConfig")),
        "/ready": ("It answers.", ready),
        "/stats": ("Its statistics.", _reference("Statistics")),
    }
    return {
        **{
            path + end: {"get": _operation(summary, _json(schema), "404", parameters=parameters)}
            for end, (summary, schema) in told.items()
        },
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


def _protocol_schemas() -> Json:
    whole = {"type": "integer", "minimum": -1}
    declared = {"name": _TEXT, "datatype": {"enum": list(DATATYPES)}, "shape": _list(whole)}
    configured = {"name": _TEXT, "data_type": {"enum": list(DATATYPES.values())}, "dims": _list(whole)}
    named = {"name": _TEXT, "platform": _TEXT}
    version = {"const": MODEL_VERSION}
    spent = _object({"count": _COUNT, "ns": _COUNT})
    model_stats = _object(
        {
            "name": _TEXT,
            "version": version,
            "inference_count": _COUNT,
            "execution_count": _COUNT,
            "last_inference": _COUNT,
            "inference_stats": {"type": "object", "additionalProperties": spent},
            "batch_stats": _list(_object({"batch_size": _COUNT, "compute_infer": spent})),
        }
    )
    tensors = {"inputs": _list(_object(declared)), "outputs": _list(_object(declared))}
    config = {
        "backend": _TEXT,
        "max_batch_size": _COUNT,
        "input": _list(_object(configured)),
        "output": _list(_object(configured)),
    }
    return {
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "IndexEntry": _object({"name": _TEXT, "version": version, "state": {"const": "READY"}, "reason": _TEXT}),
        "ModelMetadata": _object({**named, "versions": _list(version), **tensors}),
        "ModelConfig": _object({**named, **config}),
        "Statistics": _object({"model_stats": _list(model_stats)}),
        "InferRequest": _infer_request(),
        "InferResponse": _infer_response(),
    }


def _infer_request() -> Json:
    image = _object(
        {
            "name": {"const": IMAGE},
            "datatype": {"enum": ["UINT8", "BYTES"]},
            "shape": _list(_COUNT, description="[N, H, W, 3] of UINT8, [N] of BYTES."),
            "data": {"type": "array", "description": "Flat or nested; image files as base64."},
            "parameters": _object({"binary_data_size": _COUNT}, optional=("binary_data_size",)),
        },
        optional=("data", "parameters"),
    )
    output = _object(
        {"name": _TEXT, "parameters": _object({"binary_data": {"type": "boolean"}}, optional=("binary_data",))},
        optional=("parameters",),
    )
    return _object(
        {
            "id": _TEXT,
            "parameters": _object({"binary_data_output": {"type": "boolean"}}, optional=("binary_data_output",)),
            "inputs": _list(image, minItems=1, maxItems=1),
            "outputs": _list(output),
        },
        optional=("id", "parameters", "outputs"),
    )


def _infer_response() -> Json:
    tensor = _object(
        {
            "name": _TEXT,
            "datatype": {"enum": list(DATATYPES)},
            "shape": _list(_COUNT),
            "data": {"type": "array", "description": "Flat."},
            "parameters": _object({"binary_data_size": _COUNT}),
        },
        optional=("data", "parameters"),
    )
    told = {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": _list(tensor)}
    return _object(told, optional=("id",))


# ---- the page


def _page(files: Iterable[str]) -> Json:
    html = {"text/html": {"schema": {"type": "string"}}}
    token = _query("token", _TEXT, "The right one becomes a cookie; the address becomes one without it.")
    page = _operation("A page to ask from.", html, parameters=[token], security=[])
    page["responses"]["303"] = {"description": "To the address without the token, and with a cookie if it is right."}
    file = {"*/*": {"schema": _TEXT}}
    return {
        "/": {"get": page},
        "/page/{name}": {
            "get": _operation("Its files.", file, "404", parameters=[_in_path("name", files)], security=[]),
        },
    }
