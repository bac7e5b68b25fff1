"""The map of the Read screen: its pixels are pooled weights, its numbers weights, and it says how far it has come."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.view.conftest import serving
from tests.view.needle import needle_reading

ITEMS, HEAD = 700, 1
PAIR = (650, 300)
STACK = needle_reading(ITEMS).stack()
STATE = f"heads={HEAD}&row={PAIR[0]}&column={PAIR[1]}"
STEPS_IN_THEME = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const probe = document.body.appendChild(document.createElement('span'));
  return Array.from({ length: 21 }, (_, step) => {
    probe.style.color = `var(--w${step})`;
    pen.fillStyle = getComputedStyle(probe).color;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  });
}"""
PIXELS = """() => {
  const { width, height } = document.querySelector('.pixels');
  const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(document.querySelector('.pixels'), 0, 0);
  return [height, width, [...copy.getImageData(0, 0, width, height).data]];
}"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the made-up text is served."""
    with serving("tests.view.needle", str(ITEMS)) as found:
        yield found.removesuffix("read")


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    """The same weights, all at once."""
    w = STACK.head(0, HEAD)
    return np.stack([w[row] for row in range(ITEMS)])


def opened(watched: Any, state: str = STATE) -> Page:
    """The screen, asking for its map."""
    watched.page.goto("about:blank")
    watched.page.goto(f"{watched.address}read#{state}")
    watched.page.locator(".where").wait_for()
    return watched.page


def complete(watched: Any, state: str = STATE) -> Page:
    """The screen with its whole map."""
    page = opened(watched, state)
    settle(page)
    return page


def settle(page: Page) -> None:
    """Wait for all that was asked for."""
    page.wait_for_load_state("networkidle")
    expect(page.locator(".mappane .status progress")).to_have_count(0)
    page.wait_for_timeout(100)


@pytest.mark.parametrize("how", ["max", "sum", "mean"])
def test_pixels_are_pooled_weights_in_the_legends_colours(watched: Any, matrix: np.ndarray, how: str) -> None:
    page = complete(watched, f"{STATE}&how={how}")
    height, width, data = page.evaluate(PIXELS)
    shown = np.array(data).reshape(height, width, 4)
    cells = int(re.search(r"of (\d)", page.locator(".status .cap").inner_text())[1]) if how == "sum" else 1
    edges = [np.floor(np.arange(n) * ITEMS / n / cells + 1e-7).astype(int) * cells for n in (height, width)]
    pools: Any = {"max": np.maximum, "sum": np.add, "mean": np.add}[how]
    if how == "sum":  # each pixel of the screen shows a pixel of a tile
        whole = pools.reduceat(pools.reduceat(matrix, np.arange(0, ITEMS, cells)), np.arange(0, ITEMS, cells), axis=1)
        expected = whole[np.ix_(edges[0] // cells, edges[1] // cells)]
    else:
        expected = pools.reduceat(pools.reduceat(matrix, edges[0]), edges[1], axis=1)
    if how == "mean":
        counts = [np.diff(np.append(edge, ITEMS)) for edge in edges]
        expected = expected / np.outer(*counts)
    legend = page.locator(".mappane .legend").first.get_attribute("aria-label") or ""
    floor, top = (float(end) for end in re.search(r"from ([\d.e-]+)[ %]* to ([\d.]+)", legend).groups())
    unit = 1 if how == "sum" else 100
    part = np.log(np.maximum(expected * unit, floor) / floor) / np.log(top / floor)
    colours = np.array(page.evaluate(STEPS_IN_THEME))[np.minimum(20, np.round(20 * part)).astype(int)]
    seen = shown[..., 3] > 0
    assert (np.abs(shown - colours).max(axis=-1)[seen] <= 1).mean() > 0.9999  # a sum may round to the next step
    later = edges[1][None, :] > np.append(edges[0], ITEMS)[1:, None] - 1
    assert (seen == ~later).all() or how == "sum"


def test_strips_are_counted_stopped_and_gone_on_with(watched: Any) -> None:
    held: list[Any] = []
    watched.page.route("**/ask/tile", lambda route: held.append(route))
    page = opened(watched)
    status = page.locator(".mappane .status")
    expect(status).to_contain_text(re.compile(r"Map of head 0\.1: 0 of \d+ strips"))
    held.pop(0).continue_()
    expect(status).to_contain_text(re.compile(r": 1 of \d+ strips"))
    page.locator(".mapbox").focus()
    page.keyboard.press("Escape")
    expect(status).to_contain_text(re.compile(r"Incomplete: 1 of \d+ strips"))
    asked = len(held)
    page.unroute("**/ask/tile")
    status.get_by_role("button", name="Go on").click()
    expect(status).to_contain_text("none skipped")
    assert asked <= 4  # at once, however many are wanted


def test_zooming_cancels_what_is_no_longer_shown(watched: Any) -> None:
    page = complete(watched, f"{STATE}&how=mean")
    held: list[Any] = []
    page.route("**/ask/tile", lambda route: held.append(route))
    page.locator(".choices").get_by_role("radio", name="max").click()
    expect(page.locator(".mappane .status")).to_contain_text("0 of")
    page.locator(".mapbox").hover(position={"x": 30, "y": 320})
    asked = len(held)
    with page.expect_event("requestfailed", lambda request: request.url.endswith("tile")):
        page.mouse.wheel(0, -1200)
    page.unroute("**/ask/tile")
    assert asked  # what was given up was on its way


def test_an_error_keeps_the_picture_and_can_be_tried_again(watched: Any) -> None:
    watched.page.route("**/ask/tile", lambda route: route.abort())
    page = opened(watched)
    status = page.locator(".mappane .status")
    expect(status.get_by_role("alert")).to_contain_text(re.compile(r"no longer answers. Incomplete: 0 of \d+ strips"))
    page.unroute("**/ask/tile")
    status.get_by_role("button", name="Try again").click()
    expect(status).to_contain_text("none skipped")
    watched.complaints.clear()  # the browser's own word about the aborted requests


def test_keys_move_zoom_and_choose(watched: Any, matrix: np.ndarray) -> None:
    page = complete(watched)
    page.locator(".mapbox").focus()
    for key in ("ArrowLeft", *"++++++"):
        page.keyboard.press(key)
    settle(page)
    for key in ("ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator(".where")).to_contain_text(f"({PAIR[0] - 1})")
    said = page.locator(".where").inner_text()
    row, column = (int(told) for told in re.findall(r"\((\d+)\)", said))
    assert row == PAIR[0] - 1
    assert column < PAIR[1] - 1
    told = float(re.search(r"puts (?:[<>] )?([\d.]+) %", said)[1])
    assert told == pytest.approx(100 * matrix[row, column], rel=0.06, abs=0.051 if told >= 0.1 else 0.0011)
    expect(page.locator(".mappane .status")).to_have_text("Every square is one weight.")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"row={row}&column={column}"))
    page.locator(".mapbox").focus()
    page.keyboard.press("0")
    expect(page.locator(".mappane .status")).to_contain_text("none skipped")


def test_the_table_holds_the_weights_round_the_pair(watched: Any, matrix: np.ndarray) -> None:
    page = complete(watched)
    table = page.locator(".mappane .cells")
    assert table.locator("[tabindex='0']").count() == 1
    chosen = table.locator("[aria-selected=true]")
    assert chosen.get_attribute("data-key") == f"{PAIR[0]},{PAIR[1]}"
    for cell in table.get_by_role("gridcell").all():
        row, column = map(int, (cell.get_attribute("data-key") or "").split(","))
        told = float(re.sub(r"[^\d.]", "", cell.inner_text()))
        assert told == pytest.approx(100 * matrix[row, column], rel=0.5, abs=0.0011)
    chosen.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"row={PAIR[0] + 1}&column={PAIR[1]}"))


