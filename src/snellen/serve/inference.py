"""The Open Inference Protocol v2 over REST, with Triton's configuration, statistics and repository index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from snellen.serve.guard import client_of
from snellen.serve.models import MODEL_VERSION
from snellen.serve.outputs import DATATYPES, Output
from snellen.serve.refusal import Refusal, quoted
from snellen.serve.requests import Desk, unless_gone
from snellen.serve.service import Service, Working
from snellen.serve.tensors import HEAD_LENGTH, IMAGE, Asked, answer, parse

EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
_INPUT = {
    "name": IMAGE,
    "datatype": "UINT8",
    "shape": [-1, -1, -1, 3],
    "parameters": {"also": "BYTES [-1]: image files, as they are on disk; base64 where they stand in JSON"},
}


class Inference:
    """The routes below /v2."""

    def __init__(self, service: Service, desk: Desk, version: str) -> None:
        self._service, self._desk, self._version = service, desk, version

    def routes(self) -> list[Route]:
        found = [
            Route("/v2", self.server, methods=["GET"]),
            Route("/v2/", self.server, methods=["GET"], include_in_schema=False),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/models/stats", self.all_statistics, methods=["GET"]),
        ]
        for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                Route(path, self.model, methods=["GET"]),
                Route(f"{path}/config", self.config, methods=["GET"]),
                Route(f"{path}/ready", self.model_ready, methods=["GET"]),
                Route(f"{path}/stats", self.statistics, methods=["GET"]),
                Route(f"{path}/infer", self.infer, methods=["POST"]),
            ]
        return found

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "snellen", "version": self._version, "extensions": list(EXTENSIONS)})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})  # KServe's client reads it, Triton's only the status

    async def ready(self, request: Request) -> Response:
        """Models have answered an image each before the server listens."""
        return JSONResponse({"ready": True})

    async def index(self, request: Request) -> Response:
        return JSONResponse(
            [
                {"name": each.name, "version": MODEL_VERSION, "state": "READY", "reason": ""}
                for each in self._service.models
            ]
        )

    async def model(self, request: Request) -> Response:
        working = self._model(request)
        outputs = [output.described(working.task) for output in working.outputs.values()]
        return JSONResponse(
            {
                "name": working.name,
                "versions": [MODEL_VERSION],
                "platform": _platform(working),
                "inputs": [_INPUT],
                "outputs": outputs,
            }
        )

    async def config(self, request: Request) -> Response:
        """Triton's; with a ``max_batch_size`` of 0 its ``dims`` are whole shapes, number of images and all."""
        working = self._model(request)
        outputs = [output.described(working.task) for output in working.outputs.values()]
        return JSONResponse(
            {
                "name": working.name,
                "platform": _platform(working),
                "backend": "snellen",
                "max_batch_size": 0,
                "input": [_configured(_INPUT)],
                "output": [_configured(output) for output in outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self._model(request).name, "ready": True})

    async def statistics(self, request: Request) -> Response:
        return JSONResponse({"model_stats": [self._model(request).statistics.to_json(MODEL_VERSION)]})

    async def all_statistics(self, request: Request) -> Response:
        return JSONResponse({"model_stats": [each.statistics.to_json(MODEL_VERSION) for each in self._service.models]})

    async def infer(self, request: Request) -> Response:
        working = self._model(request)
        client = client_of(request)
        working.batcher.check_room(client)
        async with self._desk.taken(request) as body:
            asked = await self._service.describing(self._parsed, body, request.headers.get(HEAD_LENGTH))
            wanted = _wanted(working, asked)
            told, head_length = await unless_gone(request, self._told(working, asked, wanted, client))
        if head_length is None:
            return Response(told, media_type="application/json")
        return Response(told, headers={HEAD_LENGTH: str(head_length)}, media_type="application/octet-stream")

    def _parsed(self, body: bytes, head_length: str | None) -> Asked:
        return parse(body, head_length, max_json=self._service.limits.max_json, most=self._service.limits.queue)

    async def _told(
        self, working: Working, asked: Asked, wanted: list[tuple[Output, bool]], client: str
    ) -> tuple[bytes, int | None]:
        targets, _ = await self._service.targets(working, asked.images, client)
        return await self._service.describing(_answered, working, asked, wanted, targets)

    def _model(self, request: Request) -> Working:
        """Raises Refusal 404."""
        working = self._service.model(request.path_params["model"])
        version = request.path_params.get("version", MODEL_VERSION)
        if version != MODEL_VERSION:
            raise Refusal(404, f"{quoted(working.name)} has the version {MODEL_VERSION}, not {quoted(version)}")
        return working


def _platform(working: Working) -> str:
    return f"snellen_{working.task.name}"


def _configured(tensor: Mapping[str, Any]) -> dict[str, Any]:
    """A tensor of the metadata, as Triton's configuration has it."""
    return {"name": tensor["name"], "data_type": DATATYPES[tensor["datatype"]], "dims": tensor["shape"]}


def _wanted(working: Working, asked: Asked) -> list[tuple[Output, bool]]:
    """The outputs of an answer, and whether each is to be binary. Raises Refusal 400."""
    if asked.outputs is None:
        return [(output, asked.binary) for output in working.outputs.values()]
    unknown = [name for name in asked.outputs if name not in working.outputs]
    if unknown:
        raise Refusal(
            400, f"the output {quoted(unknown[0])} is not known; {working.name} has {', '.join(working.outputs)}"
        )
    return [(working.outputs[name], binary) for name, binary in asked.outputs.items()]


def _answered(
    working: Working, asked: Asked, wanted: list[tuple[Output, bool]], targets: list[Any]
) -> tuple[bytes, int | None]:
    head = {"model_name": working.name, "model_version": MODEL_VERSION}
    if asked.id is not None:
        head["id"] = asked.id
    try:
        return answer(head, [(output.tensor(working.task, targets), binary) for output, binary in wanted])
    except ValueError:
        raise Refusal(500, "the model gave a number that is not finite for these images") from None
