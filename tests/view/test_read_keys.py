"""Read by keyboard alone, and by ear: both journeys without a mouse, focus that is never lost, what is spoken."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.view.known import READINGS
from tests.view.read_page import ReadPage, plain

Reads = Callable[..., ReadPage]
FOCUS = "document.activeElement"


class Keys:
    """A page that is given keys; focus may not fall back to the whole page by any of them."""

    def __init__(self, read: ReadPage) -> None:
        self.read, self.page = read, read.page

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, and wait for what they bring."""
        for key in keys:
            self.page.keyboard.press(key)
            self.read.rest(2)
            assert self.page.evaluate(f"{FOCUS} !== document.body"), f"{key} loses the focus"

    def tab_to(self, selector: str, key: str = "Tab") -> None:
        """Tab to an element."""
        for _ in range(150):
            self.page.keyboard.press(key)
            if self.page.evaluate(f"selector => {FOCUS}.matches(selector)", selector):
                return
        raise AssertionError(f"{key} never comes to {selector}")

    def hear(self, text: str | re.Pattern[str]) -> str:
        """Wait until a screen reader says a text, and return all that it says."""
        status = self.page.get_by_role("status").last
        expect(status).to_have_text(text)
        return plain(status.inner_text())


def test_from_a_word_to_what_it_reads_and_on(reads: Reads, small: str) -> None:
    keys = Keys(read := reads(small))
    page = read.open()
    page.keyboard.press("/")
    page.keyboard.type("captain")
    expect(page.locator(".found")).to_contain_text("1 of 2")
    keys.hear(re.compile("1 of 2, number"))
    keys.press("Enter")
    first = read.sentence()
    assert first.split()[0].rstrip("“”") in "captain"
    keys.hear(first)
    keys.press("Escape")
    assert page.evaluate(f"{FOCUS}.getAttribute('role')") == "listbox"
    expect(page.locator(".find input")).to_have_value("")

    at = int(page.url.partition("row=")[2].partition("&")[0])
    keys.press("ArrowRight")
    assert f"row={at + 1}" in page.url
    assert keys.hear(read.sentence()) != first
    keys.press("ArrowLeft")
    assert read.sentence() == first
    for key, state in (
        ("Home", "row=0"),
        ("End", "row="),
        ("PageUp", "row="),
        ("ArrowUp", "row="),
        ("ArrowDown", "row="),
    ):
        before = page.url
        keys.press(key)
        assert state in page.url
        assert page.url != before, key
        expect(page.locator(".looker")).to_be_in_viewport()
        active = page.evaluate(f"{FOCUS}.getAttribute('aria-activedescendant')")
        assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    keys.press("Shift+ArrowLeft")
    assert "column=" in page.url

    head = page.locator(".headpick [aria-checked=true]")
    keys.press(".", ".", ",", "]", "]", "[")
    expect(head).to_have_text("1")
    assert "layer=1" in page.url
    expect(page.get_by_label("Layer", exact=True).last).to_have_value("1")

    keys.tab_to(".mass button")
    keys.press("ArrowDown", "ArrowDown")
    assert page.evaluate(f"{FOCUS}.dataset.rank") == "3"
    third = read.listed()[2]
    keys.press("Enter")
    assert page.evaluate(f"{FOCUS}.dataset.rank") == "3"
    assert f"column={third.item}" in page.url
    expect(page.locator(".say em")).to_have_text(third.weight)
    expect(page.locator(".mass .target .rk")).to_have_text("3")

    keys.tab_to(".cells [role=gridcell]")
    keys.press("ArrowLeft")
    row, column = (int(n) for n in page.evaluate(f"{FOCUS}.dataset.key").split(","))
    shown = read.cells()[row, column]
    said = keys.hear(re.compile(f"^row {row}, .*column {column}, "))
    assert shown.removesuffix(" %")[:3] in said
    keys.press("Enter")
    assert f"column={column}" in page.url
    assert page.evaluate(f"{FOCUS}.getAttribute('aria-selected')") == "true"
    keys.press("Control+z")
    assert page.evaluate(f"{FOCUS}.closest('.cells') !== null")


def test_another_row_is_heard_even_if_it_reads_the_same(reads: Reads, small: str) -> None:
    keys = Keys(read := reads(small))
    page = read.open("row=5")
    field = page.get_by_role("searchbox")
    field.fill("captain")
    keys.press("Enter")
    said = keys.hear(read.sentence())
    keys.press("Enter")
    expect(page.locator(".found")).to_contain_text("2 of 2")
    assert read.sentence() == said
    page.wait_for_timeout(300)  # until all is said
    keys.hear(said)


