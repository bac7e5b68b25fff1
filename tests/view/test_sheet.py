"""The sheet of all heads: asked layer by layer, stopped, read by keyboard, sorted, and as a table."""

import re

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from clearhead.reading.sheet import measured
from clearhead.wording import percent
from tests.view.made_up import HOSTILE, hostile_reading
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
        f"Head 3.1: layer 3, head 1, key head 0. As if spread over {HEADS['3.1']['effective']:.1f}"[:54]
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
    escapes = opened.locator(".sheetstate kbd"), opened.locator(".chip kbd")
    assert [key.is_visible() for key in escapes] == [False, True]
    opened.get_by_role("grid", name="Heads").get_by_role("gridcell").focus()
    assert [key.is_visible() for key in escapes] == [True, False]
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


PICTURES = """async () => {
  const { makeThumbs, placesByLayer } = await import('./static/read/thumbs.js');
  const layers = [{ number: 0, heads: [0, 1], key_heads: [0, 1], queries: 2, keys: 2,
                    sees: { low: null, high: null, offset: 0, other: false } }];
  const head = (...pixels) => ({ pixels: Float32Array.from(pixels), height: 2, width: 2 });
  const thumbs = makeThumbs(), places = placesByLayer(layers);
  document.body.append(thumbs.canvas);
  const seen = () => {
    const pen = new OffscreenCanvas(places.width, places.height).getContext('2d', { willReadFrequently: true });
    pen.drawImage(thumbs.canvas, 0, 0);
    return places.cells.map(({ x, y }) => [...pen.getImageData(x + 5, y + 5, 1, 1).data].join());
  };
  const shows = (...known) => {
    thumbs.update(places, new Map(known), layers);
    return seen();
  };
  const old = shows(['0.0', head(1, 0.5, 0.5, 0.1)], ['0.1', head(0.1, 0.5, 0.5, 1)]);
  const next = shows(['0.0', head(0.1, 0.5, 0.5, 1)], ['0.1', head(1, 0.5, 0.5, 0.1)]);
  return [old, next, shows(['0.0', head(0.1, 0.5, 0.5, 1)])];
}"""  # two texts whose heads have the same places, sizes and scale


def test_no_picture_of_an_old_text_stays(opened: Page, hostile: str) -> None:
    opened.goto(hostile)
    old, following, partly = shown(opened).evaluate(PICTURES)
    assert old[0] != old[1]
    assert following == old[::-1]
    assert partly[0] == following[0]
    assert partly[1].endswith(",0")  # not known yet: only an outline


def test_a_list_is_one_stop_of_the_keyboard_and_names_its_lines(opened: Page, hostile: str) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    page = shown(opened)
    stops = page.locator(".rank").evaluate_all("all => all.map(e => e.querySelectorAll('[tabindex=\"0\"]').length)")
    assert stops == [1] * len(stops)
    lines = page.locator(".rank", has=page.get_by_role("heading", name="Looks one back")).locator("li button")
    first, second = leaders("previous")[:2]
    told = percent(HEADS[first]["previous"])
    expect(lines.first).to_have_accessible_name(f"head {first} looks one back, {told}")
    lines.first.focus()
    page.keyboard.press("ArrowDown")
    expect(lines.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"layer={second[0]}&heads={second[2]}"))
    expect(lines.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("[data-all=previous]")).to_be_focused()


def test_only_the_pair_has_its_colour(opened: Page, hostile: str) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    page = shown(opened)
    colour = "e => getComputedStyle(e)[e.tagName === 'rect' ? 'stroke' : 'color']"
    pair = page.locator(".say em").evaluate(colour)
    ink = page.locator(".sheet h2").evaluate(colour)
    assert page.locator(".thumbbox .pick").evaluate(colour) == ink
    assert {mark.evaluate(colour) for mark in page.locator(".rank .on .hd").all()} == {ink}
    pairs = [mark.inner_text() for mark in page.locator(".rank .pairs:visible").all()]
    weight = percent(float(np.asarray(STACK.layers[5].weights)[2, 30, 4]))
    assert set(pairs) <= {weight}
    assert all(mark.evaluate(colour) == pair for mark in page.locator(".rank .pairs").all())


def test_counts_of_a_list_are_printed_alike(opened: Page, hostile: str) -> None:
    opened.goto(hostile)
    told = opened.evaluate("""async () => {
      const { HEAD_MEASURES: { effective, entropy } } = await import('./static/read/ranks.js');
      const all = (measure, values) => values.map(measure.printer(values));
      return [all(effective, [9.84, 10, 10.26]), all(effective, [10.4, 1234]), all(effective, [0, 0.04, 12]),
              all(entropy, [0, 0.004, 1])];
    }""")
    assert told == [["9.8", "10.0", "10.3"], ["10", "1,234"], ["0.0", "< 0.1", "12.0"], ["0.00", "< 0.01", "1.00"]]


@pytest.mark.parametrize(("width", "columns"), [(360, 1), (560, 2), (1280, 3)])
def test_lists_fill_their_room(browser: Browser, hostile: str, width: int, columns: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(hostile)
    shown(page)
    boxes = [box.bounding_box() for box in page.locator("section.rank").all()]
    assert len({box["x"] for box in boxes}) == columns
    margin = {360: 16, 560: 16, 1280: 24}[width]
    assert max(box["x"] + box["width"] for box in boxes) == pytest.approx(width - margin, abs=1)
    assert page.locator("section.rank").first.get_attribute("data-key") == "heaviest"
    heights = page.locator(".rank button:visible, .headtable button:visible").evaluate_all(
        "all => all.map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 24
    assert page.locator(".thumbs .axis").all_inner_texts() == ["head", "layer"]
    page.close()


def test_before_the_first_head_nothing_is_headed(opened: Page, hostile: str) -> None:
    opened.route("**/ask/sheet", lambda route: None)
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    expect(opened.locator("[data-key=heaviest]")).to_be_visible()
    expect(opened.locator("p.rank")).to_have_text("What heads do is listed here after the first head.")
    assert opened.locator("section.rank").count() == 2


def test_lists_say_what_their_numbers_are(opened: Page, hostile: str) -> None:
    again = 1 + len(HOSTILE)  # the same sign once more
    opened.goto(f"{hostile}#layer=5&heads=2&row={again}&column=1")
    page = shown(opened)
    expect(page.locator(".sheet .headline .cap")).to_contain_text(
        f"in means over all {STACK.layers[5].queries} tokens."
    )
    expect(page.locator("[data-key=pair] h3")).to_have_text(f'Most on “"” (1) from “"” ({again})')
    page.goto(f"{hostile}#layer=5&heads=2&row={again}&column={again}")
    expect(page.locator("[data-key=pair] h3")).to_have_text('Most on itself, “"”')
