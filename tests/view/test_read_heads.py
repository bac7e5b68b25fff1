"""The sheet of all heads against matrices in float64: its table, its rankings, its pictures, a pair in all heads."""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.view.known import HEADS, LAYERS, READINGS, exact, words_of
from tests.view.printed import exact as twelve
from tests.view.printed import fixed, nearly, percent, whole
from tests.view.read_page import ReadPage, plain

ITEMS, ROW = 120, 100
STATE = f"reading={list(READINGS).index('120')}&layer=5&heads=1&row={ROW}"
Reads = Callable[..., ReadPage]
MEASURES = {  # in the table's order, and how the numbers are printed
    "Continues a repeat": percent,
    "Looks one back": percent,
    "Finds itself again": percent,
    "Rests on the first": percent,
    "Stays near": percent,
    "Width": None,
    "Distance": None,
    "Strongest": percent,
    "Entropy": lambda x: fixed(twelve(x), 2),
}  # fmt: skip; None: counts, which are printed alike in each list
LISTS = {  # which heads lead, and by what
    "Continues a repeat": ("Continues a repeat", -1), "Looks one back": ("Looks one back", -1),
    "Rests on the first": ("Rests on the first", -1), "Widest": ("Width", -1),
    "Finds itself again": ("Finds itself again", -1), "Sharpest": ("Width", 1), "Nearest": ("Distance", 1),
    "Farthest": ("Distance", -1),
}  # fmt: skip


def rule_of(measure: str, values: Iterable[float]) -> Callable[[float], str]:
    """How the numbers of one list are printed: counts with a decimal, unless all are at least ten."""
    if rule := MEASURES[measure]:
        return rule
    return (lambda x: fixed(twelve(x), 1)) if min(values) < 10 else lambda x: whole(round(x))


def measures_of(x: np.ndarray) -> dict[str, float]:
    """What a head does, from its whole matrix."""
    words = words_of(len(x))
    i, j = np.indices(x.shape)
    entropy = -np.where(x > 0, x * np.log(np.where(x > 0, x, 1)), 0).sum(-1)
    off_first = x.copy()
    off_first[:, 0] = 0
    return {
        "Continues a repeat": np.where((words[i] == np.roll(words, 1)[j]) & (j > 0) & (j <= i), x, 0).sum(-1).mean(),
        "Looks one back": x.diagonal(-1).sum() / len(x),
        "Finds itself again": np.where((words[i] == words[j]) & (j < i), x, 0).sum(-1).mean(),
        "Rests on the first": x[:, 0].mean(),
        "Stays near": np.where(i - j < 64, x, 0).sum(-1).mean(),
        "Width": np.exp(entropy).mean(),
        "Distance": (x * (i - j)).sum(-1).mean(),
        "Strongest": off_first.max(),
        "Entropy": entropy.mean(),
    }


@pytest.fixture(scope="module")
def heads() -> dict[str, dict[str, float]]:
    """Every head's measures, by the name that the sheet gives it."""
    return {f"{layer}.{head}": measures_of(exact(ITEMS, layer, head)) for layer in LAYERS for head in range(HEADS)}


def rank(page: Page, title: str) -> list[list[str]]:
    """The lines of a list of heads."""
    section = page.locator("section.rank", has=page.get_by_role("heading", name=title, exact=True))
    lines = section.locator("li:visible").all()
    return [[plain(text) for text in line.locator("span:not(.unseen)").all_inner_texts()] for line in lines]


def test_the_tables_numbers_and_the_rankings(known_page: ReadPage, heads: dict[str, dict[str, float]]) -> None:
    read, page = known_page, known_page.page
    read.go(STATE)
    read.rest_long()
    expect(page.get_by_role("heading", name="All 8 heads")).to_be_visible()
    page.get_by_text("The same as numbers").click()
    table = page.locator(".headtable")
    expect(table.locator("thead th")).to_have_text([re.compile("Head"), *MEASURES, "Width along the text"])
    lines = [plain(line) for line in table.locator("tbody tr").evaluate_all("all => all.map(e => e.innerText)")]
    cells = table.locator("tbody tr").evaluate_all("all => all.map(e => [...e.children].map(c => c.textContent))")
    assert [line[0] for line in cells] == list(heads), lines
    for name, *told, _ in cells:
        for measure, text in zip(MEASURES, told, strict=True):
            rule = rule_of(measure, (found[measure] for found in heads.values()))
            assert nearly(text, rule, heads[name][measure], 1e-5), (name, measure, text, heads[name][measure])
    for title, (measure, sign) in LISTS.items():
        order = sorted(heads, key=lambda name: sign * heads[name][measure])
        shown = rank(page, title)
        assert [line[0] for line in shown] == order[: len(shown)], title
        assert len(shown) >= 3
        rule = rule_of(measure, [heads[name][measure] for name in order[:5]])
        for name, text in shown:
            number = text.removeprefix("as if ").removesuffix(" away")
            assert nearly(number, rule, heads[name][measure], 1e-5), (title, name, text)
    told = page.locator(".sheettold").inner_text()
    assert told.startswith("Head 5.1: layer 5, head 1, key head 0. As if spread over ")
    assert f"{percent(heads['5.1']['Rests on the first'])} on the first" in plain(told)
    widest = sorted(heads, key=lambda name: -heads[name]["Width"])
    for order in (widest, widest[::-1]):
        table.get_by_role("button", name="Width").click()
        expect(table.locator("tbody th")).to_have_text(order)


