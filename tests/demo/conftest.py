"""The demo, written once, and its pages from disk in a browser that is offline."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo_pages
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from clearhead.view import page
from tests.view.conftest import axe
from tests.view.watched_page import POLICY

__all__ = ["axe"]

SHARED = ("numbers", "dom", "notebook", "ask", "controls", "appearance", "files")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder, inside one with documentation, without the recording of a large model."""
    site = tmp_path_factory.mktemp("site")
    (site / "index.html").write_text("<!doctype html><title>Docs</title>", "utf-8")
    demo_pages.write_demo(site / "demo", recording=None)
    return site / "demo"


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address in a fresh page of a size and likings; it may not complain, nor ask for anything elsewhere."""
    contexts, complaints = [], []

    def open_page(address: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options, accept_downloads=True)
        contexts.append(context)
        context.add_init_script(POLICY)
        context.set_default_timeout(10_000)
        if address.startswith("file:"):
            context.set_offline(True)
        found = context.new_page()
        home = address.partition("/demo/")[0]
        found.on("console", lambda told: complaints.append(told.text))
        found.on("pageerror", lambda error: complaints.append(str(error)))
        allowed = (home, "data:", "blob:")
        found.on("request", lambda asked: asked.url.startswith(allowed) or complaints.append(asked.url))
        found.goto(address)
        return found

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


Ask = Callable[[str, list[dict[str, Any]]], list[Any]]


@pytest.fixture(scope="module")
def ask_page(browser: Browser, demo: Path) -> Iterator[Callable[..., Ask]]:
    """Gives a function that asks a screen's answers, in a page that has nothing else; refusals are {"refused": why}."""
    context = browser.new_context(offline=True)

    def open_answers(screen: page.Screen, answers: tuple[str, ...], opening: dict[str, Any] | None = None) -> Ask:
        modules = [page.module_text(name) for name in (*SHARED, "learn/attention", "read/sight", "read/tiles")]
        own = [(demo_pages.STATIC / f"{name}.js").read_text("utf-8") for name in answers]
        script = page.joined_script([*modules, *own, "self.asked = request; self.inBase64 = packed;"])
        (demo / "asked.js").write_text(script, "utf-8")
        kept = json.dumps({"known": {}, "live": True, "screens": {}, "opening": opening})
        path = demo / "asked.html"
        data = "".join(f'<script src="{name}.js" data-file="{name}"></script>' for name in ("words", "model"))
        kept_element = f'<script type="application/json" id="kept">{kept}</script>'
        path.write_text(f'<!doctype html><meta charset="utf-8">{kept_element}<script src="asked.js"></script>{data}')
        found = context.new_page()
        found.goto(path.as_uri())
        told = """([what, all]) => Promise.all(all.map((about) =>
            asked(what, about).then(inBase64, (error) => ({ refused: error.message }))))"""
        return lambda what, all_about: [with_numbers(one) for one in found.evaluate(told, [what, all_about])]

    yield open_answers
    context.close()


def with_numbers(told: dict[str, Any]) -> dict[str, Any]:
    """An answer whose numbers came in base64."""
    values = told.get("values")
    return told if values is None else told | {"values": np.frombuffer(base64.b64decode(values), "<f4")}
