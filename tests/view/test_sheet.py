"""The sheet of all heads: asked layer by layer, stopped, read by keyboard, sorted, and as a table."""

import re

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from clearhead.reading.sheet import measured
from clearhead.wording import percent
from tests.view.made_up import hostile_reading
from tests.view.test_kept import hostile, opened, shown

__all__ = ["hostile", "opened"]  # fixtures

STACK = hostile_reading().stack()
HEADS = {
    f"{number}.{head['head']}": head
    for number, layer in STACK.layers.items()
    for head in measured(STACK, layer, list(layer.heads))
}


def leaders(by: str) -> list[str]:
    """Heads by a measure, the largest first."""
    return sorted(HEADS, key=lambda name: -HEADS[name][by])


def test_rankings_are_the_measures(opened: Page, hostile: str) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    page = shown(opened)
    for title, by in (
        ("Continues a repeat", "induction"),
        ("Rests on the first", "first"),
        ("Finds itself again", "duplicate"),
    ):
        lines = page.locator(".rank", has=page.get_by_role("heading", name=title)).locator("li")
        assert lines.locator(".hd").all_inner_texts() == leaders(by)[:5]
        assert percent(HEADS[leaders(by)[0]][by]) in lines.first.inner_text().replace("\n", " ")
    row = np.array([np.asarray(layer.weights)[:, 30, 4] for layer in STACK.layers.values()])
    pair = page.locator("[data-key=pair] li")
    assert percent(float(row.max())) in pair.first.inner_text()
    page.locator("[data-key=heaviest] button").nth(1).click()
    expect(page.locator("[data-key=heaviest] li").nth(1)).to_have_class("on")
    assert "row=30" in page.url


def test_the_keyboard_reads_heads_and_chooses_one(opened: Page, hostile: str) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    page = shown(opened)
    grid = page.get_by_role("grid", name="Heads")
    assert grid.locator("[tabindex='0']").count() == 1
    grid.locator("[role=gridcell]").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Layer 3, head 1"
    expect(page.locator(".sheettold")).to_contain_text(
        f"Head 3.1, key head 0: as if spread over {HEADS['3.1']['effective']:.1f}"[:30]
    )
    expect(page.get_by_role("status").last).to_contain_text(f"{percent(HEADS['3.1']['first'])} on the first")
    page.keyboard.press("Enter")
    expect(page.locator(".rank .on .hd").first).to_have_text("3.1")
    assert re.search(r"layer=3&heads=1\b", page.url)
    assert page.evaluate("document.activeElement.getAttribute('role')") == "gridcell"


def test_thumbnails_are_chosen_by_a_click_and_sorted(opened: Page, hostile: str) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    page = shown(opened)
    expect(page.locator(".kvs li")).to_have_count(2)
    sheet = page.locator(".thumbbox")
    sheet.click(position={"x": 20, "y": sheet.bounding_box()["height"] - 20})
    expect(page.locator(".rank .on .hd").first).to_have_text("3.3")
    page.get_by_role("radio", name="by what they do").click()
    page.locator(".sortby select").select_option(label="Looks one back")
    expect(page.locator(".sheet .headline .cap")).to_contain_text("just before. Largest first")
    sheet.click(position={"x": 20, "y": 20})
    expect(page.locator(".rank .on .hd").first).to_have_text(leaders("previous")[0])
    assert "sheet=rank" in page.url


def test_the_table_has_every_number_and_sorts(opened: Page, hostile: str) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    page = shown(opened)
    assert page.locator(".sheet *").count() <= 800
    page.locator("[data-all=previous]").click()
    rows = page.locator(".headtable tbody tr")
    expect(rows).to_have_count(8)
    expect(rows.locator("th")).to_have_text(leaders("previous"))
    assert percent(HEADS[leaders("previous")[0]]["previous"]) in rows.first.inner_text()
    expect(page.locator(".headtable [aria-sort=descending]")).to_have_text(re.compile("Looks one back"))
    page.get_by_role("button", name=re.compile("Looks one back")).last.click()
    expect(rows.locator("th")).to_have_text(leaders("previous")[::-1])
    for meaning in page.locator(".meanings dd").all_inner_texts():
        assert meaning.endswith(".")


def test_what_is_stopped_stays_and_is_labelled(opened: Page, hostile: str) -> None:
    held: list[Route] = []

    def first_only(route: Route) -> None:
        if '"layer":3' in (route.request.post_data or ""):
            route.continue_()
        else:
            held.append(route)

    opened.route("**/ask/sheet", first_only)
    opened.goto(f"{hostile}#layer=3&heads=2")
    expect(opened.locator(".sheetstate")).to_contain_text("4 of 8 heads")
    opened.locator(".sheetstate").get_by_role("button", name="Stop").click()
    expect(opened.locator(".sheetstate")).to_contain_text("Incomplete: 4 of 8 heads.")
    expect(opened.locator(".rank .hd").first).to_be_visible()
    assert len(held) == 1
    opened.unroute("**/ask/sheet")
    opened.get_by_role("button", name="Go on").click()
    expect(opened.locator(".sheetstate")).to_have_text("")


@pytest.mark.parametrize("width", [360, 900])
def test_the_sheet_scrolls_in_its_own_frame(browser: Browser, hostile: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(hostile)
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