def test_the_map_the_sheet_and_two_views(reads: Reads, known: str) -> None:
    keys = Keys(read := reads(known))
    page = read.open(f"reading={list(READINGS).index('700')}&layer=2&heads=0&row=600")
    keys.tab_to(".mapbox")
    keys.press("ArrowLeft", "ArrowUp", "Shift+ArrowLeft")
    keys.hear(re.compile("^rows "))
    before = page.locator(".mappane .status").inner_text()
    keys.press("+", "+", "+", "+", "+")
    assert page.locator(".mappane .status").inner_text() != before
    assert page.locator(".mappane .status").inner_text() == "Every square is one weight."
    keys.press("ArrowLeft")
    said = keys.hear(re.compile("^[^s].* puts "))
    address = page.url
    keys.press("Enter")
    assert page.url != address
    assert plain(page.locator(".mappane .where").inner_text()).startswith(said)
    keys.press("0")
    assert page.locator(".mappane .status").inner_text() == before

    keys.tab_to(".heads [role=gridcell]")
    keys.press("ArrowRight", "ArrowDown")
    assert page.evaluate(f"{FOCUS}.getAttribute('aria-label')") == "Layer 5, head 1"
    keys.hear(re.compile("Layer 5, head 1: as if spread over "))
    keys.press("Enter")
    assert "layer=5" in page.url
    assert "heads=1" in page.url

    keys.tab_to("[data-key='first most'] li button")
    keys.press("Enter")
    assert page.evaluate(f"{FOCUS}.getAttribute('aria-current')") == "true"
    keys.tab_to("[data-go=compare]", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".pane")).to_have_count(2)
    keys.tab_to(".pane + .pane [data-head]")
    keys.press("ArrowRight")
    read.rest_long()
    assert read.sentence(0) != read.sentence(1)
    keys.tab_to(".pane + .pane [data-do=close]")
    page.keyboard.press("Enter")
    expect(page.locator(".pane")).to_have_count(1)


def test_focus_stays_when_a_view_opens_and_closes(reads: Reads, small: str) -> None:
    keys = Keys(read := reads(small))
    page = read.open("row=20")
    page.get_by_role("button", name="Compare").focus()
    keys.press("Enter")
    page.locator(".pane + .pane").get_by_role("button", name="Close").focus()
    keys.press("Enter")
    page.get_by_role("button", name="Undo").focus()
    keys.press("Enter")
    page.locator(".pane").first.get_by_role("button", name="Close").focus()
    keys.press("Enter")
    page.get_by_role("button", name="Undo").focus()
    keys.press("Enter", "Enter", "Enter")  # until there is nothing left to undo


def test_escape_always_backs_out(reads: Reads, small: str) -> None:
    keys = Keys(read := reads(small))
    page = read.open("row=50")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    for name in ("Export", "Appearance"):
        summary = (
            page.locator("summary", has_text=name) if name == "Export" else page.locator(f"summary[aria-label={name}]")
        )
        summary.focus()
        keys.press("Enter")
        expect(page.locator(".menu[open]")).to_have_count(1)
        keys.press("Escape")
        expect(page.locator(".menu[open]")).to_have_count(0)
        expect(summary).to_be_focused()
    chip = page.locator(".chip")
    expect(chip).to_contain_text("locked on")
    keys.press("Escape")
    expect(chip).to_contain_text("follows the pointer; Enter locks")
    keys.hear("follows the pointer; Enter locks")
    page.locator(".text .t:visible").nth(30).hover()
    read.rest()
    followed = read.sentence()
    page.get_by_role("listbox", name="Text", exact=True).focus()
    keys.press("Enter")
    expect(chip).to_contain_text("locked on")
    assert read.sentence() == followed
    assert "row=50" not in page.url
    page.locator(".text .t:visible").nth(7).hover()
    expect(page.locator(".textcap")).to_contain_text(re.compile(r", 7: [<\d]"))
    assert read.sentence() == followed
    page.locator(".text .t:visible").nth(7).click(modifiers=["Shift"])
    assert "column=7" in page.url


def test_search_finds_words_and_numbers(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("row=20")
    page.keyboard.press("/")
    page.keyboard.type("white WHALE")
    expect(page.locator(".found")).to_contain_text(re.compile("^1 of 2, number"))
    assert "".join(page.locator(".text .hit").all_inner_texts()) == "whitewhale" * 2
    field = page.get_by_role("searchbox")
    field.fill("#50")
    expect(page.locator(".found")).to_contain_text("1 of 1, number 50")
    field.press("Enter")
    read.rest()
    assert "row=50" in page.url
    field.fill("nowhere at all")
    expect(page.locator(".found")).to_contain_text(
        f"Nothing like this among {page.locator('.text .t:visible').count()} tokens"
    )
    field.press("Escape")
    expect(page.locator(".found")).to_be_hidden()
    assert page.locator(".text .hit").count() == 0


def test_help_names_keys_that_work(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open()
    page.get_by_role("button", name="Keys").click()
    dialog = page.get_by_role("dialog", name="Keys")
    told = dialog.locator("dt").all_inner_texts()
    for key in ("← →", "Home End", "PgUp PgDn", "Enter, Esc", "[ ]", ", .", "/", "?"):
        assert key in told
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()


def focus_stops(page: Page) -> list[str]:
    """What Tab comes to, from the top of the page once round."""
    stops: list[str] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        stop = page.evaluate(f"{FOCUS} === document.body ? '' : {FOCUS}.outerHTML.slice(0, 90)")
        if not stop:
            return stops
        stops.append(stop)
    raise AssertionError("focus is trapped")


@pytest.mark.parametrize("state", ["row=30", "panes=2&heads2=1"])
def test_each_grid_and_list_is_one_stop_and_focus_is_never_trapped(reads: Reads, small: str, state: str) -> None:
    read = reads(small)
    page = read.open(state)
    read.rest_long()
    stops = focus_stops(page)
    panes = page.locator(".pane").count()
    assert len(stops) < 25 + 55 * panes
    for role in ("gridcell", "listbox"):
        assert len([stop for stop in stops if f'role="{role}"' in stop]) == panes * (2 if role == "gridcell" else 1)
    assert len([stop for stop in stops if "data-pick" in stop]) == panes
