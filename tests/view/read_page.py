"""The Read screen as a person reads it: its sentence, its list, its tables, and when it has come to rest."""

import re
from typing import Any, NamedTuple

from playwright.sync_api import Locator, Page

from tests.view.watched_page import Watched

POLL = 40  # milliseconds
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Item(NamedTuple):
    """A line of the list, as it is printed."""

    rank: str
    weight: str
    word: str
    where: str
    sum: str
    item: int


class ReadPage(Watched):
    """A watched page that shows Read."""

    ready = ".mass li"

    def open(self, state: str | None = None) -> Page:
        """Show a state, whole."""
        super().open(state)
        self.rest()
        return self.page

    def go(self, state: str) -> None:
        """Show another state on the same page."""
        self.page.evaluate("s => { location.hash = s }", state)
        self.rest()

    def rest(self, polls: int = 3) -> None:
        """Wait until nothing has been asked for a moment."""
        quiet = 0
        while quiet < polls:
            self.page.wait_for_timeout(POLL)
            quiet = 0 if self.running else quiet + 1
        self.page.evaluate(DRAWN)  # on a busy machine, the page may have what it asked for and not have drawn it

    def rest_long(self) -> None:
        """Wait for what is asked a moment after the last choice, too: the lists over all heads."""
        self.rest(10)

    def pane(self, at: int = 0) -> Locator:
        """One of the panes."""
        return self.page.locator(".pane").nth(at)

    def sentence(self, pane: int = 0) -> str:
        """The sentence above the list."""
        return plain(self.pane(pane).locator(".say").inner_text())

    def listed(self, pane: int = 0) -> list[Item]:
        """The lines of the list."""
        found = self.pane(pane).locator(".mass").evaluate(
            """list => [...list.querySelectorAll('[data-pick]')].map(line => [
                 ...['.rk', '.wt', 'b', '.far', '.cum'].map(part => line.querySelector(part).textContent),
                 +line.dataset.pick])"""
        )  # fmt: skip
        return [Item(*line) for line in found]

    def said_between(self, pane: int = 0) -> list[str]:
        """What stands between the lines of the list, and below them."""
        return [plain(text) for text in self.pane(pane).locator(".mass .cut, .mass .rest").all_inner_texts()]

    def cells(self, pane: int = 0) -> dict[tuple[int, int], str]:
        """The table of cells round the chosen pair."""
        found = self.pane(pane).locator(".cells [role=gridcell]").evaluate_all(
            "cells => cells.map(cell => [...cell.dataset.key.split(',').map(Number), cell.textContent])"
        )  # fmt: skip
        return {(row, column): text for row, column, text in found}

    def legend(self, part: str = ".mappane", pane: int = 0) -> list[str]:
        """What stands below a scale of colours, from left to right."""
        found = self.pane(pane).locator(f"{part} .legend text").evaluate_all(
            "all => all.map(e => [parseFloat(e.getAttribute('x')), e.textContent]).sort(([a], [b]) => a - b)"
        )  # fmt: skip
        return [text for _, text in found]

    def asked_of(self, what: str) -> list[dict[str, Any]]:
        """What was asked so far of one kind."""
        return [request.post_data_json for request in self.asked if request.url.endswith(f"/ask/{what}")]


def plain(text: str) -> str:
    """A text with single spaces."""
    return re.sub(r"\s+", " ", text).strip()
