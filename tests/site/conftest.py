"""The site, built once for all tests and processes, and pages of it in a browser, opened from disk."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Site:
    """A built site, and what was said while it was built."""

    folder: Path
    said: str


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What `scripts/site` builds; the first process that needs it builds for all of them."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if place.name.startswith("popen-") else place
    folder, said = place / "site", place / "site.txt"
    with FileLock(place / "site.lock"):
        if not said.exists():
            command = [sys.executable, ROOT / "scripts" / "site", folder]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            said.write_text(f"{done.returncode}\n{done.stdout}{done.stderr}", "utf-8")
    return Site(folder, said.read_text("utf-8"))


@dataclass
class Opened:
    """A page, the faults that its console told, and every address that it asked for."""

    page: Page
    messages: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Browser, site: Site) -> Iterator[Callable[..., Opened]]:
    """Opens a page of the site from disk, of a size and likings given by name."""
    with ExitStack() as contexts:

        def opened_page(name: str, **options: Any) -> Opened:
            context = browser.new_context(**options)
            contexts.callback(context.close)
            found = Opened(context.new_page())
            found.page.on("console", lambda message: message.type == "log" or found.messages.append(message.text))
            found.page.on("pageerror", lambda error: found.messages.append(str(error)))
            found.page.on("request", lambda request: found.asked.append(request.url))
            path, _, rest = name.partition("?")
            found.page.goto((site.folder / path).as_uri() + (f"?{rest}" if rest else ""))
            return found

        yield opened_page


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source, as scripts/browser fetches it."""
    source = ROOT / ".browser/node_modules/axe-core/axe.min.js"
    assert source.exists(), "no axe-core here: run scripts/browser"
    return source.read_text("utf-8")
