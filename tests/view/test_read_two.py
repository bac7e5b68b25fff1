"""Two views side by side, and how one comes back to what was seen: undo, redo, the address, the browser's back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import expect

import clearhead
from tests.view.printed import nearly, percent
from tests.view.read_page import ReadPage, plain

Reads = Callable[..., ReadPage]


def shown(read: ReadPage, pane: int) -> list[str]:
    """A pane's own words and numbers."""
    pane_ = read.pane(pane)
    parts = (".chips", ".say", ".mass", ".cells", ".trust", ".legend")
    return [plain(text) for part in parts for text in pane_.locator(part).all_inner_texts()]


def test_before_and_after_an_intervention(reads: Reads, compared: str, watches: tuple[Path, Path]) -> None:
    from tests.view.watches import exact_weights

    read, row = reads(compared), 30
    read.open()
    expect(read.page.locator(".pane")).to_have_count(2)
    page = read.open(f"layer=1&heads=2&row={row}")
    page.get_by_role("button", name="Compare").click()
    read.rest()
    menus = page.get_by_label("What is read")
    assert [menu.input_value() for menu in menus.all()] == ["0", "1"]
    assert "before.safetensors" in menus.nth(0).inner_text()
    before, after = (clearhead.load_watch(path) for path in watches)
    exact = exact_weights(before.tokens())[1, 2, row]
    changed = np.asarray(after.layer(1).head(2).weights)[row]
    assert np.abs(exact - changed).max() > 0.01
    for pane, line in ((0, exact), (1, changed)):
        order = np.argsort(-line, kind="stable")
        for place, item in zip(order, read.listed(pane), strict=False):
            assert item.item == place
            assert nearly(item.weight, percent, line[place], 1e-5)
    assert "30" in read.pane(1).locator(".chips").inner_text()


def test_rows_go_together_as_long_as_they_are_linked(reads: Reads, compared: str) -> None:
    read = reads(compared)
    page = read.open("panes=2&reading2=1&layer=1&layer2=1&row=20&row2=20")
    read.pane(0).locator(".text .t:visible").nth(12).click()
    read.rest()
    assert "row=12" in page.url
    assert "row2=12" in page.url
    for pane in (0, 1):
        expect(read.pane(pane).locator(".chips")).to_contain_text("row 12")
        expect(read.pane(pane).locator(".looker")).to_have_attribute("data-j", "12")
    read.pane(1).get_by_role("radio", name="who reads it").click()
    read.rest()
    expect(read.pane(0).locator(".chips")).to_contain_text("column 12")
    page.get_by_label("same rows in both").uncheck()
    read.pane(1).get_by_role("radio", name="what it reads").click()
    read.pane(1).locator(".text .t:visible").nth(33).click()
    read.rest()
    expect(read.pane(1).locator(".chips")).to_contain_text("row 33")
    expect(read.pane(0).locator(".chips")).to_contain_text("column 12")
    asked = [(one["reading"], one["by"], one["at"]) for one in read.asked_of("line")]
    assert asked[-1] == (1, "row", 33)
    read.pane(0).get_by_role("button", name="Close").click()
    expect(page.locator(".pane")).to_have_count(1)
    expect(page.locator(".chips")).to_contain_text("row 33")
    assert page.get_by_label("What is read").input_value() == "1"


def test_two_heads_of_one_text(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("row=50&heads=1")
    page.get_by_role("button", name="Compare").click()
    read.pane(1).get_by_role("radio", name="head 3", exact=True).click()
    read.rest_long()
    assert "heads=1&" in page.url
    assert "heads2=3" in page.url
    two = [shown(read, pane) for pane in (0, 1)]
    assert two[0] != two[1]
    for pane, heads in ((0, 1), (1, 3)):
        other = reads(small)
        other.open(f"layer=0&row=50&heads={heads}&column={read.listed(pane)[0].item}")
        read.pane(pane).locator(f"[data-pick='{read.listed(pane)[0].item}']").click()
        read.rest()
        assert shown(other, 0)[1:3] == shown(read, pane)[1:3]


def test_undo_redo_the_address_and_back(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("row=50")
    seen = [(page.url, shown(read, 0))]

    def then(act: Callable[[], None]) -> None:
        act()
        read.rest()
        seen.append((page.url, shown(read, 0)))

    text = page.locator(".text .t:visible")
    then(lambda: text.nth(20).click())
    then(lambda: page.get_by_role("radio", name="head 2", exact=True).click())
    then(lambda: page.get_by_role("radio", name="mean", exact=True).first.click())
    then(lambda: page.get_by_label("without the first token").check())
    then(lambda: page.get_by_role("button", name="Times the value’s length").click())
    then(lambda: page.get_by_role("radio", name="who reads it").click())
    assert len({url for url, _ in seen}) == len(seen)
    for url, told in seen[-2::-1]:
        page.get_by_role("button", name="Undo").click()
        read.rest()
        assert (page.url, shown(read, 0)) == (url, told)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    for url, told in seen[1:]:
        page.keyboard.press("Control+Shift+Z")
        read.rest()
        assert (page.url, shown(read, 0)) == (url, told)
    expect(page.get_by_role("button", name="Redo")).to_be_disabled()

    url, told = seen[4]
    another = reads(small)
    another.open(url.partition("#")[2])
    assert shown(another, 0) == told, "the address reopens what it was copied from"

    page.evaluate("s => { location.hash = s }", "row=7")
    read.rest()
    expect(page.locator(".chips")).to_contain_text("row 7")
    page.go_back()
    read.rest()
    assert shown(read, 0) == seen[-1][1]


def test_an_address_of_nonsense_shows_what_is_nearest(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("reading=99&layer=77&heads=500&row=100000&column=999999&join=median&how=x&by=diagonal")
    assert page.locator(".say em").count() == 1
    last = read.asked_of("line")[-1]
    assert (last["reading"], last["layer"], last["heads"], last["by"]) == (0, 0, [0], "row")
    for state in ("row=-5", "heads=&row=1e3", "part=none", "panes=7", "panes=2&row2=x", "%%%", "row=3&row=4"):
        read.go(state)
        assert read.pane(0).locator(".mass [data-pick]").count() > 0
        assert read.pane(0).get_by_role("alert").count() == 0
