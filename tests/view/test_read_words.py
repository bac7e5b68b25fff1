"""What the Read screen says: what is most, what a share is of, what was refused, and the keys that it names."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from clearhead import weights
from clearhead.reading.answers import Reader
from clearhead.reading.kept import row_answers
from clearhead.reading.sources import from_small_model, from_vectors, readings_of
from clearhead.view import page as pages
from tests.view.known import HEADS, LAYERS, READINGS, exact
from tests.view.made_up import ENGLISH, GERMAN
from tests.view.printed import number, percent
from tests.view.read_page import ReadPage

AT = {name: f"reading={n}" for n, name in enumerate(READINGS)}
LONG = "The river was wide. " * 80
Reads = Callable[..., ReadPage]


def chips(page: Page) -> list[str]:
    """What the bar says is shown."""
    return page.locator(".chips span").all_inner_texts()


def spoken(page: Page) -> str:
    """What a screen reader has been told last."""
    page.wait_for_timeout(260)
    return page.get_by_role("status").last.inner_text()


def test_what_is_refused_leaves_what_is_shown(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['doubted']}&layer=2&heads=1&row=40")
    before = read.sentence(), chips(page), page.url
    page.get_by_role("button", name="Next layer").click()
    alert = page.locator(".answer").get_by_role("alert")
    expect(alert).to_contain_text("differs by 0.31")
    expect(alert).to_contain_text("Asked for row 40 of head 5.1; shown is still row 40 of head 2.1.")
    assert (read.sentence(), chips(page), page.url) == before
    assert page.get_by_role("combobox", name="Layer").input_value() == "2"
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    expect(alert.get_by_role("button")).to_have_count(0)
    page.locator(".text .t:visible").nth(20).click()
    expect(page.locator(".chips")).to_contain_text("row 20")
    expect(alert).to_have_count(0)
    read.rest_long()
    read.complaints.clear()  # the refused requests


def test_a_file_says_what_it_holds_and_stays_with_it(reads: Reads, tmp_path: Path) -> None:
    answers, state = row_answers(Reader([from_small_model("The boat crossed the river, and it came back.")]), 2, 1, 9)
    path = tmp_path / "read.html"
    path.write_text(pages.single_file(pages.READ, answers, urlencode(state)), "utf-8")
    read = reads(f"file://{path}")
    page = read.open()
    held = "This page holds the text, row 9 of head 2.1, their maps, and pictures of 16 heads; nothing else"
    expect(page.locator(".remarks")).to_contain_text(held)
    before = read.sentence(), chips(page)
    page.locator(".text .t").nth(4).click()
    alert = page.locator(".answer").get_by_role("alert")
    expect(alert).to_contain_text("does not hold that")
    expect(alert).to_contain_text("Asked for row 4 of head 2.1; shown is still row 9 of head 2.1.")
    assert (read.sentence(), chips(page)) == before
    assert page.locator(".text .looker").get_attribute("data-j") == "9"
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    read.elsewhere.clear()  # the file itself


def test_the_sentence_begins_with_what_is_most(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['120']}&layer=2&heads=0&row=70")
    row = exact(120, 2, 0)[70]
    most = row[1:].max()
    assert row[0] > most
    rests = f"rests {percent(row[0])} on the first token, and puts {percent(most)} on "
    assert rests in read.sentence()
    assert page.locator(".say em").inner_text() == percent(most), "vermilion is the pair"
    read.go(f"{AT['120']}&layer=2&heads=0&by=column&column=114")
    column = exact(120, 2, 0)[:, 114]
    asks = int(column.argmax())
    expect(page.locator(".say")).to_contain_text(f": the most is {percent(column[asks])}, from ")
    expect(page.get_by_role("button", name="Show it")).to_have_count(0)
    assert read.listed()[0].item == asks


def test_shares_say_what_they_are_of(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['120']}&layer=2&heads=1&row=100")
    head, last = page.locator(".lhead span").last, page.locator(".answer .headline")
    expect(head).to_have_text("sum")
    expect(last).not_to_contain_text("shares")
    maxima = np.stack([exact(120, 2, n) for n in range(HEADS)]).max(0)[100]
    for state, word, of in (
        (f"heads={'+'.join(map(str, range(HEADS)))}&join=max&row=100", "maxima", f"the maxima, {number(maxima.sum())}"),
        ("heads=1&by=column&column=30", "column", f"all it gets, {number(exact(120, 2, 1)[:, 30].sum())}"),
        ("heads=1&row=100&without=true", "rest", f"the rest, {percent(1 - exact(120, 2, 1)[100, 0])}"),
    ):
        read.go(f"{AT['120']}&layer=2&{state}")
        expect(head).to_have_text(f"of {word}")
        expect(last).to_contain_text(f"Sums are shares of {of}.")
        assert "% of the" in read.sentence() or "% of all it gets" in read.sentence()


def test_only_all_is_a_hundred_per_cent(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("layer=1&heads=0&row=18")
    assert read.listed()[-1].sum == "> 99.9 %", "five more carry next to nothing, but something"
    page.get_by_role("button", name="Show 5 more").click()
    assert [item.sum for item in read.listed()].index("100.0 %") == 18


def test_another_way_round_has_its_own_pair(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['alignment']}&layer=0&heads=0&row=3&column=5")
    page.get_by_role("radio", name="who reads it").click()
    read.rest()
    first = read.listed()[0]
    assert page.locator(".say em").inner_text() == first.weight
    assert read.sentence().endswith(f"on {ENGLISH[5]}.") or f"on {ENGLISH[5]}. " in read.sentence()
    page.get_by_role("radio", name="what it reads").click()
    read.rest()
    assert read.sentence().startswith(GERMAN[first.item])
    assert page.locator(".say em").inner_text() == read.listed()[0].weight


def test_a_text_that_is_cut_or_cut_into_bytes_is_said_so(reads: Reads, small: str) -> None:
    read = reads(small, viewport={"width": 360, "height": 800})
    page = read.open()
    expect(page.locator(".remarks p")).to_have_count(0)
    page.get_by_role("button", name="Read another text").click()
    page.get_by_role("textbox", name="Text").fill(f"Später. {LONG}")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    lost = page.locator(".remarks p").first
    expect(lost).to_have_text(
        re.compile(r"^The small model reads 256 tokens: the last \d+ of this text are left out\.$")
    )
    assert lost.evaluate("e => e.scrollWidth <= e.clientWidth"), "it is cut"
    expect(page.locator(".remarks")).to_contain_text(r"reads some letters byte by byte: \xc3\xa4 is ä.")
    chosen = page.get_by_role("combobox", name="What is read").locator("option:checked")
    assert chosen.inner_text().startswith("Später. The river")
    assert "tokens" not in chosen.inner_text()
    expect(page.locator(".about")).to_contain_text("256 tokens")


def test_enter_chooses_what_is_found_and_then_the_next(reads: Reads, small: str) -> None:
    read = reads(small)
    page = read.open("row=5")
    field = page.get_by_role("searchbox")
    field.fill("ship")
    result = page.locator(".found")
    expect(result).to_contain_text(re.compile(r"\d of 3, number"))
    found = []
    for _ in range(3):
        field.press("Enter")
        read.rest()
        number_now = re.search(r"number (\d+)", result.inner_text())
        assert number_now is not None
        assert f"row={number_now[1]}" in page.url
        found.append(int(number_now[1]))
    assert found == sorted(set(found))
    field.fill("foam")
    expect(result).to_contain_text("1 of 1")
    expect(result.get_by_role("button", name=re.compile("atch"))).to_have_count(0)
    field.press("Escape")
    expect(page.locator(".text .looker")).to_be_in_viewport()
    page.keyboard.press("?")
    help_text = page.get_by_role("dialog").inner_text()
    assert "#833" in help_text
    assert "+ − 0" in help_text


def test_beside_a_view_stands_the_next_head_or_the_same_text_again(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['120']}&layer=2&heads=3&row=50")
    page.get_by_role("button", name="Compare").click()
    read.rest()
    assert "layer2=5&heads2=0" in page.url
    assert re.search(r"row2=50\b", page.url)
    assert page.get_by_role("combobox", name="What is read").evaluate_all("all => all.map(e => e.value)") == ["0", "0"]
    page.get_by_role("button", name="Close this view").last.click()
    again = page.evaluate(
        """async () => {
            const { besidePane } = await import(new URL('static/read/state.js', document.baseURI).href);
            const layer = (keys) => ({ number: 1, heads: [0, 1], queries: 9, keys });
            const reading = (keys) => ({ parts: [{ name: 'a', layers: [layer(keys)] }] });
            const readings = [reading(9), reading(8), reading(9)];
            const told = { part: 'a', layer: 1, heads: [1], join: 'one', row: 4 };
            const beside = [0, 1, 2].map((reading) => besidePane({ ...told, reading }, { readings }));
            return beside.map(({ reading, heads, row }) => [reading, heads[0], row]);
        }"""
    )
    assert again == [[2, 1, 4], [1, 0, 4], [0, 1, 4]]


def test_what_is_heard_is_what_stands_there(reads: Reads, known: str) -> None:
    read = reads(known)
    read.page.route("**/ask/names", lambda route: (read.page.wait_for_timeout(400), route.continue_()))
    page = read.open(f"{AT['700']}&layer=2&row=600")
    expect(page.locator(".text .t").first).to_be_visible()
    assert spoken(page) == read.sentence()
    page.locator(".text").focus()
    for key in ("Shift+ArrowLeft", "ArrowRight", "."):
        before = read.sentence()
        page.keyboard.press(key)
        read.rest()
        assert spoken(page) == read.sentence() != before


def test_the_most_in_any_head_can_be_chosen(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['120']}&layer=2&heads=0&row=100")
    best = max((exact(120, n, h)[100, 1:].max(), n, h) for n in LAYERS for h in range(HEADS))
    weight, layer, head = best
    item = 1 + int(exact(120, layer, head)[100, 1:].argmax())
    line = page.locator(".inheads")
    expect(line).to_contain_text(f"Most in any head, off the first: {layer}.{head}, ")
    expect(line).to_contain_text(percent(weight))
    page.locator(".mass li").first.wait_for()
    page.keyboard.press("Escape")
    expect(page.locator(".chip")).to_contain_text("follows the pointer")
    line.get_by_role("button").focus()
    page.keyboard.press("Enter")
    read.rest_long()
    assert chips(page) == ["row 100", f"head {layer}.{head}"]
    assert f"column={item}" in page.url
    expect(page.locator(".chip")).to_contain_text("locked on")
    expect(line).to_contain_text("this one")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "listbox", "the button went, not the focus"


def test_choosing_on_the_map_locks(reads: Reads, known: str) -> None:
    read = reads(known)
    page = read.open(f"{AT['120']}&layer=2&heads=0&row=100")
    page.keyboard.press("Escape")
    page.locator(".mapbox").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator(".chip")).to_contain_text("locked on")
    expect(page.locator(".mapbox")).to_be_focused()


def test_menus_have_names_and_the_bar_says_no_colours(reads: Reads, known: str) -> None:
    page = reads(known).open(AT["120"])
    for name in ("Export", "Appearance"):
        expect(page.get_by_role("group", name=name)).to_have_count(1)
    assert chips(page) == ["row 119", "head 2.0"]
    expect(page.locator("kbd", has_text="Esc")).to_have_count(1)


@pytest.mark.parametrize("text", ["Hi", "one two three four five six"])
def test_an_item_has_one_name_in_a_model(text: str) -> None:
    [part] = Reader([from_small_model(text)]).answer("readings", {}).fields["readings"][0]["parts"]
    assert part["unit"] == "token"
    assert (
        Reader([from_vectors("the river")]).answer("readings", {}).fields["readings"][0]["parts"][0]["unit"] == "word"
    )


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_python_for_weights_of_ones_own_runs(lead: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal((*lead, 5, 4)).astype(np.float32)
    w = weights(x, x)
    reading = readings_of(w)[-1]
    scope = {"weights": w}
    exec("\n".join((*reading.code.setup, reading.code.weights)).replace("HEAD", "0"), scope)  # noqa: S102
    assert np.array_equal(scope["w"][4], reading.stack().head(0, 0).row(4))
    exec("\n".join((*(code := from_vectors("the river").code).setup, code.weights)), scope)  # noqa: S102
    assert scope["w"].shape == (2, 2)