def test_colours_follow_the_theme(watched: Any) -> None:
    page = complete(watched)
    light = page.evaluate(PIXELS)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
    dark = page.evaluate(PIXELS)
    assert light[:2] == dark[:2]
    assert light[2] != dark[2]
    used = {tuple(pixel) for pixel in np.array(dark[2]).reshape(-1, 4).tolist() if pixel[3]}
    steps = page.evaluate(STEPS_IN_THEME)
    assert all(min(np.abs(np.array(pixel) - step).max() for step in np.array(steps)) <= 1 for pixel in used)


def test_scales_begin_at_one_two_or_five(watched: Any) -> None:
    page = opened(watched)
    floors, steps = page.evaluate("""async () => {
      const { floorOf, stepOf } = await import('./static/read/colours.js');
      const rows = [100, 1000, 30000].map((n) => Float32Array.from({ length: n }, (_, k) => (k ? 0.3 / n : 0.7)));
      const weights = Array.from({ length: 200 }, (_, k) => 10 ** (k / 25 - 8));
      return [rows.map((row) => floorOf(row)), weights.map((weight) => stepOf(weight, 1e-4))];
    }""")
    assert floors == [0.005, 0.0005, 0.00002]  # a little less than an even share
    assert steps == sorted(steps)
    assert (steps[0], steps[99], steps[-1], set(steps)) == (0, 0, 20, set(range(21)))


def test_no_floor_is_below_reason_and_heads_of_a_text_share_one(watched: Any) -> None:
    page = opened(watched)
    floors, line, plain = page.evaluate("""async () => {
      const { floorOf, floorOfPixels } = await import('./static/read/colours.js');
      const near = (weight) => Float32Array.from({ length: 999 }, (_, k) => weight * (0.7 + 0.6 * ((k * 7) % 10) / 10));
      return [[1e-14, 1e-6, 0.003, 0.0043, 0.0069, 0.4].map((weight) => floorOfPixels(near(weight), 1, 1 / 700)),
              floorOf(near(1e-14)), floorOfPixels(near(1e-9), 5)];
    }""")
    assert floors == [0.0001, 0.0001, 0.001, 0.001, 0.001, 0.1]  # a hundredth of an even share is 0.000014
    assert line == 0.00001
    assert plain == 0.0001  # of sums that end at 5


