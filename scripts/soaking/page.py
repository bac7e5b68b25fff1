"""A live `clearhead view`, asked as the page asks it."""

import http.client
import json
import os
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from soaking.works import Draw, Work

TEXT = "The whale swam under the ship. The captain saw the whale, and the men in the boats saw the white whale."
PLACE = {"reading": 0, "part": "decoder", "layer": 1}
HEADS = {"heads": [0, 1], "join": "mean", "measure": "weight"}


@contextmanager
def served() -> Iterator[tuple[int, str]]:
    """A server's process and address, as long as the block lasts."""
    command = [sys.executable, "-u", "-m", "clearhead", "view", "--no-browser", "--model", "tiny", TEXT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:  # noqa: S603
        try:
            assert server.stdout is not None
            found = re.search(r"http://[^\s#]+/(?=read)", server.stdout.readline())
            assert found is not None
            yield server.pid, found[0]
        finally:
            server.terminate()


def questions() -> list[tuple[str, Any]]:
    """What the page asks."""
    asked = PLACE | HEADS
    problem = {"names": ["a", "b", "c"], "q": [[1, 0], [0, 1], [1, 1]], "row": 2}
    return [
        ("", None), ("read", None), ("static/learn/main.js", None),
        ("ask/sentence", {"text": "the river bank"}), ("ask/learned", {"text": "the river bank"}),
        ("ask/questions", {"problem": json.dumps(problem)}), ("ask/costs", {"dim": "4"}),
        ("ask/readings", {}), ("ask/names", PLACE | {"side": "keys", "from": 0}),
        ("ask/line", asked | {"by": "row", "at": 9}), ("ask/line", asked | {"by": "column", "at": 3}),
        ("ask/tile", asked | {"how": "max", "z": 0, "r": 0, "c": 0, "from": 0, "to": 256}),
        ("ask/sheet", PLACE | {"heads": [0, 1, 2]}), ("ask/pair", PLACE | {"row": 8, "column": 2}),
        ("ask/heaviest", PLACE | {"by": "row", "at": 8}), ("ask/trust", PLACE),
        ("ask/line", asked | {"by": "row", "at": 9999}), ("ask/nothing", {}), ("nowhere", None),
    ]  # fmt: skip


def ask(address: str, number: int) -> list[Any]:
    """One question; how long the answer took is left out."""
    parts = urllib.parse.urlsplit(address)
    path, body = questions()[number]
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
    try:
        connection.request(
            "GET" if body is None else "POST", parts.path + path, None if body is None else json.dumps(body)
        )
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    numbers = b""
    if reply.headers["content-type"] == "application/octet-stream":
        end = 4 + int.from_bytes(content[:4], "little")  # the length of its JSON, the JSON, and numbers
        content, numbers = content[4:end], content[end:]
    return [reply.status, re.sub(rb'"ms":\s*[\d.]+', b"", content).rstrip(), numbers]


def works(address: str) -> tuple[dict[str, Work], dict[str, int]]:
    """The work of asking, and how many seeds it has."""

    def asked(draw: Draw) -> list[Any]:
        """A request to the page."""
        return ask(address, draw.seed)

    return {"asked": asked}, {"asked": len(questions())}
