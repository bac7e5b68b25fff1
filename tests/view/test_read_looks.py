"""Read as anybody may see it: sizes, themes and contrasts; nothing is cut, overlaps or scrolls sideways, says axe."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.view.known import READINGS
from tests.view.read_page import ReadPage
from tests.view.test_page import LOOKS
from tests.view.watched_page import VIOLATIONS

Reads = Callable[..., ReadPage]
PLACES = {name: f"reading={at}" for at, name in enumerate(READINGS)}
STATES = {
    "row": f"{PLACES['120']}&layer=5&heads=1&row=100&without=true",
    "two texts": f"{PLACES['alignment']}&layer=1&heads=2&row=7",
    "patches": f"{PLACES['patch']}&layer=1&heads=1&row=30",
    "hostile": f"{PLACES['hostile']}&layer=5&heads=2&row=30",
    "two views": f"panes=2&{PLACES['120']}&{PLACES['120'].replace('=', '2=')}&row=100&layer2=5&heads2=3",
    "column": f"{PLACES['120']}&layer=2&by=column&column=17&measure=value",
    "joined": f"{PLACES['120']}&layer=2&heads=0+1+2+3&join=mean&sheet=rank&how=sum",
}
IN_EACH_LOOK = list(STATES)[:5]
COLOURS_SEEN = ("row", "patches")  # in each look
HELPERS = """
  const style = e => getComputedStyle(e);
  const isSeen = e => e.checkVisibility() && !e.closest('.unseen') && style(e).clipPath === 'none';
  const visible = e => { // what its ancestors leave of its box
    let { left, top, right, bottom } = e.getBoundingClientRect();
    for (let up = e.parentElement; up; up = up.parentElement) {
      if (style(up).overflow === 'visible') continue;
      const box = up.getBoundingClientRect();
      [left, top] = [Math.max(left, box.left), Math.max(top, box.top)];
      [right, bottom] = [Math.min(right, box.right), Math.min(bottom, box.bottom)];
    }
    return { left, top, right, bottom, width: right - left, height: bottom - top };
  };
  const named = e => `${e.localName}.${e.className} ${e.textContent.slice(0, 40)}`;
  const hasDots = e => e && (style(e).textOverflow === 'ellipsis' || hasDots(e.parentElement));
  const panes = [...document.querySelectorAll('.pane')];