def test_the_scale_is_said_in_numbers_that_can_be_read(watched: Any) -> None:
    page = opened(watched)
    said, marks = page.evaluate("""async () => {
      const { legendMarks, scaleSentence } = await import('./static/read/colours.js');
      return [[[1e-5, 1], [0.002, 1], [0, 1], [1e-7, 0.5, true]].map((scale) => scaleSentence(...scale)),
              legendMarks(1e-5).map(([, text]) => text)];
    }""")
    assert said == [
        "Shaded from 0.001 % to 100 %; ten times as heavy is 4 of 20 steps of colour.",
        "Shaded from 0.2 % to 100 %; ten times as heavy is 7.4 of 20 steps of colour.",
        "Shaded evenly from 0 to 100 %.",
        "Shaded from 0.0000001 to 0.5; ten times as heavy is 3 of 20 steps of colour.",
    ]
    assert marks[:2] == ["≤ 0.001 %", "100 %"]


def test_two_heads_have_one_scale(watched: Any) -> None:
    page = complete(watched, "heads=0&row=650")
    for head in range(2):
        page.locator(f".headpick [data-head='{head}']").click()
        expect(page.locator(".chips")).to_contain_text(f"head 0.{head}")
        settle(page)
        expect(page.locator(".mappane .legend").first).to_have_attribute(
            "aria-label", "Shaded from 0.1 % to 100 %; ten times as heavy is 6.7 of 20 steps of colour."
        )


WRITTEN = """() => {
  window.written = new Set();
  const { fillText } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
    if (this.canvas.className === 'marks') window.written.add(text);
    return fillText.call(this, text, ...place);
  };
}"""


def test_large_cells_have_their_words_and_figures_too(watched: Any) -> None:
    page = complete(watched)
    page.evaluate(WRITTEN)
    box = page.locator(".mapbox").bounding_box()
    page.locator(".mapbox").focus()
    for key in ("ArrowLeft", *"+++++++"):
        page.keyboard.press(key)
    settle(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    names = [name.strip() for name in STACK.names(STACK.layers[0], "keys")]
    written = set(page.evaluate("[...window.written]"))
    row, column = (int(told) for told in re.findall(r"\((\d+)\)", page.locator(".where").inner_text()))
    around = {names[at] for at in (row - 1, row, column - 1, column, column + 1)}
    assert around <= written
    assert page.locator(".mapbox").bounding_box() == box  # the words take their room from the matrix
    page.locator("summary", has_text="Export").click()
    with page.expect_download() as download:
        page.locator("[data-export=svg]:visible").click()
    texts = set(re.findall(r">([^<>]+)</text>", download.value.path().read_text("utf-8")))
    assert around <= texts
    assert {text for text in written if text.endswith(" %")} & texts  # the numbers of cells


@pytest.mark.parametrize("watched", [{"color_scheme": "dark"}], indirect=True)
def test_figures_are_light_whatever_the_page_is(watched: Any) -> None:
    page = complete(watched)
    page.locator("summary", has_text="Export").click()
    with page.expect_download() as download:
        page.locator("[data-export=svg]:visible").click()
    drawing = download.value.path().read_text("utf-8")
    paper = [int(part) for part in re.search(r'<rect[^>]*fill="rgb\((\d+), ?(\d+), ?(\d+)\)"', drawing).groups()]
    assert min(paper) > 240
    lightest = page.evaluate(
        """async href => {
          const image = new Image();
          image.src = href;
          await image.decode();
          const pen = new OffscreenCanvas(image.width, image.height).getContext('2d');
          pen.drawImage(image, 0, 0);
          const { data } = pen.getImageData(0, 0, image.width, image.height);
          let most = 0;
          for (let at = 0; at < data.length; at += 4) if (data[at + 3]) most = Math.max(most, data[at]);
          return most;
        }""",
        re.search(r'href="(data:image/png[^"]+)"', drawing)[1],
    )
    assert lightest > 235  # the step of the least weight; in the dark it is nearly black


def test_the_table_stays_where_it_is_while_a_map_comes(watched: Any) -> None:
    page = complete(watched)
    place = page.locator(".cells").bounding_box()
    page.route("**/ask/tile", lambda route: None)
    page.locator(".headpick [data-head='0']").click()
    expect(page.locator(".mappane .status")).to_contain_text("Map of head 0.0: 0 of")
    assert page.locator(".cells").bounding_box() == place
    expect(page.locator(".chip kbd")).to_be_visible()  # Esc unlocks the row
    page.locator(".mapbox").focus()  # and stops strips from here
    expect(page.locator(".chip kbd")).to_be_hidden()


@pytest.mark.parametrize("watched", [{"viewport": {"width": 360, "height": 800}}], indirect=True)
def test_a_narrow_table_has_fewer_columns(watched: Any) -> None:
    page = complete(watched)
    assert page.locator(".cells thead th").count() == 5
    wide = "cells => cells.filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.textContent)"
    assert page.locator(".cells [role=gridcell]").evaluate_all(wide) == []
