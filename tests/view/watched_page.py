"""A page that is watched: what it complains of, what it asks, and of whom."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from playwright.sync_api import Browser, Page, Request

POLICY = "addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective))"

VIOLATIONS = """options => axe.run(document, { preload: false, resultTypes: ["violations"], ...options })
  .then(found => found.violations)"""  # what axe-core finds wrong; what it finds right would be many times as long


class Watched:
    """A page and what it complained of: nothing, at the end of a test."""

    ready = ".tri"  # there once the page is

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address, _, self.first = address.partition("#")  # the page, and the state that it opens at
        self.home = self.address.removesuffix("read")
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.asked: list[Request] = []
        self.running: set[Request] = set()
        page.on(
            "console", lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self.requested)
        page.on("requestfinished", lambda request: self.running.discard(request))
        page.on("requestfailed", lambda request: self.running.discard(request))

    def requested(self, request: Request) -> None:
        """Note what is asked, and what goes anywhere but to this server."""
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.elsewhere.append(request.url)
        self.asked.append(request)
        self.running.add(request)

    def open(self, state: str | None = None) -> Page:
        """Show a state, whole."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#{self.first if state is None else state}")
        self.page.locator(self.ready).first.wait_for()
        return self.page


Kind = TypeVar("Kind", bound=Watched)


@contextmanager
def watching(kind: type[Kind], browser: Browser, address: str, **options: Any) -> Iterator[Kind]:
    """A fresh page of a size and likings; nothing may have been complained of, or gone elsewhere, at the end."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options, accept_downloads=True)
    context.set_default_timeout(10_000)
    context.add_init_script(POLICY)
    found = kind(context.new_page(), address)
    yield found
    context.close()
    assert found.complaints == []
    assert found.elsewhere == []
