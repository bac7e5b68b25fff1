"""Every number on the Read screen against matrices in float64: rows, columns, joined heads, cells, colours."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import expect

from clearhead.definition import weights as definition
from clearhead.model import load
from tests.view.known import REACH, READINGS, TEXT, exact, lengths
from tests.view.printed import nearly, number, percent, round_down, short, step, whole
from tests.view.read_page import ReadPage

LISTED, MORE = 14, 40  # lines at first, and those that a click adds
FIRST = {items: list(READINGS).index(str(items)) for items in (120, 700, 2000)}  # of the readings
Reads = Callable[..., ReadPage]


def small_head(layer: int, head: int) -> np.ndarray:
    """A head of the small model over the text, in float64."""
    model = load()
    done = model.forward(model.tokenizer.encode(TEXT)).layers[layer]
    q, k = (x[head].astype(np.float64) for x in (done.q, done.k))
    return definition.weights(q, k, scale=done.scale)


def check_list(read: ReadPage, line: np.ndarray, rule: Callable[[float], str] = percent, first: bool = True) -> None:
    """The list says of a line, in float64, what it must; without the first item unless `first`."""
    line = line.copy()
    if not first:
        line[0] = 0
    order = np.argsort(-line, kind="stable")
    order = order[line[order] > 1e-30]
    sums = np.cumsum(line[order]) / line.sum()
    listed = read.listed()
    assert len(listed) == min(LISTED, len(order)) or len(listed) == min(LISTED + MORE, len(order))
    assert [item.rank for item in listed] == [whole(n + 1) for n in range(len(listed))]
    for n, item in enumerate(listed):
        assert item.item == order[n] or np.isclose(line[item.item], line[order[n]], rtol=3e-6), (n, item)
        assert nearly(item.weight, rule, line[item.item]), (item, line[item.item])
        assert nearly(item.sum, percent, sums[n]), (item, sums[n])
    carriers = {cut: int((sums < cut / 100 - 1e-6).sum()) + 1 for cut in (50, 90, 99)}
    between = {}  # of cuts at the same place, the highest is told
    for cut, count in carriers.items():
        between[count] = f"{whole(count)} token{'s' * (count > 1)} {'carry' if count > 1 else 'carries'} {cut} %"
    *cuts, rest = read.said_between()
    assert cuts == [said for count, said in between.items() if count <= len(listed)]
    others = len(order) - len(listed)
    if others:
        said, left = rest.split(" Show ")[0], float(1 - sums[len(listed) - 1])
        words = f"the other {whole(others)} token{'s' * (others > 1)} {'carry' if others > 1 else 'carries'} "
        assert said.startswith(words)
        assert nearly(said.removeprefix(words), percent, left, 1e-4)
    sentence = read.sentence()
    if carriers[90] > 1:
        assert f"{whole(carriers[90])} tokens carry 90 %" in sentence


def check_sentence(read: ReadPage, row: int, line: np.ndarray) -> None:
    """The sentence about a row names its heaviest key but the first, and what it rests on the first."""
    other = 1 + int(np.argmax(line[1:]))
    said = read.page.locator(".say em").inner_text()
    assert nearly(said, percent, line[other]), (said, line[other])
    back = row - other
    where = f", {whole(back)} token{'s' * (back > 1)} back" if back else " on itself"
    assert where in read.sentence()
    rests = f"rests {percent(float(np.float32(line[0])))} on the first token" if line[0] >= 0.01 else "puts"
    assert rests in read.sentence()


def check_cells(read: ReadPage, matrix: np.ndarray, row: int, column: int) -> None:
    """The table of cells stands round a pair, and says what the matrix holds."""
    cells = read.cells()
    assert (row, column) in cells
    assert len(cells) == 30
    for (i, j), text in cells.items():
        if j > i:
            assert text == "not seen"
        else:
            assert nearly(text, short, matrix[i, j]), (i, j, text, matrix[i, j])


CASES = [
    pytest.param("small", 1, 2, 70, id="small model"),
    pytest.param("120", 2, 1, 119, id="120"),
    pytest.param("2000", 5, 3, 1888, id="2000"),
]


@pytest.mark.parametrize(("name", "layer", "head", "row"), CASES)
def test_rows_and_columns_are_those_of_the_matrix(
    reads: Reads, small: str, known_page: ReadPage, name: str, layer: int, head: int, row: int
) -> None:
    of_model = name == "small"
    matrix = small_head(layer, head) if of_model else exact(int(name), layer, head)
    read = reads(small) if of_model else known_page
    if of_model:
        read.open()
    about = f"{'' if of_model else f'reading={FIRST[int(name)]}&'}layer={layer}&heads={head}"
    read.go(f"{about}&row={row}")
    page = read.page
    check_list(read, matrix[row])
    check_sentence(read, row, matrix[row])
    check_cells(read, matrix, row, 1 + int(np.argmax(matrix[row, 1:])))
    before = {item.item: item.weight for item in read.listed()}
    if page.get_by_role("button", name="Show 40 more").count():
        page.get_by_role("button", name="Show 40 more").click()
        check_list(read, matrix[row])
        before = {item.item: item.weight for item in read.listed()}
    page.get_by_label("without the first token").check()
    read.rest()
    check_list(read, matrix[row], first=False)
    expect(page.locator(".answer")).to_contain_text("the map has it. The first token holds ")
    assert all(before.get(item.item, item.weight) == item.weight for item in read.listed()), "weights change too"
    assert "of the rest" in read.sentence()
    page.get_by_role("radio", name="who reads it").click()
    read.rest()
    check_list(read, matrix[:, row])
    read.go(f"{about}&by=column&column=0")
    check_list(read, matrix[:, 0])
    check_cells(read, matrix, int(np.argmax(matrix[:, 0])), 0)


def test_heads_are_joined_and_weighed(known_page: ReadPage) -> None:
    read, row = known_page, 600
    heads = np.stack([exact(700, 2, head) for head in range(4)])
    valued = heads * np.stack([lengths(700, 2, head) for head in range(4)])[:, None]
    for state, line, rule in (
        ("heads=0+1+3&join=mean", heads[[0, 1, 3]].mean(0)[row], percent),
        ("heads=3+1&join=max", heads[[1, 3]].max(0)[row], percent),
        ("heads=2&measure=value", valued[2, row], number),
        ("heads=0+1+2+3&join=mean&measure=value", valued.mean(0)[row], number),
        ("heads=1+2&join=max&by=column&column=17", heads[1:3].max(0)[:, 17], percent),
    ):
        read.go(f"reading={FIRST[700]}&layer=2&row={row}&{state}")
        check_list(read, line, rule)
    page = read.page
    read.go(f"reading={FIRST[700]}&layer=2&heads=2&row={row}")
    assert page.locator(".headpick .br").all_inner_texts() == ["key 0", "key 1"]
    page.get_by_role("radio", name="head 0", exact=True).click(modifiers=["Control"])
    read.rest()
    check_list(read, heads[[2, 0]].mean(0)[row])
    page.get_by_role("button", name="head 3", exact=True).click(modifiers=["Shift"])
    read.rest()
    check_list(read, heads.mean(0)[row])
    page.get_by_role("radio", name="one head").click()
    read.go(f"reading={FIRST[700]}&layer=2&heads=2&row={row}")
    page.get_by_role("radio", name="mean", exact=True).first.click()
    read.rest()
    check_list(read, heads.mean(0)[row])
    page.get_by_role("button", name="Times the value’s length").click()
    read.rest()
    check_list(read, valued.mean(0)[row], number)
    expect(page.locator(".say")).to_contain_text("weight times the value’s length")


def test_a_window_hides_what_is_far(known_page: ReadPage) -> None:
    read, page, row = known_page, known_page.page, 80
    read.go(f"reading={list(READINGS).index('windowed')}&layer=5&heads=1&row={row}")
    line = exact(100, 5, 1, REACH)[row]
    assert np.count_nonzero(line) == REACH + 1
    check_list(read, line)
    titles = dict(page.locator(".text .t:visible").evaluate_all("all => all.map(e => [+e.dataset.j, e.title])"))
    assert {titles[j].partition(": ")[2] for j in range(row - REACH)} == {"before its window: not seen"}
    assert {titles[j].partition(": ")[2] for j in range(row + 1, 100)} == {"later: not seen"}
    assert "Hatched is later or before its window: not seen." in page.locator(".textcap").inner_text()
    assert "hidden tokens: exactly 0" in page.locator(".trust").inner_text()


@pytest.mark.parametrize("without", [False, True])
def test_the_text_is_shaded_by_a_scale_that_is_told(known_page: ReadPage, without: bool) -> None:
    read, row = known_page, 1500
    page = read.page
    read.go(f"reading={FIRST[2000]}&layer=2&heads=1&row={row}&without={str(without).lower()}")
    line = exact(2000, 2, 1)[row]
    floor = round_down(min(line.sum() / 2000, line.max() / 10))
    assert f"Shaded from {100 * floor:g} % to 100 %" in page.locator(".textcap").inner_text()
    assert "Hatched is later: not seen." in page.locator(".textcap").inner_text()
    assert "later tokens: exactly 0" in page.locator(".trust").inner_text()
    share = 1 / (1 - line[0]) if without else 1
    found = page.locator(".text .t").evaluate_all("all => all.map(e => [+e.dataset.j, e.className, e.title])")
    assert len(found) > 100
    page.get_by_role("listbox", name="Text", exact=True).evaluate("e => { e.scrollTop = 0 }")
    page.wait_for_timeout(100)
    found += page.locator(".text .t").evaluate_all("all => all.map(e => [+e.dataset.j, e.className, e.title])")
    steps = set()
    for j, kinds, title in found:
        at = next((int(kind[1:]) for kind in kinds.split() if kind[0] == "w" and kind[1:].isdecimal()), 0)
        if j > row:
            assert "later" in kinds.split()
            assert title == f"{whole(j)}: later: not seen"
            continue
        assert title.startswith(f"{whole(j)}: ")
        assert nearly(title.partition(": ")[2], percent, line[j])
        if j != row:
            wanted = (
                {0} if without and not j else {step(line[j] * share * part, floor) for part in (1 - 1e-5, 1, 1 + 1e-5)}
            )
            assert at in wanted, (j, kinds, line[j])
        steps.add(at)
    assert len(steps) > 5
