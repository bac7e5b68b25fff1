"""The page's server, reachable only from this computer and only with the token in the address.

Responsible for which requests are answered (right host, same origin, token) and for the headers. Not for the answers,
which are in `answers`, nor for the page, which is in `page`.
"""

import asyncio
import json
import logging
import secrets
import socket
import traceback
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from clearhead.errors import ClearheadError, InputError
from clearhead.explain.json import json_bytes
from clearhead.reading.answers import QUESTIONS, Reader, as_bytes
from clearhead.view import page
from clearhead.view.answers import answer

HOST = "127.0.0.1"
LANES = {"tile": "map", "sheet": "sheet", "heaviest": "sheet", "again": "models"}  # of questions that take time
LEFT = 499  # the status of an answer that nobody waits for
MOST_REQUEST_BYTES = 1 << 22
MOST_FILE_BYTES = 1 << 26  # the answers that a page in a file holds
SECURITY_HEADERS = {
    "Content-Security-Policy": page.served_policy(),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Passes on only requests from this page: to this host, with the token in the path, from the same origin."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        if not self.is_welcome(request):
            await PlainTextResponse("Not from here.", 403, headers=SECURITY_HEADERS)(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                names = {name for name, _ in headers}
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() not in names] + headers
            await send(message)

        await self.app(scope, receive, sent)

    def is_welcome(self, request: Request) -> bool:
        """Whether a request comes from the page or opens it."""
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        first = request.url.path.split("/")[1] if "/" in request.url.path else ""
        return (
            host in self.hosts
            and (origin is None or origin == f"http://{host}")
            and request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
            and secrets.compare_digest(first.encode(), self.token.encode())
        )


def application(token: str, port: int, find_reader: Callable[[], Reader], start: str = "") -> ASGIApp:
    """The whole application, guarded; `find_reader` is asked once, when the first question about a reading comes.

    The path /start leads to `start`: a screen, and a state of it that may be too long to be shown.
    """
    questions = Questions(find_reader)
    routes = [
        Route("/", lambda request: HTMLResponse(page.served_page(page.LEARN))),
        Route("/read", lambda request: HTMLResponse(page.served_page(page.READ))),
        Route("/start", lambda request: RedirectResponse(f"/{token}/{start}")),
        Route("/ask/{what}", questions.respond, methods=["GET", "POST"]),
        Route("/file", file_request, methods=["POST"]),
        Mount("/static", StaticFiles(directory=str(page.STATIC))),
    ]
    hosts = frozenset(f"{name}:{port}" for name in (HOST, "localhost"))
    return Guard(Starlette(routes=[Mount(f"/{token}", routes=routes)]), token, hosts)


class Questions:
    """Answers questions of each kind one at a time, so that a row never waits for a map.

    A question whose asker has left meanwhile is not answered.
    """

    def __init__(self, find_reader: Callable[[], Reader]) -> None:
        self.find_reader = find_reader
        self.reader: Reader | None = None
        self.lanes = {name: asyncio.Lock() for name in ("opening", "quick", *LANES.values())}

    async def respond(self, request: Request) -> Response:
        """An answer as JSON or with numbers, or the error message with status 422."""
        what = request.path_params["what"]
        try:
            asked: dict[str, Any] = dict(request.query_params)
            if request.method == "POST":
                asked |= await request_object(request)
            if what not in QUESTIONS:
                told = {str(name): str(value) for name, value in asked.items()}
                return in_json(await run_in_threadpool(answer, what, told))
            return await self.about_reading(request, what, asked)
        except ClearheadError as error:
            return in_json({"error": str(error)}, 422)
        except ClientDisconnect:
            return Response(status_code=LEFT)
        except Exception as error:
            traceback.print_exc()
            return in_json({"error": f"Python failed here ({error!r:.200}): what happened is on the terminal."}, 500)

    async def about_reading(self, request: Request, what: str, asked: dict[str, Any]) -> Response:
        """Answer a question about a reading."""
        async with self.lanes["opening"]:
            if self.reader is None:
                self.reader = await run_in_threadpool(self.find_reader)
        async with self.lanes[LANES.get(what, "quick")]:
            if await request.is_disconnected():
                return Response(status_code=LEFT)
            found = await run_in_threadpool(self.reader.answer, what, asked)
        if found.values is None:
            return in_json(found.fields)
        return Response(as_bytes(found), media_type="application/octet-stream")


def in_json(fields: dict[str, Any], status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(json_bytes(fields), status, media_type="application/json")


async def file_request(request: Request) -> Response:
    """The page as one file, with the answers that the browser has received."""
    try:
        sent = await request_object(request, MOST_FILE_BYTES)
        text = page.single_file(page.SCREENS[sent["screen"]], sent["known"], str(sent["state"]))
    except ClientDisconnect:
        return Response(status_code=LEFT)
    except (ClearheadError, KeyError, TypeError):
        return PlainTextResponse("Nothing to write: load the page again.", 422)
    return Response(
        text, media_type="text/html", headers={"Content-Disposition": "attachment; filename=clearhead.html"}
    )


async def request_object(request: Request, most: int = MOST_REQUEST_BYTES) -> dict[str, Any]:
    """The JSON object in a request's body; raises InputError for a large one or for something else."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise InputError(f"More than {most >> 20} MiB were sent: show fewer items.")
    try:
        sent = json.loads(body)
    except ValueError as error:
        raise InputError("What was sent cannot be read as JSON: send an object, as the page does.") from error
    if not isinstance(sent, dict):
        raise InputError("What was sent is not a JSON object: send {…}, as the page does.")
    return sent


def listen(port: int | None) -> socket.socket:
    """A socket bound to this computer only, on the given port or any free one. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port or 0))
    except OSError:
        listener.close()
        raise
    return listener


def is_ours(record: logging.LogRecord) -> bool:
    """Whether a failure is the page's: what h11 raises, a client has caused that broke HTTP's rules or left."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not kind.__module__.startswith("h11")


def serve(
    listener: socket.socket, token: str, find_reader: Callable[[], Reader], ready: Callable[[], None], start: str = ""
) -> None:
    """Answer requests until interrupted; calls `ready` once the server listens. `start` is as for `application`."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    app = application(token, listener.getsockname()[1], find_reader, start)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(is_ours)
    Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")).run([listener])
