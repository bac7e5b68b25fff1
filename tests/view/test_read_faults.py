"""What goes wrong around Read: odd tokens, a server that dies, answers out of order, layers that are in doubt."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import Error, Request, Route, expect

from tests.view.known import READINGS, exact
from tests.view.made_up import HOSTILE
from tests.view.printed import nearly, percent
from tests.view.read_page import ReadPage

Reads = Callable[..., ReadPage]
PLACES = {name: f"reading={at}" for at, name in enumerate(READINGS)}
TOKEN = "of-a-page-that-comes-back"  # noqa: S105
MARKS = {  # what stands for tokens that have no shape
    "\n": "⏎", "\r": "␍", "\r\n": "␍⏎", "\t": "⇥", "": "∅", "   ": "␣␣␣", "\x00": "␀", "\u200b": "‹200B›",
    "\u2028": "‹2028›",
}  # fmt: skip


def test_odd_tokens_are_shown_and_harmless(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{PLACES['hostile']}&layer=5&heads=2&row=61")
    shown = dict(page.locator(".text .t").evaluate_all("all => all.map(e => [+e.dataset.j, e.textContent])"))
    assert len(shown) == 2 * len(HOSTILE)
    for at, name in enumerate(HOSTILE):
        text = shown[at]
        if name in MARKS:
            assert text == MARKS[name], (name, text)
        elif len(name) > 200:
            assert text == f"{name[:200]}…"
        elif name != "\ud800":
            assert name.strip() in text or "␛" in text, (name, text)
        assert text.strip(), f"{name!r} cannot be seen"
        assert "\n" not in text
    assert page.locator("script").count() == 1
    assert page.locator(".who b, .textpane i, .textpane img").count() == 0, "a token has become an element"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator(".who")).to_contain_text("<b>hostile</b> & sons")
    for row in range(len(HOSTILE)):
        page.locator(f".text [data-j='{row}']").dispatch_event("click")
        expect(page.locator(".chip")).to_contain_text(f", {row}")
    read.rest()
    tall = page.locator(".mass [data-pick]").evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    assert max(tall) < 60, "a token makes a line of the list tall"
    page.locator(".find input").fill("<script>")
    expect(page.locator(".found")).to_contain_text("1 of 2")
    for wrong in ("(", "[a-", "\\", "#99999", "#", "*"):
        page.locator(".find input").fill(wrong)
    expect(page.locator(".found")).to_contain_text("Nothing like this")


@contextmanager
def mortal(port: int, *names: str) -> Iterator[subprocess.Popen[str]]:
    """A server at a port and with a token that another may have later."""
    command = [sys.executable, "-u", "-m", "tests.view.known", *names, f"{port}/{TOKEN}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        for _ in range(100):  # until it listens
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            yield server
        finally:
            server.kill()


def test_a_server_that_dies_and_comes_back(reads: Reads) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    read = reads(f"http://127.0.0.1:{port}/{TOKEN}/read")
    with mortal(port, "120") as server:
        page = read.open("layer=5&heads=1&row=60")
        before = read.sentence(), read.listed()
        read.rest_long()
        os.kill(server.pid, signal.SIGSTOP)
        page.locator(".text .t:visible").nth(30).click()
        expect(page.locator(".waiting")).to_contain_text("Row 30: waiting for the answer.")
        assert (read.sentence(), read.listed()) == before
        server.kill()
    alert = page.get_by_role("alert").first
    expect(alert).to_contain_text("The server on this computer no longer answers.")
    expect(alert).to_contain_text("What you see is the last answer, row 60 of head 5.1.")
    assert (read.sentence(), read.listed()) == before
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("no longer answers")
    page.locator(".text .t:visible").nth(31).click()
    expect(alert).to_contain_text("no longer answers")
    assert (read.sentence(), read.listed()) == before
    with mortal(port, "120"):
        alert.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_have_count(0)
        read.rest_long()
        line = exact(120, 5, 1)[31]
        assert nearly(read.listed()[0].weight, percent, line.max())
        expect(page.locator(".chips")).to_contain_text("row 31")
        page.get_by_role("radio", name="head 3", exact=True).click()
        read.rest()
        assert nearly(read.listed()[0].weight, percent, exact(120, 5, 3)[31].max())
        expect(page.locator(".sheetstate")).to_have_text("")
    assert [told for told in read.complaints if "ERR_" not in told] == []
    read.complaints.clear()


def test_a_page_opens_once_its_server_is_there(reads: Reads, small: str) -> None:
    read = reads(small)
    read.page.route("**/ask/readings", lambda route: route.abort())
    read.page.goto(small)
    expect(read.page.get_by_role("alert")).to_contain_text("The server on this computer does not answer.")
    read.page.unroute("**/ask/readings")
    read.page.get_by_role("button", name="Try again").click()
    read.page.locator(read.ready).first.wait_for()
    read.complaints = [told for told in read.complaints if "ERR_FAILED" not in told]


def test_of_many_changes_in_a_row_only_the_last_is_drawn(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{PLACES['700']}&layer=2&heads=0&row=600")
    text = page.get_by_role("listbox", name="Text", exact=True)
    text.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    for key in ".,.,.,.,.,.,.,.,.,..":
        page.keyboard.press(key)
    read.rest()
    line = exact(700, 2, 2)[580]
    expect(page.locator(".chips")).to_contain_text("row 580")
    expect(page.locator(".headpick [aria-checked=true]")).to_have_text("2")
    assert nearly(read.listed()[0].weight, percent, line.max())
    assert nearly(page.locator(".say em").inner_text(), percent, line[1:].max())


def test_answers_in_reverse_order_do_not_replace_later_ones(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{PLACES['700']}&layer=2&heads=0&row=600")
    before = read.sentence(), read.listed()
    held: list[Route] = []
    page.route("**/ask/line", lambda route: held.append(route))
    states = [(row, head) for row in (590, 591, 592) for head in range(4)]
    for row, head in states:
        page.evaluate("s => { location.hash = s }", f"{PLACES['700']}&layer=2&heads={head}&row={row}")
        page.wait_for_timeout(20)
    expect(page.locator(".waiting")).to_contain_text("Row 592")
    assert len(held) == len(states)
    assert (read.sentence(), read.listed()) == before, "nothing is drawn before it is known"
    answers = [route.fetch() for route in held]
    for route, answer in reversed([*zip(held, answers, strict=True)]):
        with suppress(Error):  # of one that the page has given up
            route.fulfill(response=answer)
        page.wait_for_timeout(20)
    page.unroute("**/ask/line")
    read.rest()
    row, head = states[-1]
    line = exact(700, 2, head)[row]
    assert nearly(read.listed()[0].weight, percent, line.max())
    expect(page.locator(".chips")).to_contain_text(f"row {row}head 2.{head}")


def test_an_old_line_never_stands_under_a_new_state(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{PLACES['120']}&layer=2&by=column&column=17")
    before = read.sentence(), read.listed()
    held: list[Route] = []
    page.route("**/ask/line", lambda route: held.append(route))
    page.evaluate("s => { location.hash = s }", f"{PLACES['700']}&layer=5&heads=3&row=600&without=true")
    expect(page.locator(".waiting")).to_contain_text("Row 600")
    assert read.asked_of("names"), "the names of the other text have come"
    page.wait_for_timeout(100)
    shown = read.sentence(), read.listed()
    assert shown == before, "numbers of the one text stand beside words of the other"
    page.unroute("**/ask/line")
    for route in held:
        with suppress(Error):
            route.continue_()
    read.rest()
    assert nearly(read.listed()[0].weight, percent, exact(700, 5, 3)[600, 1:].max())


def test_strips_of_a_head_that_is_left_are_given_up(reads: Reads, known: str) -> None:
    read = reads(known)
    given_up: list[Request] = []
    read.page.on("requestfailed", lambda request: given_up.append(request))
    held: list[Route] = []
    read.page.route("**/ask/tile", lambda route: held.append(route))
    page = read.page
    page.goto(f"{known}#{PLACES['2000']}&layer=2&heads=0")
    page.locator(read.ready).first.wait_for()
    expect(page.locator(".mappane .status")).to_contain_text("Map of head 2.0: 0 of")
    first = list(held)
    assert first
    assert {route.request.post_data_json["heads"][0] for route in held} == {0}
    page.get_by_role("radio", name="head 1", exact=True).click()
    expect(page.locator(".mappane .status")).to_contain_text("Map of head 2.1: 0 of")
    page.wait_for_timeout(50)
    assert {route.request for route in first} <= {*given_up}
    after = [route.request.post_data_json["heads"][0] for route in held[len(first) :]]
    assert set(after) == {1}, "the head that was left is still asked for"
    page.get_by_role("button", name="Stop").first.click()
    expect(page.locator(".mappane .status")).to_contain_text("Incomplete: 0 of")
    count = len(held)
    page.wait_for_timeout(150)
    assert len(held) == count
    page.unroute("**/ask/tile")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".mappane .status")).to_contain_text("A pixel is the largest of")


def test_a_layer_that_is_not_the_models_is_refused_and_the_last_one_stays(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{PLACES['doubted']}&layer=2&heads=1&row=40")
    trust = page.locator(".trust")
    expect(trust).to_contain_text("Checked")
    before = read.sentence()
    page.get_by_role("button", name="Next layer").click()
    read.rest_long()
    said = "decoder layer 5, head 1: differs by 0.31 (allowed: 0.0001) from the model's own attention."
    alert = page.get_by_role("alert").first
    expect(alert).to_contain_text(said)
    expect(alert).to_contain_text("shown is still row 40 of head 2.1")
    expect(page.locator(".chips")).to_contain_text("head 2.1")
    assert read.sentence() == before
    expect(page.locator(".sheet")).to_contain_text(f"Layer 5: {said}")
    expect(trust).to_contain_text("Checked")
    read.complaints = [told for told in read.complaints if "422" not in told]


def test_a_stranger_on_this_computer_is_told_nothing(known: str) -> None:
    port = int(re.search(r":(\d+)/", known)[1])
    for path in ("/ask/readings", "/wrong/ask/line", "/wrong/read"):
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        asked.request("POST", path, json.dumps({}), {"Content-Type": "application/json"})
        assert asked.getresponse().status == 403
