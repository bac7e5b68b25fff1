"""The Read screen in a real browser: text, answer, keys, search, two views, and what happens when things go wrong."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.view import texts
from tests.view.conftest import Watched
from tests.view.needle import needle_reading
from tests.view.printed import percent

NEEDLE, ODD, GENERATED, ALIGNED, SMALL = range(5)
Opened = Callable[[str], Page]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the made-up texts are served."""
    command = [sys.executable, "-u", "-m", "tests.view.texts"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield re.search(r"(http://\S+)read", server.stdout.readline())[1]
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def opened(watched: Watched) -> Opened:
    """Opens a state of the screen and waits for its answer."""

    def opens(state: str) -> Page:
        watched.page.goto("about:blank")
        watched.page.goto(f"{watched.address}read#{state}")
        expect(watched.page.locator(".say em").first).to_be_visible()
        return watched.page

    return opens


def row_is(page: Page, row: int) -> None:
    """Wait until the screen shows a row."""
    expect(page.locator(".chips").first).to_contain_text(re.compile(rf"row {row:,}(?!\d)"))


def weight_of(head: int, row: int, column: int) -> str:
    """A weight of the needle's text, as the page prints it."""
    return percent(float(needle_reading(2048, texts.NEEDLE).stack().layer(0).weights[head][row][column]))


def said(page: Page) -> str:
    """The sentence."""
    return page.locator(".say").first.inner_text()


@pytest.mark.parametrize(("head", "at", "where"), [(1, 1900, "lighthouse, 1,200 tokens back"), (0, 1000, "90 %")])
def test_the_answer_is_python_s(opened: Opened, head: int, at: int, where: str) -> None:
    page = opened(f"reading={NEEDLE}&heads={head}&row={at}")
    expect(page.locator(".say")).to_contain_text(where)
    row = np.asarray(needle_reading(2048, texts.NEEDLE).stack().layer(0).weights[head][at], np.float64)
    order = np.argsort(-row, kind="stable")
    each = "e => [+e.dataset.pick, e.querySelector('.wt').textContent]"
    shown = page.evaluate(f"[...document.querySelectorAll('.mass [data-pick]')].map({each})")
    assert [item for item, _ in shown] == order[: len(shown)].tolist()
    assert shown[0][1] == f"{100 * row[order[0]]:.1f} %" == page.locator(".say em").inner_text()
    assert page.locator(f"#pane1-keys-{order[0]}").get_attribute("title") == f"{order[0]:,}: {shown[0][1]}"
    carriers = int(np.searchsorted(np.cumsum(row[order]), 0.9)) + 1
    assert carriers == 1 or f"{carriers:,} tokens carry 90 %" in said(page)
    others = at + 1 - len(shown)
    assert f"the other {others:,} tokens carry" in page.locator(".mass .rest").inner_text()


def test_who_reads_it_turns_the_question_round(opened: Opened) -> None:
    page = opened(f"reading={NEEDLE}&heads=1&by=column&column=700")
    expect(page.locator(".say")).to_contain_text("where?, 1,200 tokens on, puts")
    page.get_by_role("radio", name="what it reads").click()
    row_is(page, 700)
    page.get_by_role("radio", name="who reads it").click()
    expect(page.locator(".chips")).to_contain_text("column 700")


def test_the_keyboard_goes_everywhere(opened: Opened) -> None:
    page = opened(f"reading={NEEDLE}&row=1000")
    page.locator("#pane1-keys").focus()
    for key, row in (("ArrowRight", 1001), ("ArrowLeft", 1000), ("PageDown", 1205), ("Home", 0), ("End", 2047)):
        page.keyboard.press(key)
        row_is(page, row)
        assert page.locator("#pane1-keys").get_attribute("aria-activedescendant") == f"pane1-keys-{row}"
    page.keyboard.press("ArrowUp")
    expect(page.locator(".chips")).not_to_contain_text("row 2,047")
    page.keyboard.press(".")
    expect(page.locator(".chips")).to_contain_text("head 0.1")
    page.keyboard.press("Control+z")
    expect(page.locator(".chips")).to_contain_text("head 0.0")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("the layer before or after")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert "locked on" in page.locator(".chip").inner_text()


def test_search_finds_words_and_numbers(opened: Opened) -> None:
    page = opened(f"reading={NEEDLE}&row=10")
    page.keyboard.press("/")
    page.keyboard.type("Lighthouse")
    expect(page.locator(".found")).to_contain_text("1 of 1, number 700")
    expect(page.locator("#pane1-keys-700")).to_have_class(re.compile(r"\bhit\b"))
    page.keyboard.press("Control+Enter")
    row_is(page, 700)
    page.get_by_role("searchbox").fill("#1900")
    expect(page.locator(".found")).to_contain_text("number 1,900")
    page.get_by_role("searchbox").fill("nowhere at all")
    expect(page.locator(".found")).to_contain_text("Nothing like this among 2,048 tokens")
    page.keyboard.press("Escape")
    expect(page.locator(".found")).to_be_hidden()


def test_a_click_locks_and_the_pointer_leads_until_then(opened: Opened) -> None:
    page = opened(f"reading={GENERATED}&row=30")
    page.keyboard.press("Escape")
    expect(page.locator(".chip")).to_contain_text("follows the pointer; Enter locks")
    page.locator("#pane1-keys-12").hover()
    row_is(page, 12)
    assert "row=30" in page.url
    page.locator("#pane1-keys-20").hover()
    row_is(page, 20)
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_contain_text("locked on the")
    assert "row=20" in page.url
    page.locator("#pane1-keys-7").hover()
    expect(page.locator(".textcap")).to_contain_text(re.compile(r"burned, 7: [<\d]"))
    row_is(page, 20)
    page.locator("#pane1-keys-3").click(modifiers=["Shift"])
    expect(page.locator(".say")).to_contain_text("clear, 17 tokens back")
    page.locator("#pane1-keys-25").click()
    row_is(page, 25)


def test_later_is_hatched_and_said(opened: Opened) -> None:
    page = opened(f"reading={GENERATED}&row=5")
    expect(page.locator("#pane1-keys-6")).to_have_class(re.compile(r"\blater\b"))
    assert page.locator("#pane1-keys-6").get_attribute("title") == "6: later: not seen"
    assert "Hatched is later: not seen." in page.locator(".textcap").inner_text()
    assert "later tokens: exactly 0" in page.locator(".trust").inner_text()


def test_odd_tokens_stand_where_they_should(opened: Opened) -> None:
    page = opened(f"reading={ODD}&row=100")
    assert page.title() != "bad"
    shown = page.evaluate(
        "[...document.querySelectorAll('#pane1-keys .t')].map(e => [+e.dataset.j % 22, e.textContent])"
    )
    marks = {2: "∅", 3: "⏎", 4: "⏎⏎", 5: "⇥", 6: "␣", 7: "␣␣␣", 12: "‹200B›", 13: "␀", 19: "␍⏎"}
    assert {token: text for token, text in shown if token in marks} == marks
    assert dict(shown)[1] == "<script>document.title='bad'</script>"
    wide = (
        "[...document.querySelectorAll('#pane1-keys .ln')].every(e => e.scrollWidth <= e.parentElement.clientWidth + 4)"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(f"{wide} || getComputedStyle(document.querySelector('.space')).overflowX === 'clip'")
    assert "Not what the model used" not in page.locator(".trust").inner_text()
    assert "The output differs from the model's by 0.3." in page.locator(".trust").inner_text()


def test_generation_steps_lead_to_the_row_that_chose(opened: Opened) -> None:
    page = opened(f"reading={GENERATED}")
    slider = page.get_by_role("slider", name="Step")
    slider.fill("0")
    row_is(page, len(texts.PROMPT) - 1)
    assert page.locator(".made .on").inner_text() == texts.MADE[0].strip()
    expect(page.locator(".gen")).to_contain_text("step 1 of 4, row 39")
    page.get_by_role("button", name="Next step").click()
    row_is(page, len(texts.PROMPT))
    assert page.locator(".made .on").inner_text() == texts.MADE[1].strip()


def test_heads_are_joined_and_bracketed(opened: Opened) -> None:
    page = opened(f"reading={GENERATED}&layer=4")
    assert page.locator(".headpick .br").all_inner_texts() == ["key 0", "key 1"]
    page.locator(".headpick [data-head='2']").click(modifiers=["Control"])
    expect(page.locator(".say")).to_contain_text("In the mean of heads 0, 2,")
    page.locator(".headpick [data-head='4']").click(modifiers=["Shift"])
    expect(page.locator(".chips")).to_contain_text("mean of 4 heads")
    page.get_by_role("radio", name="max", exact=True).first.click()
    expect(page.locator(".say")).to_contain_text(re.compile("^Over heads 0, 2, 3, 4, .* puts at most "))
    page.get_by_role("radio", name="one head").click()
    expect(page.locator(".chips")).to_contain_text("head 4.0")


def test_without_the_first_it_is_left_out_and_said(opened: Opened) -> None:
    page = opened(f"reading={SMALL}")
    first = page.locator(".mass [data-pick='0'] .wt").inner_text()
    page.get_by_label("without the first token").check()
    expect(page.locator(".answer .headline")).to_contain_text(f"The first token holds {first}")
    expect(page.locator(".mass [data-pick='0']")).to_have_count(0)
    assert "of the rest" in said(page)


def test_two_texts_stand_one_above_the_other(opened: Opened) -> None:
    page = opened(f"reading={ALIGNED}&layer=1&heads=2&row=1")
    expect(page.locator(".textpane h2")).to_have_text(["Reads 16 queries", "Is read 15 keys"])
    expect(page.locator(".say")).to_contain_text("Fähre puts")
    expect(page.locator(".say")).to_contain_text("on ferry.")
    page.locator("#pane1-queries-4").click()
    expect(page.locator(".say")).to_contain_text("Insel puts")
    page.locator("#pane1-keys-0").click()
    expect(page.locator(".say")).to_contain_text("on The")
    assert "rests" not in said(page)


def test_two_views_move_together_and_close(opened: Opened) -> None:
    page = opened(f"reading={NEEDLE}&row=800&panes=2&reading2={NEEDLE}&heads2=1&row2=800")
    page.locator("#pane2-keys").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".chips")).to_contain_text(["row 799", "row 799"])
    page.get_by_label("same rows in both").uncheck()
    page.locator("#pane2-keys").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".chips")).to_contain_text(["row 799", "row 798"])
    page.get_by_role("button", name="Close").first.click()
    expect(page.locator(".chips")).to_have_count(1)
    row_is(page, 798)
    page.keyboard.press("Control+z")
    expect(page.locator(".chips")).to_contain_text(["row 799", "row 798"])


