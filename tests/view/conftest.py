"""A server of its own and a real browser, for the tests that touch the page."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.view.known import READINGS, TEXT
from tests.view.read_page import ReadPage
from tests.view.watched_page import Watched, watching


@contextmanager
def serving(*command: str) -> Iterator[str]:
    """Where `python -m command` serves its page, as long as the block lasts."""
    with subprocess.Popen([sys.executable, "-u", "-m", *command], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield re.search(r"http://\S+", server.stdout.readline())[0]
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where a fresh `clearhead view` serves."""
    with serving("clearhead", "view", "--no-browser") as found:
        yield found


@pytest.fixture(scope="session")
def needle() -> Iterator[str]:
    """Where a text of 32,768 words with a needle is read."""
    with serving("tests.view.needle") as found:
        yield found


@pytest.fixture(scope="session")
def known() -> Iterator[str]:
    """Where all of `known.READINGS` are read, in order."""
    with serving("tests.view.known", *READINGS) as found:
        yield found


@pytest.fixture(scope="session")
def small() -> Iterator[str]:
    """Where the small model reads `known.TEXT`."""
    with serving("clearhead", "view", "--no-browser", "--model", "tiny", TEXT) as found:
        yield found


@pytest.fixture(scope="session")
def watches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A watch of a model that went on with a text, and one of the same model changed."""
    from tests.view.watches import save_watches  # brings torch

    return save_watches(tmp_path_factory.mktemp("watches"))


@pytest.fixture(scope="session")
def compared(watches: tuple[Path, Path]) -> Iterator[str]:
    """Where two saved watches are read."""
    before, after = map(str, watches)
    with serving("clearhead", "view", "--no-browser", "--watch", before, "--watch", after) as found:
        yield found


@pytest.fixture
def watched(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A fresh page; `@pytest.mark.parametrize("watched", [{…}], indirect=True)` gives its size and likings."""
    with watching(Watched, browser, address, **getattr(request, "param", {})) as found:
        yield found


@pytest.fixture
def reads(browser: Browser) -> Iterator[Callable[..., ReadPage]]:
    """Opens a fresh page at an address, of a size and likings given by name."""
    with ExitStack() as pages:
        yield lambda address, **options: pages.enter_context(watching(ReadPage, browser, address, **options))


@pytest.fixture(scope="module")
def known_page(browser: Browser, known: str) -> Iterator[ReadPage]:
    """A page for all tests of a module that only `go` from state to state of the known readings, and read."""
    with watching(ReadPage, browser, known) as read:
        read.open()
        yield read


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source, as scripts/browser fetches it."""
    source = Path(__file__).parents[2] / ".browser/node_modules/axe-core/axe.min.js"
    assert source.exists(), "no axe-core here: run scripts/browser"
    return source.read_text("utf-8")
