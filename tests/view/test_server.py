"""Who is answered, and with what: this page alone, on this computer alone."""

import http.client
import json
import re
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from clearhead.errors import InputError
from clearhead.model import load
from clearhead.model.heads import head_scores
from clearhead.view import page
from clearhead.view.answers import answer
from clearhead.view.command import LONGEST_ADDRESS
from clearhead.view.learned import SHOWN_HEADS
from tests.view.conftest import serving


def fetch(
    address: str, path: str = "", method: str = "GET", headers: Mapping[str, str] | None = None, body: str | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """One request, with whatever headers."""
    parts = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
    connection.request(method, parts.path + path, body, headers or {})
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def test_the_page_comes_with_its_policy(address: str) -> None:
    status, headers, body = fetch(address)
    assert status == 200
    told = {name.lower(): value for name, value in headers.items()}
    assert "default-src 'none'" in told["content-security-policy"]
    assert "require-trusted-types-for 'script'" in told["content-security-policy"]
    assert "unsafe" not in told["content-security-policy"]
    assert told["referrer-policy"] == "no-referrer"
    assert b"style=" not in body
    assert body.count(b"<script") == 1


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
def test_others_are_refused(address: str, headers: dict[str, str]) -> None:
    for path in ("", "static/learn/main.js", "ask/sentence?text=a"):
        status, told, body = fetch(address, path, headers=headers)
        assert (status, body) == (403, b"Not from here.")
        assert "Content-Security-Policy" in told or "content-security-policy" in told


@pytest.mark.parametrize("path", ["/", "/wrong/", "/wrong/static/learn/main.js", "//", "/%2e%2e/"])
def test_without_the_token_nothing_is_answered(address: str, path: str) -> None:
    parts = urllib.parse.urlsplit(address)
    assert fetch(f"http://127.0.0.1:{parts.port}{path}")[0] == 403


@pytest.mark.parametrize("path", ["static/../server.py", "static/%2e%2e/server.py", "static/..%2fserver.py"])
def test_only_the_pages_own_files_are_served(address: str, path: str) -> None:
    status, _, body = fetch(address, path)
    assert status in (403, 404)
    assert b"import" not in body


def test_what_cannot_be_answered_says_why(address: str) -> None:
    for path, body, told in (
        ("ask/nothing", "{}", "is not a known question"), ("ask/sentence", '{"text": "!"}', "There is no word"),
        ("ask/sentence", "[1]", "is not a JSON object"), ("ask/sentence", "{", "cannot be read as JSON"),
        ("ask/sentence", json.dumps({"text": "a " * 2000}), "at most 2000"),
        ("ask/head", '{"text": "a", "head": "9.9"}', "not one of"),
        ("ask/consequence", "{}", "load it again"), ("ask/consequence", '{"problem": "[]"}', "load it again"),
        ("ask/costs", '{"dim": "x"}', "dim"), ("ask/costs", '{"dim": "-5"}', None),
    ):  # fmt: skip
        status, _, found = fetch(address, path, "POST", {"Content-Type": "application/json"}, body)
        if told is None:
            assert status == 200
        else:
            assert status == 422, (path, body, found)
            assert told in json.loads(found)["error"]
    assert fetch(address, "ask/sentence", "POST", {}, '{"text": "' + "a" * (5 << 20) + '"}')[0] == 422


def test_answers_are_small(address: str) -> None:
    sentence = "the quick brown fox jumps over the lazy dog " * 20
    for what in ("sentence", "learned", "head"):
        status, _, body = fetch(address, f"ask/{what}", "POST", {}, json.dumps({"text": sentence, "head": "3.3"}))
        assert status == 200
        assert len(body) < 300_000


def test_the_port_is_this_computers_and_may_be_taken(tmp_path: object) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "clearhead", "view", "--no-browser", "--port", str(port)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"port {port} cannot be used" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_address_of_a_long_text_is_short_and_opens_on_the_text(browser: Browser) -> None:
    text = " ".join(["水は川を流れる"] * 240)  # 1919 characters, 17,000 in an address
    with serving("clearhead", "view", "--no-browser", text) as found:
        assert len(found) <= LONGEST_ADDRESS
        status, headers, _ = fetch(found)
        assert status == 307
        assert "default-src 'none'" in str(headers)
        assert fetch(found, headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
        page = browser.new_page()
        page.goto(found)
        assert page.locator("#sentence").input_value() == text
        page.close()
    with serving("clearhead", "view", "--no-browser", "the river") as found:
        assert found.endswith("/#text=the+river&step=0")


def test_heads_are_the_best_of_their_kind() -> None:
    text = (Path(__file__).parents[2] / "examples/moby_dick.txt").read_text("utf-8")
    scores = head_scores(load(), text)
    names = {
        "itself": "itself",
        "the piece before": "previous",
        "what came next": "induction",
        "signs": "punctuation",
    }
    for (layer, head), kind in SHOWN_HEADS.items():
        if kind in names:
            values = getattr(scores, names[kind])
            assert values[layer, head] == values.max(), kind
    assert scores.sink[2, 1] > 0.4


def test_all_modules_belong_to_a_screen() -> None:
    here = {str(file.relative_to(str(page.STATIC)).with_suffix("")) for file in Path(str(page.STATIC)).rglob("*.js")}
    assert here == {module for screen in page.SCREENS.values() for module in screen.modules}


@pytest.mark.parametrize("screen", page.SCREENS.values(), ids=list(page.SCREENS))
def test_modules_fit_one_scope(screen: page.Screen) -> None:
    done: set[str] = set()
    for module in screen.modules:
        text = page.module_text(module)
        room = module.rpartition("/")[0]
        needs = {
            name if up == "../" or not room else f"{room}/{name}"
            for up, name in re.findall(r"from '(\.\.?/)(\w+)\.js'", text)
        }
        assert needs <= done, f"{module} imports what comes later"
        done.add(module)
        assert "innerHTML" not in text
        assert all(line.count("`") % 2 == 0 for line in text.splitlines()), "lines of a text lose their indentation"
    distinct_names([page.module_text(module) for module in screen.modules])


def distinct_names(modules: list[str]) -> None:
    """Check that modules which share a scope have short texts and names of their own."""
    names: set[str] = set()
    for text in modules:
        assert len(text.splitlines()) <= 400
        for name in re.findall(r"^(?:export )?(?:async )?(?:function\*?|const|let|class) (\w+)", text, re.MULTILINE):
            assert name not in names, f"{name} stands in two modules"
            names.add(name)


def test_a_question_must_be_known() -> None:
    with pytest.raises(InputError, match="is not a known question: ask one of sentence, learned"):
        answer("everything", {})


@pytest.mark.parametrize("path", ["file", "ask/sentence", "ask/readings"])
def test_a_client_that_leaves_is_no_failure(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    from fuzzing.http import Server

    live = Server()
    request = f"POST /{live.token}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nContent-Length: 99\r\n\r\n{{"
    for broken in (request, request.replace("Content-Length: 99", "Transfer-Encoding: chunked") + "zz\r\n"):
        with socket.create_connection(("127.0.0.1", live.port)) as client:
            client.sendall(broken.encode())
    assert b"200 OK" in live.ask(f"/{live.token}/ask/costs?dim=4")
    live.process.terminate()
    live.process.wait()
    assert b"Traceback" not in live.printed()
