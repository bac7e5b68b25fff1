"""What leaves the page: files, pictures, links and Python that prints the same numbers."""

import csv
import io
import re
import struct
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from playwright.sync_api import Page, expect

from tests.view.known import READINGS, exact, lengths, tokens_of
from tests.view.printed import nearly, number, percent
from tests.view.read_page import ReadPage, plain

Reads = Callable[..., ReadPage]
LONG = f"reading={list(READINGS).index('700')}&layer=5&heads=2"


def saved(page: Page, kind: str, folder: Path) -> Path:
    """A file that the page writes."""
    page.locator(".menu summary").first.click()
    with page.expect_download() as download:
        page.locator(f"[data-export={kind}]:visible").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    expect(page.locator(".menu summary").first).to_contain_text(path.name)
    return path


def test_a_column_of_joined_heads_as_a_table(reads: Reads, known: str, tmp_path: Path) -> None:
    read = reads(known)
    page = read.open(f"{LONG.replace('heads=2', 'heads=0+2')}&join=max&measure=value&by=column&column=5")
    with saved(page, "csv", tmp_path).open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:2] == ["index", "token"]
    assert "value" in head[2], "what is measured is named"
    assert [token for _, token, _ in rows] == tokens_of(700)
    line = np.max([exact(700, 5, head)[:, 5] * lengths(700, 5, head)[5] for head in (0, 2)], axis=0)
    np.testing.assert_allclose([float(weight) for *_, weight in rows], line, rtol=1e-5, atol=1e-9)


def test_the_map_as_a_drawing_and_twice_as_large_as_a_picture(reads: Reads, known: str, tmp_path: Path) -> None:
    read = reads(known)
    page = read.open(f"{LONG}&row=600")
    drawing = ElementTree.parse(saved(page, "svg", tmp_path)).getroot()  # noqa: S314
    picture = saved(page, "png", tmp_path).read_bytes()
    width, height = (float(drawing.attrib[side]) for side in ("width", "height"))
    assert struct.unpack(">II", picture[16:24]) == (round(2 * width), round(2 * height))
    texts = [text.text or "" for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert page.locator(".say em").inner_text() in texts
    assert set(read.legend()) <= set(texts)
    told = plain(" ".join(texts))
    for word in ("head 5.2", "A pixel is the largest of 2² to 3² cells"):
        assert word in told


PIXELS = "[...document.querySelectorAll('.pixels')].map(canvas => canvas.toDataURL())"
PARTS = (".say", ".mass li", ".cells tr", ".legend", ".chips", ".rank", ".trust", ".textcap", ".sheettold")


def as_a_file(read: ReadPage, folder: Path) -> None:
    """Go on with the page as it is saved: offline, and with all that it showed."""
    page = read.page
    read.rest_long()
    shown = [[plain(text) for text in page.locator(part).all_inner_texts()] for part in PARTS]
    pixels = page.evaluate(PIXELS)
    path = saved(page, "html", folder)
    assert path.read_text("utf-8").count("Content-Security-Policy") == 1
    page.context.set_offline(True)
    read.elsewhere.clear()
    page.goto(path.as_uri())
    page.locator(read.ready).first.wait_for()
    read.rest_long()
    assert [[plain(text) for text in page.locator(part).all_inner_texts()] for part in PARTS] == shown
    assert page.evaluate(PIXELS) == pixels
    assert read.elsewhere == [path.as_uri()]
    read.elsewhere.clear()
    assert page.locator("[data-export=html]").count() == 0


def test_a_file_says_what_it_does_not_hold(reads: Reads, known: str, tmp_path: Path) -> None:
    read = reads(known)
    page = read.open(f"reading={list(READINGS).index('2000')}&layer=5&heads=2&row=600")
    as_a_file(read, tmp_path)
    page.get_by_role("button", name="Layer before").click()
    expect(page.get_by_role("alert")).to_contain_text("This page is a file, and does not hold that")
    expect(page.get_by_role("alert")).to_contain_text("shown is still row 600 of head 5.2.")
    for _ in range(4):
        page.get_by_role("button", name="In", exact=True).click()
    expect(page.locator(".mappane .status")).to_contain_text("This file holds no sharper map.")


def test_a_file_of_two_views_holds_both(reads: Reads, known: str, tmp_path: Path) -> None:
    read, at = reads(known), list(READINGS).index("120")
    read.open(f"panes=2&reading={at}&layer=5&heads=2&row=60&reading2={at}&layer2=2&by2=column&column2=9&linked=false")
    as_a_file(read, tmp_path)
    assert read.sentence(0) != read.sentence(1)


def printed_by(code: str) -> list[tuple[int, float]]:
    """What code prints when it runs: items and numbers."""
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code, {})  # noqa: S102
    return [(int(item), float(value)) for item, value in re.findall(r"\((\d+), ([\d.e-]+)\)", out.getvalue())]


def test_python_that_is_copied_prints_what_is_shown(reads: Reads, small: str, compared: str) -> None:
    for address, states in (
        (small, ("layer=2&heads=1&row=90", "layer=3&heads=0+2&join=mean&by=column&column=4",
                 "layer=1&heads=0+1+2&join=max&row=60&measure=value")),
        (compared, ("layer=1&heads=3&row=41", "reading=1&layer=1&heads=0+3&join=max&row=44",
                    "layer=0&heads=1&by=column&column=2&measure=value")),
    ):  # fmt: skip
        read = reads(address, permissions=["clipboard-read", "clipboard-write"])
        page = read.open(states[0])
        for state in states:
            read.go(state)
            page.get_by_role("button", name="Copy as Python").click()
            expect(page.get_by_role("button", name="Copied")).to_be_visible()
            told, listed = printed_by(page.evaluate("navigator.clipboard.readText()")), read.listed()[:10]
            assert [item for item, _ in told] == [line.item for line in listed], state
            rule = number if "value" in state else percent
            for (_, weight), line in zip(told, listed, strict=True):
                assert nearly(line.weight, rule, weight), state
            expect(page.get_by_role("button", name="Copied")).to_have_count(0)


def test_what_cannot_be_copied_is_shown_to_be_copied_by_hand(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("row=90")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
    page.evaluate("() => { document.execCommand = () => false }")
    page.get_by_role("button", name="Copy as Python").click()
    code = page.get_by_role("dialog").get_by_role("textbox").input_value()
    assert "clearhead.model.load()" in code
    assert [item for item, _ in printed_by(code)] == [line.item for line in read.listed()[:10]]