def test_a_pair_and_a_row_over_all_heads(known_page: ReadPage) -> None:
    read, page, every = (
        known_page,
        known_page.page,
        {(layer, head): exact(ITEMS, layer, head) for layer in LAYERS for head in range(HEADS)},
    )
    read.go(f"{STATE}&column=40")
    read.rest_long()
    on_pair = sorted(every, key=lambda head: -every[head][ROW, 40])
    lines = rank(page, page.locator("[data-key=pair] h3").inner_text())
    assert len(lines) >= 3
    for (layer, head), (name, text) in zip(on_pair, lines, strict=False):
        assert name == f"{layer}.{head}"
        assert nearly(text, percent, every[layer, head][ROW, 40])
    heaviest = sorted(((x, head, j) for head in every for j, x in enumerate(every[head][ROW])), reverse=True)
    buttons = page.locator("[data-key=heaviest] li:visible button")
    assert buttons.count() >= 3
    for (weight, (layer, head), column), line in zip(heaviest, buttons.all(), strict=False):
        asked = [line.get_attribute(f"data-{name}") for name in ("layer", "head", "row", "column")]
        assert asked == [str(n) for n in (layer, head, ROW, column)]
        assert nearly(line.locator("span").last.inner_text(), percent, weight)
    buttons.first.click()
    read.rest()
    weight, (layer, head), column = heaviest[0]
    assert f"layer={layer}" in page.url or layer == LAYERS[0]
    assert nearly(page.locator(".say em").inner_text(), percent, weight)
    assert (ROW, column) in read.cells()


CENTRES = """places => {
  const canvas = document.querySelector('.thumbs canvas'), { width, height } = canvas;
  const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, width, height).data.buffer);
  const middles = side => Array.from({ length: 28 }, (_, n) => Math.floor(((n + 0.5) * side) / 28));
  return places.map(([left, top, side]) =>
    middles(side).flatMap(y => middles(side).map(x => pixels[(top + y) * width + left + x])));
}"""  # of the squares of each thumbnail: colours as whole numbers


def test_thumbnails_are_maxima_over_their_squares(known_page: ReadPage) -> None:
    read, page = known_page, known_page.page
    read.go(STATE)
    read.rest_long()
    grid, canvas = page.get_by_role("grid", name="Heads"), page.locator(".thumbs canvas")
    assert grid.get_attribute("aria-rowcount") == str(HEADS)
    assert grid.get_attribute("aria-colcount") == str(len(LAYERS))
    cell, places = grid.get_by_role("gridcell"), {}
    cell.focus()
    page.keyboard.press("Control+Home")
    for _ in range(HEADS):
        for _ in LAYERS:
            box, whole_box = cell.bounding_box(), canvas.bounding_box()
            assert box is not None
            assert whole_box is not None
            place = [box["x"] - whole_box["x"], box["y"] - whole_box["y"], box["width"]]
            places[cell.get_attribute("aria-label")] = [round(x) for x in place]
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
    assert list(places) == [f"Layer {layer}, head {head}" for head in range(HEADS) for layer in LAYERS]
    edges, weights, shades = np.arange(29) * ITEMS // 28, [], []
    for name, picture in zip(places, page.evaluate(CENTRES, list(places.values())), strict=True):
        layer, head = (int(word.strip(",")) for word in name.split() if word.strip(",").isdecimal())
        matrix = exact(ITEMS, layer, head)
        for a, line in enumerate(np.reshape(picture, (28, 28))):
            for b, colour in enumerate(line):
                if edges[b] >= edges[a + 1]:  # later than all its queries, but for one that it may touch
                    assert edges[b] == edges[a + 1] or not colour, (name, a, b)
                    continue
                weights.append(matrix[edges[a] : edges[a + 1], edges[b] : edges[b + 1]].max())
                shades.append(int(colour))
    steps = list(dict.fromkeys(np.array(shades)[np.argsort(weights)]))
    assert 12 <= len(steps) <= 21, "each shade is one stretch of weights, in order"
    lightness = [sum(int(step).to_bytes(4, "little")[:3]) for step in steps]
    assert lightness == sorted(lightness, reverse=True)
