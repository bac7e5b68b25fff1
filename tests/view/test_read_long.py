"""Long texts: a needle is found in a few actions, and neither the answers nor the page grow with the text."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from playwright.sync_api import Page, Route, expect

from clearhead.definition import weights as definition
from clearhead.rules.masks import full
from tests.view.conftest import serving
from tests.view.needle import NEEDLE, needle_operands
from tests.view.printed import nearly, percent, whole
from tests.view.read_page import ReadPage

ITEMS = 32_768
MOST_BYTES, MOST_ELEMENTS, MOST_HEAP = 300_000, 3_000, 150 << 20
Reads = Callable[..., ReadPage]

# What is drawn over the map, in pixels of the box: circles and rounded frames with their colour, and texts.
RECORDED = """(() => {
  const own = CanvasRenderingContext2D.prototype;
  for (const name of ['arc', 'roundRect', 'fillText', 'setTransform']) {
    const before = own[name];
    own[name] = function (...args) {
      if (name === 'setTransform') this.canvas.drawn = []; // a new picture
      else {
        const { e, f } = this.getTransform();
        const style = name === 'fillText' ? this.fillStyle : this.strokeStyle;
        this.canvas.drawn?.push([name, style, e, f, ...args]);
      }
      return before.apply(this, args);
    };
  }
})()"""


def marks(page: Page, kind: str) -> list[list[Any]]:
    """What of a kind is drawn over the map."""
    drawn = page.locator(".mapbox .marks").evaluate("canvas => canvas.drawn")
    return [told for name, *told in drawn if name == kind]


def elements(page: Page) -> int:
    """How many elements the page has."""
    return page.evaluate("document.querySelectorAll('*').length")


def heap(page: Page) -> float:
    """Bytes that the page's scripts hold."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    found = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return found["JSHeapUsedSize"]


def answer_sizes(page: Page) -> list[tuple[str, int]]:
    """Bytes of all that comes, as it comes."""
    found: list[tuple[str, int]] = []
    page.on("response", lambda got: found.append((got.url, int(got.headers["content-length"]))))
    return found


def check_bounds(page: Page, sizes: list[tuple[str, int]]) -> None:
    """Nothing has grown with the text."""
    assert [size for size in sizes if size[1] > MOST_BYTES] == []
    assert elements(page) < MOST_ELEMENTS
    assert heap(page) < MOST_HEAP


def scroll_through(read: ReadPage) -> None:
    """Scroll the text from the first line to the last, by the screen and in leaps."""
    text = read.page.get_by_role("listbox", name="Text", exact=True)
    for part in (0, 0.1, 0.5, 0.9, 1):
        text.evaluate("(e, part) => { e.scrollTop = part * e.scrollHeight }", part)
        read.page.wait_for_timeout(60)
        assert elements(read.page) < MOST_ELEMENTS
        assert text.locator(".t").count() > 50


def test_the_needle_is_found_in_two_actions(reads: Reads, needle: str) -> None:
    read = reads(needle)
    read.page.add_init_script(RECORDED)
    sizes = answer_sizes(read.page)
    page = read.open()
    check_bounds(page, sizes)
    scroll_through(read)

    page.get_by_role("searchbox").fill("where?")  # one action: type what asks, and choose it
    page.get_by_role("searchbox").press("Control+Enter")
    read.rest()
    before = len(read.asked_of("line"))
    page.get_by_role("radio", name="head 1", exact=True).click()  # two
    read.rest(10)

    assert len(read.asked_of("line")) == before + 1
    q, k, _ = needle_operands(ITEMS)
    asks, answers = NEEDLE
    row = definition.weights(*(x[1].astype(np.float64) for x in (q[:, asks : asks + 1], k[:, : asks + 1])), mask=full())
    weight = float(row[0, answers])
    assert weight > 0.5
    assert read.sentence().startswith("where? puts ")
    assert f"on lighthouse, {whole(asks - answers)} tokens back" in read.sentence()
    first = read.listed()[0]
    assert (first.word.strip(), first.item) == ("lighthouse", answers)
    for told in (page.locator(".say em").inner_text(), first.weight, read.cells()[asks, answers]):
        assert nearly(told, percent, weight)
    expect(page.locator(".text .target")).to_have_text("lighthouse")
    expect(page.locator(".text .target")).to_be_in_viewport()

    box = page.locator(".mapbox").bounding_box()
    assert box is not None
    place = [answers / ITEMS * box["width"], asks / ITEMS * box["height"]]
    style, _, _, *centre = marks(page, "arc")[-1]
    np.testing.assert_allclose(centre[:2], place, atol=1.5)
    told = [text for colour, _, _, text, *_ in marks(page, "fillText") if colour == style]
    assert told == [first.weight]
    check_bounds(page, sizes)

    asked = len(read.asked)
    page.locator(".text .t:not(.later):visible").nth(20).click()
    read.rest(10)
    told = {request.url.rpartition("/")[2] for request in read.asked[asked:]}
    assert told <= {"line", "pair", "heaviest", "tile"}, "a row asks for more than itself"
    assert len(read.asked_of("line")) == before + 2
    scroll_through(read)
    check_bounds(page, sizes)


def without_map(route: Route) -> None:
    """Answer for Python, which would look at all pairs, with an empty strip."""
    asked = route.request.post_data_json
    about = {name: asked[name] for name in ("z", "r", "c", "from", "to")} | {"rings": [], "ms": 0}
    head = json.dumps(about).encode()
    head += b" " * (-len(head) % 4)
    body = len(head).to_bytes(4, "little") + head + bytes(1024 * (asked["to"] - asked["from"]))
    route.fulfill(body=body, headers={"content-type": "application/octet-stream", "content-length": str(len(body))})


def test_four_times_as_long_a_text_is_as_light(reads: Reads) -> None:
    with serving("tests.view.needle", "131072") as address:
        read = reads(address)
        sizes = answer_sizes(read.page)
        read.page.route("**/ask/tile", without_map)
        page = read.open()
        expect(page.get_by_role("button", name="Draw all 2 heads")).to_be_visible()
        assert read.asked_of("sheet") == [], "what takes long is asked for by hand"
        scroll_through(read)
        expect(page.locator(".text .t:visible").last).to_have_attribute("data-j", "131071")
        page.get_by_role("searchbox").fill("where?")
        page.get_by_role("searchbox").press("Control+Enter")
        page.get_by_role("radio", name="head 1", exact=True).click()
        read.rest()
        assert read.listed()[0].word.strip() == "lighthouse"
        check_bounds(page, sizes)
