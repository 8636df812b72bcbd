"""The page at `/`: a few files that are read once, when the server starts; whatever a client names is looked up among them."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engines.serve.refusals import Refusal

_FOLDER = Path(__file__).parent / "page"
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: The page speaks to its own server alone, and stands in no other page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' data:; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Page:
    """The routes of the page."""

    def __init__(self) -> None:
        self._files = {path.name: (path.read_bytes(), _KINDS[path.suffix]) for path in _FOLDER.iterdir()}

    def routes(self) -> list[Route]:
        """Of Starlette."""
        return [Route("/", self._index), Route("/page/{name}", self._file)]

    async def _index(self, _request: Request) -> Response:
        return self._answer("index.html")

    async def _file(self, request: Request) -> Response:
        return self._answer(request.path_params["name"])

    def _answer(self, name: str) -> Response:
        if name not in self._files:
            raise Refusal(404, "the page has no such file.", "not_found")
        data, kind = self._files[name]
        headers = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
        return Response(data, media_type=kind, headers=headers)
