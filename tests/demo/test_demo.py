"""The demo as a visitor has it: files opened from disk, offline, or from a folder of any static host."""

import functools
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import demo_pages
import numpy as np
import pytest
from demo_pages import smollm2
from playwright.sync_api import Browser, Page, expect

from clearhead import weights
from clearhead.explain import explain
from clearhead.reading.readings import StackLayer
from clearhead.reading.sources import from_small_model
from clearhead.view.page import LEARN, READ
from clearhead.view.sentences import project_to_plane
from clearhead.words import load
from tests.view.known import LAYERS, known_reading, operands, reading_of, stack_layer, tokens_of
from tests.view.printed import nearly, number, percent, share
from tests.view.test_numbers import READ as READ_NUMBERS
from tests.view.test_numbers import expected
from tests.view.test_server import distinct_names
from tests.view.watched_page import VIOLATIONS

Open = Callable[..., Page]
SENTENCES = (
    "The cat sat on the mat",
    "Grüße aus Köln",
    "the blorpy 😀 море doomscrolling",
    "one two three four five six seven eight nine ten eleven twelve thirteen",
)
PLAIN = {"positions": False, "scaled": False, "window": None, "formula": "right", "heads": 1, "head": 0}


@pytest.fixture(scope="module")
def hosted(demo: Path) -> Iterator[str]:
    """The site's folder on a static host."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(demo.parents[1]))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{demo.parent.name}/{demo.name}"
        server.shutdown()


def type_sentence(page: Page, text: str) -> None:
    """Type a sentence, and wait until its learned heads are there too."""
    page.locator("#sentence").fill(text)
    page.locator("#sentence").press("Enter")
    if text.strip():
        expect(page.locator(".learned q")).to_have_text(text)


@pytest.mark.parametrize("place", ["disk", "host"])
def test_a_sentence_of_ones_own(opened: Open, demo: Path, hosted: str, place: str) -> None:
    page = opened((demo.as_uri() if place == "disk" else hosted) + "/index.html#step=0")
    for text in SENTENCES if place == "disk" else SENTENCES[:1]:
        type_sentence(page, text)
        embedded = load().embed(text)
        x = embedded.x[:12]
        for axes, vectors in (("two", project_to_plane(x)[0]), ("all", x)):
            if axes == "all":
                page.locator("[data-do=axes][data-with=all]").click()
            read = page.evaluate(READ_NUMBERS, ["scores", "weights"])
            found = expected(PLAIN | {"vectors": vectors, "row": len(x) - 1, "column": 0})
            for stage, rule in (("scores", number), ("weights", share)):
                narrow = len(x) > 8
                for i, row in enumerate(read[stage]):
                    assert row[: i + 1] == [rule(value, narrow) for value in found[stage][i, : i + 1]], (text, stage, i)
        page.locator("[data-do=axes][data-with=two]").click()
        weights = explain(text).weights if len(x) == len(embedded.tokens) else found["weights"][-1]
        assert np.allclose(weights, found["weights"][-1])
        for note in embedded.notes[:2]:
            assert f"{note}." in page.locator(".left").inner_text()
    if place == "disk":
        assert "1 more item is not shown" in page.locator(".left").inner_text()
        type_sentence(page, " ")
        expect(page.get_by_text("There is no word in ''")).to_be_visible()


def test_the_first_sentence_is_there_before_the_vectors(browser: Browser, demo: Path, tmp_path: Path) -> None:
    for name in ("index.html", "learn.js", "learn.css", "model.js"):
        shutil.copy(demo / name, tmp_path)
    page = browser.new_context(offline=True).new_page()
    page.goto((tmp_path / "index.html").as_uri())
    expect(page.locator(".tri")).to_contain_text("1.700")
    page.locator("#sentence").fill("the cat")
    page.locator("#sentence").press("Enter")
    expect(page.get_by_text("The file words.js has not come")).to_be_visible()
    page.context.close()


def test_the_course_goes_on_without_a_server(opened: Open, demo: Path) -> None:
    page = opened((demo / "index.html").as_uri())
    for step in range(2, 11):
        page.locator(f"[data-do=step][data-with='{step}']").first.click()
        expect(page.locator(".path [aria-current=step]")).to_contain_text(str(step))
    page.get_by_role("button", name="Done").click()
    page.locator("[data-do=preset]").filter(has_text="One large").click()
    page.locator("#formula").select_option("no-softmax")
    expect(page.get_by_text("Nothing keeps it from growing with the number of items.")).to_be_visible()
    page.get_by_role("button", name="Quiz").click()
    expect(page.locator("#exercise")).to_contain_text("is added to what it sees. Its score is 0.")
    page.locator("#exercise [aria-label=Close]").click()
    page.get_by_role("button", name="Grow the length").click()
    expect(page.locator("#growth")).to_contain_text("Multiply-adds, for vectors of 2 numbers")
    page.locator("#growth [aria-label=Close]").click()
    page.locator("[data-do=learned][data-with='3.3']").click()
    expect(page.locator(".tri")).to_contain_text("<s>")
    assert "model.forward" in page.locator("#python").inner_text()
    page.locator("summary", has_text="Export").click()
    kinds = page.locator("[data-export]").evaluate_all("all => all.map((e) => e.dataset.export)")
    assert kinds == ["png", "svg", "csv", "link"]
    for link, kept in (("Read", "read.html"), ("Docs", "../index.html")):
        assert page.get_by_role("link", name=link, exact=True).get_attribute("href") == kept
    page.get_by_role("link", name="Docs").click()
    assert page.title() == "Docs"


def test_arrows_can_be_dragged(opened: Open, demo: Path) -> None:
    page = opened((demo / "index.html").as_uri() + "#vectors=1,0;0,1&step=0")
    box = page.locator("[data-tip='0']").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] - 40, steps=4)
    page.mouse.up()
    x = page.locator("[data-row='0'][data-column]").evaluate_all("all => all.map((e) => parseFloat(e.value))")
    assert x[:2] != [1, 0]
    assert f"x = np.array([[{x[0]:g}, {x[1]:g}], [0, 1]])" in page.locator("#python").inner_text()


def shown_as(page: Page, w: np.ndarray, error: float) -> None:
    """Check that the list shows a row's heaviest weights, each as it is printed."""
    expect(page.locator(".mass [data-pick]").first).to_have_attribute("data-pick", str(int(np.argmax(w))))
    shown = page.locator(".mass [data-pick]").evaluate_all(
        "all => all.map((line) => [+line.dataset.pick, line.querySelector('.wt').textContent])"
    )
    assert len(shown) > 3
    for item, text in shown:
        assert nearly(text, percent, float(w[item]), error), item