def test_only_the_last_answer_is_drawn(opened: Opened, watched: Watched) -> None:
    page = opened(f"reading={NEEDLE}&row=1000")
    held: list[Route] = []
    page.route("**/ask/line", lambda route: held.append(route))
    page.locator("#pane1-keys").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.locator("#pane1-keys-990").click(modifiers=["Shift"])
    expect(page.locator(".standing")).to_contain_text("Row 998")
    row_is(page, 1000)  # the last whole answer
    assert page.locator("#pane1-keys-990").get_attribute("title") == f"990: {weight_of(0, 1000, 990)}"
    for route in reversed(held):
        route.continue_()
    row_is(page, 998)
    page.wait_for_timeout(200)
    row_is(page, 998)
    assert page.locator("#pane1-keys-990").get_attribute("title") == f"990: {weight_of(0, 998, 990)}"
    expect(page.locator(".say")).to_contain_text(f"{weight_of(0, 998, 990)} on")
    watched.complaints.clear()  # an abandoned request is one


def test_the_last_answer_stays_when_the_server_is_gone(opened: Opened, watched: Watched) -> None:
    page = opened(f"reading={NEEDLE}&row=1500")
    expect(page.locator(".say")).not_to_contain_text("number")  # names have come
    before = said(page)
    page.route("**/ask/line", lambda route: route.abort())
    page.locator("#pane1-keys").focus()
    page.keyboard.press("ArrowLeft")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server on this computer no longer answers.")
    expect(alert).to_contain_text("What you see is the last answer, row 1,500 of head 0.0.")
    assert said(page) == before
    page.unroute("**/ask/line")
    alert.get_by_role("button", name="Try again").click()
    row_is(page, 1499)
    expect(alert).to_have_count(0)
    watched.complaints.clear()  # the refused request


