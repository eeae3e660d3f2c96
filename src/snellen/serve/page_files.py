"""The files of the web page, read once: no request reaches the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from snellen.serve.refusal import Refusal

FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def read_page(folder: Path = FOLDER) -> dict[str, tuple[str, bytes]]:
    """Name -> content type and content, of the files that a browser is given."""
    files = sorted(path for path in folder.iterdir() if path.suffix in _TYPES)
    return {path.name: (_TYPES[path.suffix], path.read_bytes()) for path in files}


class Page:
    """The routes / and /page/*."""

    def __init__(self, files: Mapping[str, tuple[str, bytes]]) -> None:
        self._files = files

    def routes(self) -> list[Route]:
        return [
            Route("/", self.index, methods=["GET"]),
            Route("/page/{name}", self.file, methods=["GET"]),
        ]

    async def index(self, request: Request) -> Response:
        return self._named("index.html")

    async def file(self, request: Request) -> Response:
        return self._named(request.path_params["name"])

    def _named(self, name: str) -> Response:
        if name not in self._files:
            raise Refusal(404, "the page has no such file")
        kind, content = self._files[name]
        return Response(content, headers={"content-type": kind})
