"""The page's server: on this computer alone, for whoever has the address with its token.

Decides who is answered: the right host, no foreign origin, the token; and with which headers. What is answered is
`answers`', what is shown `page`'s.
"""

import json
import secrets
import socket
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from clearhead.errors import ClearheadError, InputError
from clearhead.view import page
from clearhead.view.answers import answer, as_data

HOST = "127.0.0.1"
MOST_KEPT = 1 << 22  # bytes of a page that is to be written as one file
SAFE = {
    "Content-Security-Policy": page.policy(),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets through requests from this page alone: to this host, with the token in the path, from no other origin."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if not self.is_welcome(request):
            await PlainTextResponse("Not from here.", 403, headers=SAFE)(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                told = [(name.lower().encode(), value.encode()) for name, value in SAFE.items()]
                names = {name for name, _ in told}
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() not in names] + told
            await send(message)

        await self.app(scope, receive, sent)

    def is_welcome(self, request: Request) -> bool:
        """Whether a request comes from the page, or opens it."""
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        first = request.url.path.split("/")[1] if "/" in request.url.path else ""
        return (
            host in self.hosts
            and (origin is None or origin == f"http://{host}")
            and request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
            and secrets.compare_digest(first.encode(), self.token.encode())
        )


def application(token: str, port: int) -> ASGIApp:
    """The whole application, guarded."""
    routes = [
        Route("/", lambda request: HTMLResponse(page.served())),
        Route("/ask/{what}", asked, methods=["GET", "POST"]),
        Route("/file", written, methods=["POST"]),
        Mount("/static", StaticFiles(directory=str(page.STATIC))),
    ]
    hosts = frozenset(f"{name}:{port}" for name in (HOST, "localhost"))
    return Guard(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token, hosts)


async def asked(request: Request) -> Response:
    """One answer, or the reason why there is none."""
    try:
        about = dict(request.query_params)
        if request.method == "POST":
            about |= {str(name): str(value) for name, value in (await told(request)).items()}
        found = await run_in_threadpool(answer, request.path_params["what"], about)
    except ClearheadError as error:
        return Response(as_data({"error": str(error)}), 422, media_type="application/json")
    return Response(as_data(found), media_type="application/json")


async def written(request: Request) -> Response:
    """The page as one file, with the answers that the browser has."""
    try:
        kept = await told(request)
        text = page.single(kept["known"], str(kept["state"]))
    except (ClearheadError, KeyError, TypeError):
        return PlainTextResponse("Nothing to write: load the page again.", 422)
    return Response(
        text, media_type="text/html", headers={"Content-Disposition": "attachment; filename=clearhead.html"}
    )


async def told(request: Request) -> dict[str, Any]:
    """What a request carries: an object, not too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_KEPT:
            raise InputError(f"More than {MOST_KEPT >> 20} MiB were sent: show fewer items.")
    try:
        found = json.loads(body)
    except ValueError as error:
        raise InputError("What was sent cannot be read as JSON: send an object, as the page does.") from error
    if not isinstance(found, dict):
        raise InputError("What was sent is not a JSON object: send {…}, as the page does.")
    return found


def listen(port: int | None) -> socket.socket:
    """A socket on this computer alone; on any free port unless one is given. Raises OSError."""
    own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind((HOST, port or 0))
    except OSError:
        own.close()
        raise
    return own


def serve(own: socket.socket, token: str, ready: Callable[[], None]) -> None:
    """Answer until interrupted; `ready` is called once the server listens."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    app = application(token, own.getsockname()[1])
    Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")).run([own])