def test_values_that_were_not_kept_are_not_offered(opened: Opened) -> None:
    page = opened(f"reading={NEEDLE}&row=1500&measure=value")  # an address of another reading, say
    expect(page.locator(".trust")).to_contain_text("Times the value’s length: no values were kept")
    expect(page.get_by_role("button", name="Times the value")).to_be_disabled()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert "measure" not in page.url


def test_another_text_is_read(opened: Opened) -> None:
    page = opened(f"reading={SMALL}")
    page.get_by_role("button", name="Read another text").click()
    page.get_by_role("textbox", name="Text").fill("The cat sat.")
    page.get_by_role("button", name="Read it").click()
    expect(page.locator("#pane1-keys")).to_contain_text("<s>The cat sat.")


@pytest.mark.parametrize("watched", [{"permissions": ["clipboard-read", "clipboard-write"]}], indirect=True)
@pytest.mark.parametrize("state", [
    "layer=2&heads=1&row=5", "layer=1&heads=0 2&join=mean&by=column&column=3", "layer=2&heads=1&row=5&measure=value",
    "layer=3&heads=0 1 2&join=max&row=6&measure=value&without=true", "by=column&column=2&measure=value",
])  # fmt: skip
def test_copied_python_prints_the_list(opened: Opened, state: str, capsys: Any) -> None:
    page = opened(f"reading={SMALL}&{state}")
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    exec(page.evaluate("navigator.clipboard.readText()"), {})  # noqa: S102
    printed = [tuple(map(float, line.strip("()").split(", "))) for line in capsys.readouterr().out.splitlines()]
    items = page.evaluate("[...document.querySelectorAll('.mass [data-pick]')].map(e => +e.dataset.pick)")
    assert [int(item) for item, weight in printed if weight > 0][:5] == items[:5]


@pytest.mark.parametrize(
    "watched", [{"viewport": {"width": 360, "height": 800}}, {"color_scheme": "dark"}], indirect=True
)
@pytest.mark.parametrize("reading", [NEEDLE, ODD, GENERATED, ALIGNED])
def test_nothing_is_cut_or_unnamed(opened: Opened, axe: str, reading: int) -> None:
    page = opened(f"reading={reading}")
    page.locator("#pane1-keys").evaluate("e => { e.scrollTop = e.scrollHeight }")
    expect(page.locator(".trust")).to_contain_text("Not checked" if reading != GENERATED else "Checked")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelectorAll('*').length") < 3000
    page.evaluate(axe)
    found = page.evaluate(
        "async () => (await axe.run('.pane', {preload: false})).violations.map(v => [v.id, v.nodes[0].html])"
    )
    assert found == []
