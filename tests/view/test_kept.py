"""What the Read screen writes: its page as one file, a row or column as CSV, its map as SVG and PNG."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from clearhead import weights
from clearhead.inspecting.command import InspectOptions, inspect_heads
from clearhead.reading.kept import question
from clearhead.reading.sources import from_layers
from clearhead.wording import percent
from tests.view.conftest import serving
from tests.view.made_up import HOSTILE, TOLD, hostile_reading

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    """Where hostile tokens are served."""
    with serving("tests.view.made_up", "hostile") as found:
        yield found


@pytest.fixture
def opened(browser: Browser) -> Iterator[Page]:
    """A page that may not complain, nor ask anybody but its own server."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective))"
    )
    page, complaints = context.new_page(), []
    page.on("console", lambda told: complaints.append(told.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))
            else complaints.append(asked.url)
        ),
    )
    yield page
    context.close()
    assert complaints == []


def shown(page: Page) -> Page:
    """The page, once all heads are there."""
    expect(page.locator(".rank .hd").first).to_be_visible()
    expect(page.locator(".sheetstate")).to_have_text("")
    expect(page.locator("[data-key=heaviest]")).to_be_visible()
    return page


def exported(page: Page, kind: str, folder: Path) -> Path:
    """A file that the page saves."""
    page.locator("summary", has_text=re.compile("^(Export|Saved)")).click()
    with page.expect_download() as download:
        page.locator(f"[data-export={kind}]:visible").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    said = page.locator("summary", has_text="Saved")
    expect(said).to_contain_text(path.name)
    return path


def told(page: Page) -> list[list[str]]:
    """The sentence, the list and the rankings, as one reads them."""
    return [page.locator(lines).all_inner_texts() for lines in (".say", ".mass li", ".rank", ".cells tr")]


def test_a_line_is_written_for_csv_readers(opened: Page, hostile: str, tmp_path: Path) -> None:
    w = hostile_reading().stack().head(5, 2)
    for state, line in (("row=30", w.row(30)), ("by=column&column=4", w.column(4))):
        opened.goto("about:blank")
        opened.goto(f"{hostile}#layer=5&heads=2&{state}")
        path = exported(shown(opened), "csv", tmp_path)
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert head == ["index", "token", "weight"]
        assert [int(index) for index, _, _ in rows] == list(range(len(line)))
        assert [token for _, token, _ in rows] == [*TOLD, *TOLD]
        assert np.array_equal(np.array([weight for _, _, weight in rows], np.float32), line)


def test_the_map_is_drawn_for_other_programs(opened: Page, hostile: str, tmp_path: Path) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    drawing = ElementTree.parse(exported(shown(opened), "svg", tmp_path)).getroot()  # noqa: S314
    size = 2 * len(HOSTILE)
    cells = [one for one in drawing.iter(f"{SVG}rect") if one.get("fill", "").startswith("rgb")]
    assert len(cells) >= size * (size + 1) // 2
    words = [one.text for one in drawing.iter(f"{SVG}text")]
    weight = percent(float(hostile_reading().stack().head(5, 2).row(30)[4]))
    assert weight in words
    assert "<b>hostile</b> & sons, head 5.2" in words
    assert exported(opened, "png", tmp_path).read_bytes().startswith(b"\x89PNG")


def test_the_page_as_a_file_shows_the_same(opened: Page, hostile: str, tmp_path: Path) -> None:
    opened.goto(f"{hostile}#layer=5&heads=2&row=30&column=4")
    before = told(shown(opened))
    path = exported(opened, "html", tmp_path)
    opened.context.set_offline(True)
    opened.goto(f"file://{path}")
    assert told(shown(opened)) == before
    assert opened.evaluate("typeof KEPT") == "undefined"
    opened.get_by_role("radio", name="who reads it").click()
    expect(opened.locator(".answer")).to_contain_text("does not hold")


def two_layers(size: int) -> tuple[str, ...]:
    """Names of items."""
    return tuple(f"<{n}>" for n in range(size))


@pytest.mark.parametrize("size", [30, 700])
def test_inspects_page_opens_from_a_folder(opened: Page, tmp_path: Path, size: int) -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 6, size, 8)).astype(np.float32)
    of = from_layers({2: weights(q[:3], k[:3]), 5: weights(q[3:], k[3:])}, two_layers(size), name="a <model>")
    path = tmp_path / "page.html"
    inspect_heads(of, InspectOptions("layer", 40, (5, 1), 20, None, "png", path, False), lambda done: None)
    opened.context.set_offline(True)
    opened.goto(f"file://{path}")
    said = shown(opened).locator(".say").inner_text()
    row = of.stack().head(5, 1).row(20)
    column = 1 + int(np.argmax(row[1:]))
    assert f"puts {percent(float(row[column]))} on" in re.sub(r"\s", " ", said)
    assert opened.locator(".sheet h2").inner_text() == "All 6 heads"
    assert "holds" not in opened.locator(".sheet").inner_text()
    first = of.stack().layer(5).weights[1].summary("first").first.mean()
    assert f"{percent(float(first))} on the first" in re.sub(r"\s", " ", opened.locator(".sheettold").inner_text())


def test_questions_have_one_name(opened: Page, address: str) -> None:
    opened.goto(address)
    for about in (
        {},
        {"side": "keys", "from": 0, "part": 'a "<b>" \\ \n\x7f\u2028\U0001f600', "heads": [3, 1], "without": False},
    ):
        packed = f"ask.packedAnswers([['x', {json.dumps(about)}, {{}}]])"
        named = opened.evaluate(f"import('./static/ask.js').then(ask => Object.keys({packed})[0])")
        assert named == question("x", about)
