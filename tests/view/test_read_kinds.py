"""Readings that are not one text: a picture's patches, a text that reads another, a text and what was made of it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import expect

import clearhead
from clearhead.reading.sources import from_small_model
from tests.view.known import READINGS
from tests.view.made_up import ALIGNED, BALL, ENGLISH, GERMAN, GRID, alignment_reading, patch_reading
from tests.view.printed import nearly, percent
from tests.view.read_page import ReadPage, plain

Reads = Callable[..., ReadPage]
PLACES = {name: f"reading={at}" for at, name in enumerate(READINGS)}
BALL_AT = GRID.before + BALL[0] * GRID.columns + BALL[1]


def test_a_pictures_patches_lie_over_it(known_page: ReadPage) -> None:
    w = np.asarray(patch_reading().stack().layer(1).weights, np.float64)[1]
    read, page = known_page, known_page.page
    read.go(f"{PLACES['patch']}&layer=1&heads=1&row=30")
    picture, image = page.locator(".picture"), page.locator(".picture img")
    expect(image).to_be_visible()
    assert image.evaluate("e => e.decode().then(() => e.naturalWidth / e.naturalHeight)") == GRID.columns / GRID.rows
    assert read.listed()[0].item == BALL_AT
    assert nearly(read.listed()[0].weight, percent, w[30, BALL_AT])
    assert "row 4, column 12" in read.sentence()
    box = picture.bounding_box()
    assert box is not None
    side = box["width"] / GRID.columns
    assert abs(box["height"] / GRID.rows - side) < 1, "patches are squares"

    def place(row: int, column: int) -> dict[str, float]:
        return {"x": (column + 0.5) * side, "y": (row + 0.5) * side}

    picture.hover(position=place(*BALL))
    expect(page.locator(".textpane .textcap")).to_contain_text(
        f"row 4, column 12, {BALL_AT}: {read.listed()[0].weight}"
    )
    at = GRID.before + 5 * GRID.columns + 4
    picture.click(position=place(5, 4), modifiers=["Shift"])
    read.rest()
    assert f"column={at}" in page.url
    assert nearly(page.locator(".say em").inner_text(), percent, w[30, at])
    picture.click(position=place(5, 4))
    page.keyboard.press("ArrowRight")
    read.rest()
    assert f"row={at + 1}" in page.url
    assert read.listed()[0].item == int(np.argmax(w[at + 1]))
    colours = page.locator(".picture .marks").evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("the picture alone").check()
    page.wait_for_timeout(60)
    assert page.locator(".picture .marks").evaluate("canvas => canvas.toDataURL()") != colours
    other = page.locator(".patches .other")
    assert plain(other.inner_text()).startswith("[class] ")
    assert nearly(plain(other.inner_text()).removeprefix("[class] "), percent, w[at + 1, 0])
    expect(page.get_by_role("application", name="Matrix of 193 by 193 weights, head 1.1")).to_be_visible()
    page.get_by_label("the picture alone").uncheck()
    read.go(f"{PLACES['patch']}&layer=1&heads=1&by=column&column={BALL_AT}")
    assert nearly(read.listed()[0].weight, percent, w[:, BALL_AT].max())


def test_a_text_that_reads_another(known_page: ReadPage) -> None:
    w = np.asarray(alignment_reading().stack().layer(1).weights, np.float64)[2]
    read, page = known_page, known_page.page
    read.go(f"{PLACES['alignment']}&layer=1&heads=2&row=1")
    asks, answers = (
        page.get_by_role("listbox", name="Text that reads"),
        page.get_by_role("listbox", name="Text", exact=True),
    )
    assert asks.locator(".t").all_inner_texts() == GERMAN
    assert answers.locator(".t").all_inner_texts() == ENGLISH
    for row, word in enumerate(GERMAN):
        asks.locator(".t").nth(row).click()
        read.rest(2)
        assert read.sentence().startswith(f"“{word}”" if word == "." else word), read.sentence()
        assert read.listed()[0].item == ALIGNED[row] == int(np.argmax(w[row]))
        assert nearly(read.listed()[0].weight, percent, w[row].max())
    expect(asks.locator(".looker")).to_have_text(GERMAN[-1])
    expect(answers.locator(".target")).to_have_text(ENGLISH[ALIGNED[-1]])
    assert page.locator(".later").count() == 0
    assert not any("back" in item.where for item in read.listed()), "texts have no distance"
    answers.locator(".t").nth(3).click()
    read.rest()
    assert nearly(page.locator(".say em").inner_text(), percent, w[len(GERMAN) - 1, 3])
    page.get_by_role("radio", name="who reads it").click()
    read.rest()
    assert read.listed()[0].item == int(np.argmax(w[:, 3]))
    expect(page.locator(".trust")).to_contain_text(re.compile("no mask: every (word|token) may be seen"))
    assert page.get_by_label("without the first").count() == 0
    expect(page.locator(".textpane h2")).to_have_text(["Reads 16 queries", "Is read 15 keys"])
    read.go(f"{PLACES['alignment']}&layer=1&heads=2&row=1&measure=value")  # an address of another reading, say
    expect(page.locator(".trust")).to_contain_text("Times the value’s length: no values were kept")
    expect(page.get_by_role("button", name="Times the value")).to_be_disabled()
    assert "measure" not in page.url


def test_a_text_and_what_was_made_of_it(reads: Reads, compared: str, watches: tuple[Path, Path]) -> None:
    from tests.view.watches import MADE, PROMPT, exact_weights

    tokens = clearhead.load_watch(watches[0]).tokens()
    exact = exact_weights(tokens)
    read = reads(compared)
    page = read.open(f"layer=1&heads=0&row={PROMPT - 1}")
    slider = page.get_by_role("slider", name="Step")
    expect(slider).to_have_attribute("aria-valuetext", f"step 1 of {MADE}")
    for step in range(MADE):
        row = PROMPT - 1 + step
        expect(page.locator(".gen")).to_contain_text(f"step {step + 1} of {MADE}, row {row}")
        expect(page.locator(".looker")).to_have_text(tokens[row].strip())
        order = np.argsort(-exact[1, 0, row], kind="stable")
        for item, place in zip(read.listed(), order, strict=False):
            assert item.item == place
            assert nearly(item.weight, percent, exact[1, 0, row, place], 1e-5)
        slider.focus()
        page.keyboard.press("ArrowRight")
        read.rest()
    made = [text.strip() for text in page.locator(".made button").all_inner_texts()]
    assert made[: MADE - 1] == [token.strip() for token in tokens[PROMPT:]]
    expect(page.get_by_role("button", name="Next step")).to_be_disabled()
    page.locator(".made button").nth(2).click()
    read.rest()
    expect(slider).to_have_attribute("aria-valuetext", f"step 3 of {MADE}")
    page.locator(".text .t:visible").nth(5).click()
    read.rest()
    expect(page.locator(".gen")).to_contain_text("row 5: nothing was chosen from it")
    expect(page.locator(".trust")).to_contain_text("Checked")
    assert plain(page.locator(".headpick").inner_text()) == "0 1 key 0 2 3 key 1"


def test_another_text_is_read_with_the_same_model(reads: Reads, address: str) -> None:
    read, text = reads(f"{address}read"), "The old ship sank. <script>alert(1)</script> The old ship"
    page = read.open()
    page.get_by_role("button", name="Read another text").click()
    dialog = page.get_by_role("dialog", name="Read another text")
    dialog.get_by_role("button", name="Read it").click()
    expect(dialog.get_by_role("status")).to_contain_text("There is no text: type a sentence.")
    dialog.get_by_role("textbox").fill(text)
    dialog.get_by_role("button", name="Read it").click()
    expect(dialog).to_have_count(0)
    read.rest()
    other = from_small_model(text)
    assert page.locator(".text .t:visible").count() == len(other.tokens)
    assert page.locator("script").count() == 1
    assert nearly(read.listed()[0].weight, percent, float(np.asarray(other.stack().layer(0).weights)[0][-1].max()))
    read.complaints = [told for told in read.complaints if "422" not in told]