def test_rows_are_the_small_models(opened: Open, demo: Path) -> None:
    page = opened((demo / "read.html").as_uri())
    reading = from_small_model(demo_pages.TEXT)
    for layer, head, row in ((3, 3, 168), (1, 1, 57), (2, 1, 185)):
        page.evaluate("state => { location.hash = state }", f"layer={layer}&heads={head}&row={row}")
        expect(page.locator(".chip, .view").first).to_contain_text(str(head))
        w = reading.stack().head(layer, head).row(row)
        shown_as(page, w, 3e-5)
    expect(page.locator(".sheet h2")).to_have_text("All 16 heads")
    expect(page.locator(".remarks")).to_contain_text("then clearhead view --model FOLDER")


def test_another_text_is_read_in_the_page(opened: Open, demo: Path) -> None:
    page = opened((demo / "read.html").as_uri())
    page.get_by_role("button", name="Read another text").click()
    text = "The king was not in the house, and the queen was not"
    page.get_by_role("textbox", name="Text").fill(text)
    page.get_by_role("button", name="Read it").click()
    w = from_small_model(text).stack().head(3, 3).row(-1)
    expect(page.locator(".say")).to_contain_text(percent(float(w[1:].max())))


@pytest.mark.parametrize(("file", "width", "scheme"), [("index.html", 360, "dark"), ("read.html", 1280, "light")])
def test_everyone_can_use_it(opened: Open, demo: Path, axe: str, file: str, width: int, scheme: str) -> None:
    page = opened((demo / file).as_uri(), viewport={"width": width, "height": 800}, color_scheme=scheme)
    expect(page.locator(".next, .rank li").first).to_be_attached()
    page.evaluate(axe)
    found = page.evaluate(VIOLATIONS)
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
    for wide in (360, 800, 1280):
        page.set_viewport_size({"width": wide, "height": 800})
        page.wait_for_timeout(400)  # the map is drawn anew
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{wide} scrolls sideways"


def test_nothing_else_can_run(demo: Path) -> None:
    for path in demo.glob("*.html"):
        if path.name == "asked.html":  # the answers alone, for other tests
            continue
        text = path.read_text("utf-8")
        assert f'content="{demo_pages.POLICY}"' in text
        assert not re.search(r"unsafe|https?:|\sstyle=|\son\w+=", text), path
        inline = re.findall(r"<script(?![^>]*\ssrc=)([^>]*)>", text)
        assert inline == [' type="application/json" id="kept"']
    for path in demo.glob("*.js"):
        assert not re.search(r"\beval\(|new Function|innerHTML", path.read_text("utf-8"))


def test_it_stays_small(demo: Path) -> None:
    size = {path.name: path.stat().st_size for path in demo.iterdir()}
    assert sum(size[name] for name in ("index.html", "learn.js", "learn.css", "words.js", "model.js")) < 6e6
    assert sum(size[name] for name in ("read.html", "read.js", "read.css", "model.js")) < 8e6


def half_layer(number: int) -> StackLayer:
    """A layer whose queries and keys have 16 bits."""
    q, k, v = (x.astype(np.float16).astype(np.float32) for x in operands(120, number))
    w, layer = weights(q, k), stack_layer(120, number)
    return replace(layer, find_weights=lambda: w, find_values=lambda: v[list(layer.key_heads)])


def test_a_recording_holds_all_bits_of_its_rows(opened: Open, tmp_path: Path) -> None:
    reading = reading_of({number: half_layer(number) for number in LAYERS}, tokens_of(120), "half")
    told = smollm2.recorded(reading, {2: (0, 1), 5: (2, 3)})
    demo_pages.write_demo(tmp_path / "demo", recording=lambda: told)
    page = opened((tmp_path / "demo/smollm2/index.html").as_uri() + "#layer=5&heads=3&row=70")
    shown_as(page, reading.stack().head(5, 3).row(70), 1e-6)
    page.get_by_role("button", name="Times the value").click()
    valued = reading.stack().head(5, 3).row(70) * reading.stack().layer(5).value_lengths[3]
    expect(page.locator(".mass [data-pick]").first).to_have_attribute("data-pick", str(int(np.argmax(valued))))
    expect(page.locator(".trust")).to_contain_text("Checked")
    expect(page.locator(".sheet h2")).to_have_text("All 4 heads")
    assert page.get_by_role("link", name="Learn").get_attribute("href") == "../index.html"
    with pytest.raises(ValueError, match="record a run in 16 bits"):
        smollm2.recorded(known_reading(120), {2: (0,)})


@pytest.mark.parametrize("screen", [(LEARN, demo_pages.LEARN), (READ, demo_pages.READ)])
def test_modules_fit_one_scope(screen: Any) -> None:
    distinct_names(demo_pages.sources(*screen))
