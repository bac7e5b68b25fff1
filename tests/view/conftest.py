"""A server of its own and a real browser, for the tests that touch the page."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first is the fastest


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where a fresh `clearhead view` serves."""
    command = [sys.executable, "-u", "-m", "clearhead", "view", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield re.search(r"http://\S+", server.stdout.readline())[0]
    finally:
        server.terminate()
        server.wait(10)


def chromium() -> str:
    """Chromium's path, as scripts/browser installs it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, "no Chromium here: run scripts/browser"
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield launched
        launched.close()


class Watched:
    """A page and what it complained of: nothing, at the end of a test."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.on(
            "console", lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self.requested)

    def requested(self, request: Any) -> None:
        """Note what goes anywhere but to this server."""
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self, state: str = "") -> Page:
        """Show a state, whole."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#{state}")
        self.page.locator(".tri").wait_for()
        return self.page


@pytest.fixture
def watched(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A fresh page; `@pytest.mark.parametrize("watched", [{…}], indirect=True)` gives its size and likings."""
    options = {"viewport": {"width": 1280, "height": 800}, **getattr(request, "param", {})}
    context = browser.new_context(**options, accept_downloads=True)
    context.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective))"
    )
    found = Watched(context.new_page(), address)
    yield found
    context.close()
    assert found.complaints == []
    assert found.elsewhere == []


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source, as scripts/browser fetches it."""
    source = Path(__file__).parents[2] / ".browser/node_modules/axe-core/axe.min.js"
    assert source.exists(), "no axe-core here: run scripts/browser"
    return source.read_text("utf-8")
