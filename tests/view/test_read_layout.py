"""Where things stand on the Read screen: nothing overlaps, moves by itself, breaks a word or is too small."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.view.conftest import serving
from tests.view.known import TEXT
from tests.view.read_page import ReadPage

Reads = Callable[..., ReadPage]
BYTES = "Der Fluß war spät.\n中文字 und 🚀 fliegen."
ALIGNED, PATCHES = "reading=0&layer=1&heads=2", "reading=1&layer=1&heads=1"
TWO = f"{PATCHES}&panes=2&reading2=0&layer2=1"

# What is clicked and is smaller than it should be; a tick box is clicked by its label.
SMALL = """least => [...document.querySelectorAll('.bar *, .view *, .stage *, .trust *')]
  .filter(e => e.matches('button, select, summary, input, a[href]') && e.checkVisibility())
  .map(e => (e.type === 'checkbox' && e.closest('label')) || e)
  .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
  .filter(([, box]) => box.height && (box.width < least - 0.1 || box.height < least - 0.1)).map(([name]) => name)"""
# Boxes that lie one over the other, or leave the box they are in.
ASTRAY = """() => {
  const of = e => e.getBoundingClientRect(), found = [];
  const name = e => String(e.className.baseVal ?? e.className);
  for (const pane of document.querySelectorAll('.pane')) {
    const sections = [...pane.querySelectorAll('.view, .stage > section, .trust, .sheet')];
    for (const section of sections) {
      const inner = [...section.children].filter(e => e.checkVisibility() && of(e).height > 1
        && getComputedStyle(e).position !== 'absolute');
      for (const e of inner)
        if (of(e).bottom > of(section).bottom + 1 || of(e).right > of(section).right + 1) found.push(name(e));
      if (!section.matches('.view, .trust'))
        inner.slice(1).forEach((e, at) => of(e).top < of(inner[at]).bottom - 4 - 8 * e.matches('.mass')
          && of(e).left < of(inner[at]).right - 1 && found.push(`${name(inner[at])} / ${name(e)}`));
    }
    for (const a of sections) for (const b of sections)
      if (a !== b && of(a).top < of(b).bottom - 1 && of(b).top < of(a).bottom - 1
        && of(a).left < of(b).right - 1 && of(b).left < of(a).right - 1) found.push(`${name(a)} on ${name(b)}`);
  }
  return found;
}"""
PLACES = """() => Object.fromEntries([...document.querySelectorAll('.text [data-j]')].map(e => {
  const box = e.getBoundingClientRect(); return [e.dataset.j, [box.x, box.y, box.width, box.height]] }))"""
TOPS = """([pane, parts]) => parts.map(part =>
  Math.round(document.querySelectorAll('.pane')[pane].querySelector(part).getBoundingClientRect().top))"""
CONTRASTS = """() => Array.from({ length: 21 }, (_, step) => {
  const probe = document.body.appendChild(document.createElement('i'));
  probe.className = `w${step}`;
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const light = colour => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(x => x / 255)
      .map(x => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const { color, backgroundColor } = getComputedStyle(probe);
  const [dark, bright] = [light(color), light(backgroundColor)].sort((a, b) => a - b);
  probe.remove();
  return (bright + 0.05) / (dark + 0.05);
})"""


@pytest.fixture(scope="module")
def made_up() -> Iterator[str]:
    """Where a translation and a picture are read."""
    with serving("tests.view.made_up", "alignment", "patch") as found:
        yield found


@pytest.fixture(scope="module")
def in_bytes() -> Iterator[str]:
    """Where the small model reads characters that its tokens do not hold."""
    with serving("clearhead", "view", "--no-browser", "--model", "tiny", BYTES) as found:
        yield found


def size(width: int, height: int = 800) -> dict[str, int]:
    """A window's."""
    return {"width": width, "height": height}


@pytest.mark.parametrize(("width", "touch"), [(320, True), (360, False), (640, False), (900, False), (1280, False)])
def test_all_is_in_its_place_and_large_enough(reads: Reads, made_up: str, width: int, touch: bool) -> None:
    screen = reads(made_up, viewport=size(width), has_touch=touch)
    for state in (ALIGNED, PATCHES, TWO):
        page = screen.open(state)
        assert page.evaluate(SMALL, 44 if touch else 24) == []
        if state != TWO or width > 720:
            assert page.evaluate(ASTRAY) == []
        for key in ("", ","):
            page.keyboard.press(key) if key else None
            screen.rest()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (state, key)


def test_a_narrow_bar_keeps_all_in_a_menu(reads: Reads, made_up: str) -> None:
    page = reads(made_up, viewport=size(320), has_touch=True).open(PATCHES)
    page.get_by_label("More").first.click()
    for name in ("Compare", "Numbers, CSV", "Copy link", "Keys", "Dark"):
        expect(page.locator(".narrow").get_by_text(name, exact=True)).to_be_visible()
    page.locator(".narrow").get_by_text("Compare", exact=True).click()
    expect(page.locator(".pane")).to_have_count(2)


@pytest.mark.parametrize("width", [360, 1280])
def test_lines_break_between_words(reads: Reads, small: str, width: int) -> None:
    page = reads(small, viewport=size(width, 1400)).open()
    page.locator(".text").evaluate("e => { e.scrollTop = 0 }")
    page.wait_for_timeout(100)
    lines = page.locator(".ln").evaluate_all(
        "all => all.sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top)).map(e => e.textContent)"
    )
    words = " ".join(lines).removeprefix("<s>").split()
    assert len(lines) > 3
    assert words == TEXT.split()[: len(words)]


def test_choosing_a_token_moves_no_text(reads: Reads, small: str) -> None:
    screen = reads(small)
    page = screen.open("layer=1&heads=2&row=40")
    before = page.evaluate(PLACES)
    for token, modifiers in ((20, []), (9, ["Shift"]), (47, [])):
        page.locator(f".text [data-j='{token}']").click(modifiers=modifiers)
        screen.rest()
        assert page.evaluate(PLACES) == before
    assert page.evaluate("getSelection().toString()") == ""


def test_what_follows_stays_where_it_is(reads: Reads, small: str) -> None:
    screen = reads(small)
    page = screen.open("layer=1&heads=2&row=40")
    parts = [".textpane .seg", ".pages", ".chip", ".say", ".lhead", ".mass", ".mapbox", ".cells"]
    before = page.evaluate(TOPS, [0, parts])
    for act in (".", "/", "whale"):
        page.keyboard.type(act)
        screen.rest()
        assert page.evaluate(TOPS, [0, parts]) == before, act


def test_a_character_in_bytes_is_drawn_once(reads: Reads, in_bytes: str) -> None:
    page = reads(in_bytes).open()
    pieces = page.locator(".piece").evaluate_all("all => all.map(e => [e.getAttribute('aria-label'), e.title])")
    assert [name for name, _ in pieces[:2]] == ["ß, piece 1 of 2", "ß, piece 2 of 2"]
    assert [title[:4] for _, title in pieces[:2]] == [r"\xc3", r"\x9f"]
    assert [name for name, _ in pieces if "🚀" in name] == [f"🚀, piece {n} of 4" for n in (1, 2, 3, 4)]
    assert page.locator(".piece").first.bounding_box()["height"] < 30
    assert "xc3" not in page.locator(".text").inner_text()


@pytest.mark.parametrize("width", [900, 1280])
def test_two_views_line_up(reads: Reads, made_up: str, width: int) -> None:
    page = reads(made_up, viewport=size(width)).open(TWO)
    parts = [".view", ".textpane", ".chip", ".say", ".answer .headline", ".lhead", ".mass", ".mapbox", ".words",
             ".cells", ".trust", ".sheet"]  # fmt: skip
    assert page.evaluate(TOPS, [0, parts]) == page.evaluate(TOPS, [1, parts])


def patch_at(page: Page, row: int, column: int) -> dict[str, float]:
    """Where in the picture a patch's middle is."""
    box = page.locator(".picture").bounding_box()
    return {"x": (column + 0.5) * box["width"] / 16, "y": (row + 0.5) * box["height"] / 12}


def test_a_picture_is_asked_as_a_text_is(reads: Reads, made_up: str) -> None:
    screen = reads(made_up)
    page = screen.open(PATCHES)
    picture = page.locator(".textpane .picture")
    assert picture.bounding_box()["width"] > 400
    assert page.locator(".mapbox").is_visible()
    picture.click(position=patch_at(page, 5, 0))
    screen.rest()
    assert "row 6, column 1" in screen.sentence()
    picture.click(position=patch_at(page, 7, 3), modifiers=["Shift"])
    screen.rest()
    assert "on row 8, column 4" in screen.sentence()
    page.keyboard.press("ArrowDown")
    screen.rest()
    assert "row 7, column 1 puts" in screen.sentence()
    page.locator(".others").get_by_role("button", name="[class]").click()
    screen.rest()
    assert "[class] puts" in screen.sentence()


def test_theme_and_contrast_are_two_choices(reads: Reads, made_up: str) -> None:
    page = reads(made_up).open(ALIGNED)
    marked = page.locator(".menu:not(.narrow) [aria-checked=true]")
    for name, others in (("Dark", ["Dark", "As the system"]), ("High", ["Dark", "High"])):
        page.get_by_label("Appearance").first.click()
        page.locator(".menu:not(.narrow)").get_by_text(name, exact=True).click()
        assert marked.all_text_contents() == others
    assert min(page.evaluate(CONTRASTS)) >= 7
    page.reload()
    expect(page.locator("html[data-theme=dark][data-contrast=more]")).to_have_count(1)
    page.emulate_media(color_scheme="light")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert min(page.evaluate(CONTRASTS)) >= 7
