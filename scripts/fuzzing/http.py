"""Requests that a page would not make: every method, path, header, body and pace, sent to a live `clearhead view`.

Each case is a connection or several: requests made of right parts and wrong ones (a host, an origin, a token, a length,
an encoding, a question whose fields are anything), whole or cut off, in pieces, one after another, left before the
answer comes. No answer is a server error; without the token, the right host and the page's origin all are refused; none
holds a file from elsewhere; the server prints nothing, keeps its memory, and answers a known question right afterwards.
"""

import atexit
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from functools import cache
from pathlib import Path

import numpy as np

TEXT = "The whale swam under the ship and the captain saw the white whale."
SECONDS = 20  # for any answer
MOST_MEMORY = 96 << 20  # bytes more than the server has at first
MOST_ANSWER = 400_000  # bytes, but for the page itself
KNOWN = "ask/costs?dim=4"
SECRETS = (b"root:x:0", b"import ", b"[project]", b"Traceback (most")


class Server:
    """A live page."""

    def __init__(self) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-u", "-m", "clearhead", "view", "--no-browser", "--model", "tiny", TEXT]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.said, env=env)  # noqa: S603
        atexit.register(self.process.kill)
        address = re.search(rb"http://\S+", self.process.stdout.readline())[0].decode()
        parts = urllib.parse.urlsplit(address)
        self.port, self.token = parts.port, parts.path.split("/")[1]
        self.known = self.ask(f"/{self.token}/{KNOWN}")
        self.memory = self.resident()

    def ask(self, path: str) -> bytes:
        """The answer to a question as the page asks it."""
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n\r\n"
        return exchange(self.port, [request.encode()], whole=True)[0]

    def resident(self) -> int:
        """Its memory, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def printed(self) -> bytes:
        """What it has said on standard error, once."""
        self.said.seek(0)
        text = self.said.read()
        self.said.seek(0)
        self.said.truncate()
        return text


@cache
def server() -> Server:
    """One for all cases of a process."""
    return Server()


def exchange(port: int, pieces, *, whole: bool, leave: bool = False) -> tuple[bytes, bool]:
    """Send pieces; the answers, until the server closes, and whether it did so before it had read all that was sent.

    It is told that no more comes, unless the request is whole.
    """
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        found = b""
        try:
            for piece in pieces:
                client.sendall(piece)
            if leave:
                return b"", True
            if not whole:
                client.shutdown(socket.SHUT_WR)
            while part := client.recv(1 << 16):
                found += part
        except TimeoutError:
            raise
        except OSError:
            return found, True
        return found, False


# Requests


def any_of(rng, *options):
    """One of several."""
    return options[int(rng.integers(len(options)))]


ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    255,
    2**31,
    2**63,
    10**40,
    -(10**30),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "0",
    "decoder",
    "mean",
    "\u0000",
    "\ud800",
    "💡" * 3,
    "a " * 3000,
    [],
    {},
    [0],
    [[1]],
    [1, "a"],
    [0, 1, 10**20],
    {"a": {}},
    [None],
    [[1, 2], [3]],
    [[float("nan")]],
    list(range(70)),
]
QUESTIONS = {
    "readings": {},
    "names": {"side": "keys", "from": 0},
    "line": {"by": "row", "at": 3},
    "trust": {},
    "picture": {},
    "tile": {"how": "max", "z": 0, "r": 0, "c": 0, "from": 0, "to": 32},
    "sheet": {},
    "pair": {"row": 5, "column": 2},
    "heaviest": {"by": "column", "at": 2},
    "again": {"text": "the sea"},
    "sentence": {"text": "the river"},
    "learned": {"text": "the river"},
    "head": {"text": "the river", "head": "3.3"},
    "costs": {"dim": "3"},
    "consequence": {"formula": "no-softmax"},
    "questions": {},
    "nothing": {},
}
PLACE = {"reading": 0, "part": "decoder", "layer": 1, "heads": [0, 1], "join": "mean", "measure": "weight"}
PROBLEM = {
    "names": ["a", "b"],
    "q": [[1, 0], [0, 1]],
    "k": [[1, 0], [0, 1]],
    "v": [[1, 0], [0, 1]],
    "scale": 1,
    "row": 1,
    "window": 2,
}


def changed(rng, fields: dict) -> dict:
    """Fields of which some are anything."""
    fields = dict(fields)
    for _ in range(int(rng.integers(0, 4))):
        name = any_of(rng, *fields, "extra") if fields else "extra"
        if rng.random() < 0.2:
            fields.pop(name, None)
        else:
            fields[name] = any_of(rng, *ODD)
    return fields


def body_of(rng, what: str) -> bytes:
    """What is sent with a question."""
    fields = changed(rng, PLACE | QUESTIONS[what])
    if what in ("consequence", "questions"):
        problem = changed(rng, PROBLEM)
        fields["problem"] = any_of(rng, json.dumps(problem), json.dumps(problem), problem, "[]", "{")
    if rng.random() < 0.15:
        return any_of(
            rng,
            b"",
            b"{",
            b"[1]",
            b"null",
            b"3",
            b"\xff\xfe{}",
            b'{"a":' * 3000,
            b"[" * 100_000,
            bytes(range(256)),
            b"NaN",
            b'{"text": "' + b"a" * 100_000 + b'"}',
            b'{"text": "' + b"a" * (5 << 20) + b'"}',
            b"9" * 10_000,
        )
    return json.dumps(fields).encode()


def path_of(rng, token: str) -> tuple[str, str]:
    """A path, with the question that it asks."""
    what = any_of(rng, *QUESTIONS)
    inside = any_of(
        rng,
        f"ask/{what}",
        f"ask/{what}",
        f"ask/{what}",
        f"ask/{what}",
        "",
        "read",
        "file",
        "static/learn/main.js",
        "static/",
        "static/../page.py",
        "static/%2e%2e/server.py",
        "static/..%2f..%2f..%2fpyproject.toml",
        "static//etc/passwd",
        "static/%00",
        "static/learn/main.js%00.py",
        "static/" + "a/" * 400,
        "ask/",
        "ask/%ff",
        "ask/" + "x" * 5000,
        "ask/a/b",
        "static/%c0%ae%c0%ae/server.py",
        "static/....//server.py",
        "read/",
        "%2e%2e/",
        "..",
        ".%2e/..",
        "*",
    )
    if rng.random() < 0.2:
        inside += "?" + any_of(
            rng, "a", "=", "&&&", "text=%ff", "dim=%00", "x=1&x=2", "dim=" + "9" * 5000, "reading=0", "%"
        )
    who = any_of(
        rng,
        token,
        token,
        token,
        token,
        token[:-1],
        "",
        token.upper(),
        token + "x",
        "%" + token,
        "wrong",
        "é",
        f"/{token}",
    )
    return f"/{who}/{inside}", what


def request_of(rng) -> tuple[bytes, bool, bool]:
    """A request, whether it may be answered, and whether it is whole, so that an answer must come."""
    live = server()
    here = f"127.0.0.1:{live.port}"
    path, what = path_of(rng, live.token)
    method = any_of(
        rng, "GET", "POST", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X" * 50
    )
    body = body_of(rng, what) if method not in ("GET", "HEAD") or rng.random() < 0.1 else b""
    host = any_of(
        rng,
        here,
        here,
        here,
        here,
        f"localhost:{live.port}",
        "evil.example",
        "127.0.0.1",
        "",
        f"{here}.evil.example",
        f"evil@{here}",
        here.upper(),
        "[::1]",
    )
    headers = [("Host", host)] if rng.random() < 0.95 else []
    if rng.random() < 0.3:
        headers.append(("Origin", any_of(rng, f"http://{here}", "null", "http://evil.example", f"https://{here}", "")))
    if rng.random() < 0.3:
        headers.append(("Sec-Fetch-Site", any_of(rng, "same-origin", "none", "cross-site", "same-site", "x", "")))
    if rng.random() < 0.3:
        headers.append(
            any_of(
                rng,
                ("X-Forwarded-Host", "evil.example"),
                ("Cookie", "a" * 3000),
                ("Range", "bytes=0-5"),
                ("Range", "bytes=9-1,,-"),
                ("If-None-Match", "*"),
                ("If-Modified-Since", "x"),
                ("Accept-Encoding", "gzip, x"),
                ("Content-Type", "text/xml"),
                ("Expect", "100-continue"),
                ("Host", here),
                ("Upgrade", "h2c"),
                ("X-Http-Method-Override", "PUT"),
                ("Content-Encoding", "gzip"),
                ("Long", "x" * 70_000),
                ("Accept", "\xff"),
                ("X y", "z"),
                ("Range", "bytes=0-" + "9" * 40),
            )
        )
    if rng.random() < 0.05:
        headers += [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
    headers.append(("Connection", "close"))
    length = any_of(rng, len(body), len(body), len(body), len(body), len(body) + 5, 0, -1, "x", 10**12, "1, 2", "")
    if rng.random() < 0.2 and body:
        headers.append(("Transfer-Encoding", any_of(rng, "chunked", "chunked", "gzip, chunked", "x")))
        size = any_of(rng, b"%x" % len(body), b"%x" % len(body), b"-1", b"zz", b"f" * 30)
        body = size + b"\r\n" + body + b"\r\n0\r\n\r\n"
    elif body or rng.random() < 0.1:
        headers.append(("Content-Length", length))
    version = any_of(rng, "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "")
    line = f"{method} {path} {version}".encode("utf-8", "replace")
    lines = [line, *(f"{name}: {value}".encode("latin-1", "replace") for name, value in headers)]
    welcome = path.startswith(f"/{live.token}/") and host in (here, f"localhost:{live.port}")
    origins = [value for name, value in headers if name == "Origin"]
    sites = [value for name, value in headers if name == "Sec-Fetch-Site"]
    welcome &= all(value == f"http://{host}" for value in origins) and all(x in ("none", "same-origin") for x in sites)
    welcome &= headers[0] == ("Host", host)
    given = [value for name, value in headers if name in ("Content-Length", "Transfer-Encoding", "Upgrade")]
    whole = version == "HTTP/1.1" and given in ([], [len(body)]) and bool(given) >= bool(body)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body, welcome, whole


def garbage(rng) -> bytes:
    """What is no request at all, or one with bytes changed."""
    if rng.random() < 0.5:
        return any_of(
            rng,
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\r\n" * 100,
            b"\0" * 5000,
            b"GET",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3000,
            secrets.token_bytes(300),
            b"GET /" + b"a" * 100_000,
        )
    content = bytearray(request_of(rng)[0][:3000])
    for _ in range(int(rng.integers(1, 6))):
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
    return bytes(content)


def in_pieces(rng, content: bytes):
    """A request at once, or cut."""
    if rng.random() < 0.7 or len(content) > 1 << 20:
        return [content]
    cuts = sorted(int(x) for x in rng.integers(0, len(content) + 1, int(rng.integers(1, 8))))
    return [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]


def case(seed: int):
    """Kind of case, what is sent, whether it may be answered, and whether it is whole."""
    rng = np.random.default_rng(seed)
    kind = any_of(rng, *["request"] * 12, "garbage", "cut off", "left", "several", "crowd")
    if kind == "garbage":
        return kind, [garbage(rng)], False, False
    content, welcome, whole = request_of(rng)
    if kind == "several":
        more = [request_of(rng) for _ in range(3)]
        return kind, [content.replace(b"Connection: close\r\n", b""), *(one for one, *_ in more)], True, False
    if kind in ("cut off", "left"):
        return kind, in_pieces(rng, content[: int(rng.integers(1, len(content) + 1))]), welcome, False
    return kind, in_pieces(rng, content), welcome, whole


def check(seed: int) -> None:
    """One case."""
    live = server()
    kind, pieces, welcome, whole = case(seed)
    crowd = [socket.create_connection(("127.0.0.1", live.port), SECONDS) for _ in range(60)] if kind == "crowd" else []
    for n, one in enumerate(crowd):
        one.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n"[: n + 1])
    found, cut = exchange(live.port, pieces, whole=whole, leave=kind == "left")
    for one in crowd:
        one.close()
    statuses = [int(x) for x in re.findall(rb"(?:^|\r\n\r\n|[}\n.])HTTP/1\.[01] (\d{3}) ", found)]
    assert all(status < 500 for status in statuses), (statuses, found[:500])
    assert statuses or (not found and (cut or not whole)), f"no answer: {found[:200]!r}"
    if not welcome:
        assert not statuses or statuses[0] in (400, 403, 404, 405), (statuses, found[:300])
        assert live.token.encode() not in found, ("the token", found[:500])
    if b"text/html" not in found and b"javascript" not in found:
        assert len(found) < MOST_ANSWER * len(statuses or [1]), len(found)
        assert not any(secret in found for secret in SECRETS), found[:500]
    said = live.printed()
    assert not any(word in said for word in (b"Traceback", b"Error")), said[-2000:]
    assert live.process.poll() is None, "the server has ended"
    again = live.ask(f"/{live.token}/{KNOWN}")
    assert again.partition(b"\r\n\r\n")[2] == live.known.partition(b"\r\n\r\n")[2], ("afterwards", again[:500])
    assert live.resident() < live.memory + MOST_MEMORY, live.resident() - live.memory


def describe(seed: int) -> str:
    """What is sent."""
    kind, pieces, welcome, _ = case(seed)
    return f"{kind}, {'may' if welcome else 'may not'} be answered: {b'|'.join(pieces)[:1500]!r}"