"""
OVERLAPS = """() => {HELPERS
  const shown = (root, parts) => parts.flatMap(part => [...root.querySelectorAll(part)]).filter(isSeen)
    .map(e => [named(e).slice(0, 40), visible(e)]).filter(([, { width, height }]) => width > 0 && height > 0);
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const clashes = boxes => boxes.flatMap(([name, a], at) =>
    boxes.slice(0, at).filter(([, b]) => over(a, b)).map(([other]) => `${name} over ${other}`));
  const groups = [
    [document, ['.bar', '.pane']],
    [document, ['.bar .mark', '.bar nav', '.tools > *']],
    ...panes.flatMap(pane => [
      [pane, ['.view', '.textpane', '.answer', '.mappane', '.trust', '.sheet']],
      ...['.view', '.textpane', '.textpane .headline', '.answer', '.mappane', '.mappane .words', '.trust', '.sheet']
        .map(part => [pane, [`${part} > *`]]),
    ]),
  ];
  return groups.flatMap(([root, parts]) => clashes(shown(root, parts)));
}""".replace("HELPERS", HELPERS)
OUTSIDE = """() => {HELPERS
  return panes.flatMap(pane => ['.view', '.textpane', '.answer', '.mappane', '.trust', '.sheet'].flatMap(part => {
    const whole = pane.querySelector(part), { left, right, bottom } = whole.getBoundingClientRect();
    return [...whole.querySelectorAll(':not(.marks, option)')].filter(isSeen).filter(e => {
      const one = visible(e);
      const far = Math.max(one.right - right, left - one.left, one.bottom - bottom);
      return one.width > 1 && one.height > 1 && far > 2;
    }).map(e => `${part}: ${named(e)}`);
  }));
}""".replace("HELPERS", HELPERS)
CUT = """() => {HELPERS
  const all = '.wt, .cum, .rk, .chips span, .seg button, .cells td, .chip span, .who *, .hd, .rank button > span, '
    + '.trust span, .legend text, .cap, .headline > *, .bar *';
  return [...document.querySelectorAll(all)].filter(isSeen).filter(e => {
    if (e.querySelector('.unseen') || ![...e.childNodes].some(node => node.data?.trim())) return false;
    const range = document.createRange();
    range.selectNodeContents(e);
    const text = range.getBoundingClientRect(), box = e.getBoundingClientRect();
    const out = Math.max(text.right - box.right, box.left - text.left);
    const cut = style(e).overflowX !== 'visible' && !hasDots(e);
    return box.width && text.width && out > (cut ? 1 : 8) && !hasDots(e);
  }).map(named);
}""".replace("HELPERS", HELPERS)


GEOMETRY = {"overlaps": OVERLAPS, "outside": OUTSIDE, "cut": CUT}
ALL_BUT_COLOURS = {"rules": {"color-contrast": {"enabled": False}}}
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}


def violations(page: Page, options: dict[str, Any]) -> list[str]:
    """What axe finds, in words."""
    found = page.evaluate(VIOLATIONS, options)
    return [f"{one['id']}: {at['html'][:200]} {at['failureSummary'][:400]}" for one in found for at in one["nodes"][:3]]


def found_wrong(read: ReadPage, state: str, checks: list[dict[str, Any]]) -> list[str]:
    """What is cut, outside of its part, over another, makes the page scroll sideways, or what axe finds in a state."""
    read.go(STATES[state])
    if ALL_BUT_COLOURS in checks:
        read.rest_long()
    wide = read.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    found = [f"{state}: scrolls sideways by {wide} pixels"] if wide > 0 else []
    found += [f"{state}: {name}: {one}" for name, script in GEOMETRY.items() for one in read.page.evaluate(script)]
    return found + [f"{state}: {one}" for check in checks for one in violations(read.page, check)]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: "-".join(map(str, [look["viewport"]["width"], *look][:-1])))
def test_everyone_can_use_it(reads: Reads, known: str, axe: str, look: dict[str, Any]) -> None:
    read, first = reads(known, **look), look is LOOKS[0]
    read.open(STATES["row"])
    read.page.evaluate(axe)
    wrong = []
    for state in STATES if first else IN_EACH_LOOK:
        checks = [ALL_BUT_COLOURS] if first else []
        wrong += found_wrong(read, state, [*checks, COLOURS] if state in COLOURS_SEEN else checks)
    assert wrong == [], "\n".join(wrong)


def test_what_is_clicked_is_large_enough(reads: Reads, small: str, axe: str) -> None:
    read = reads(small)
    page = read.open("row=60")
    read.rest_long()
    page.evaluate(axe)
    assert violations(page, {"runOnly": ["target-size"]}) == []


def test_everyone_can_use_what_opens(reads: Reads, small: str, axe: str) -> None:
    read = reads(small)
    page = read.open("row=60")
    page.evaluate(axe)
    page.get_by_text("The same as numbers").click()
    page.locator(".find input").fill("whale")
    page.locator("summary", has_text="Export").click()
    expect(page.locator(".headtable")).to_be_visible()
    assert violations(page, ALL_BUT_COLOURS) == []
    for name in ("Keys", "Read another text"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("dialog", name=name)).to_be_visible()
        assert violations(page, ALL_BUT_COLOURS) == []
        page.keyboard.press("Escape")
    page.route("**/ask/line", lambda route: route.abort())
    page.locator(".text .t:visible").nth(9).click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page, ALL_BUT_COLOURS) == []
    read.complaints = [told for told in read.complaints if "ERR_FAILED" not in told]
