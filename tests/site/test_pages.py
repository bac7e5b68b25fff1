"""The site in a browser, from disk and without a network: search, links, sizes, themes, and what axe finds."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.site.conftest import Opened
from tests.view.watched_page import VIOLATIONS

Open = Callable[..., Opened]
PAGES = ("index.html", "learn.html", "reference/attention.html", "machine-code.html", "gallery.html", "design.html")


def own(found: Opened) -> None:
    """Nothing was refused by the policy, failed, or came from elsewhere."""
    assert found.messages == []
    assert found.asked
    assert [url for url in found.asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("query", ["softcap", "reproducible bits"])
def test_search_finds_without_a_network(opened: Open, query: str) -> None:
    found = opened("index.html")
    page = found.page
    page.get_by_role("textbox", name="Search").fill(query)
    page.keyboard.press("Enter")
    expect(page.locator("#search-results .search-summary")).to_contain_text("found")
    first = page.locator("#search-results ul.search li a").first
    expect(first).to_be_visible()
    own(found)
    first.click()
    expect(page.locator("article h1").first).to_be_visible()
    own(found)


def test_a_reader_goes_from_page_to_page(opened: Open) -> None:
    found = opened("index.html")
    page = found.page
    page.locator(".sd-card", has_text="You need the same bits").click()
    expect(page.locator("h1")).to_contain_text("The same bits, and how to verify them in your own CI")
    page.go_back()
    page.locator("article").get_by_role("link", name="how the kernel works").click()
    expect(page.locator("h1")).to_contain_text("How the kernel works")
    page.get_by_role("link", name="kernels/forward.py").click()
    expect(page.locator("h1")).to_contain_text("clearhead/kernels/forward.py")
    page.go_back()
    page.locator(".sidebar-tree").get_by_role("link", name="Reference", exact=True).click()
    page.locator("article").get_by_role("link", name="masks and score rules").click()
    page.locator("#clearhead\\.softcap").get_by_role("link", name="[source]").click()
    assert "source/clearhead/rules/scores.py.html#line-" in page.url
    own(found)


def test_the_theme_can_be_chosen_and_stays(opened: Open) -> None:
    found = opened("kernel.html", color_scheme="light", viewport={"width": 1280, "height": 800})
    page = found.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for _ in range(3):
        if page.evaluate("document.body.dataset.theme") != "dark":
            page.locator(".content-icon-container .theme-toggle").click()
    assert page.evaluate(background) != light
    page.reload()
    assert page.evaluate("document.body.dataset.theme") == "dark"
    own(found)


def test_code_of_all_processors_can_be_chosen(opened: Open) -> None:
    found = opened("machine-code.html")
    page = found.page
    page.locator("label", has_text="AArch64").first.click()
    shown = page.locator(".sd-tab-content:visible")
    expect(shown.filter(has_text="fmla").first).to_be_visible()  # all steps follow the choice
    expect(shown.filter(has_text="vfmadd")).to_have_count(0)
    own(found)


def wider(page: Page) -> list[str]:
    """What makes a page scroll sideways."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
             [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > innerWidth)
               .map(e => e.outerHTML.slice(0, 120)).slice(0, 5)"""
    )


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_no_page_scrolls_sideways(opened: Open, width: int) -> None:
    found = opened(PAGES[0], viewport={"width": width, "height": 800})
    wrong = {}
    for name in PAGES:
        found.page.goto(found.page.url.rpartition("/site/")[0] + f"/site/{name}")
        wrong |= {name: wide} if (wide := wider(found.page)) else {}
    assert wrong == {}
    own(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index.html", "reference/caches.html", "machine-code.html"])
def test_everyone_can_use_it(opened: Open, axe: str, name: str, scheme: str) -> None:
    page = opened(name, color_scheme=scheme, viewport={"width": 1280, "height": 900}).page
    page.evaluate(axe)
    found = page.evaluate(VIOLATIONS)
    wrong = [
        f"{one['id']}: {at['html'][:160]} {at['failureSummary'][:300]}" for one in found for at in one["nodes"][:3]
    ]
    assert wrong == [], "\n".join(wrong)
