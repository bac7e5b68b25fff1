"""A widget that holds one of the page's screens, and answers its questions in the kernel.

Responsible for what the widget carries (the page as one deflated file, with its first answers) and for the messages.
Not for the page, nor for the answers, which the screens bring.
"""

import json
import sys
import zlib
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from clearhead.errors import ClearheadError, InputError
from clearhead.notebook import still
from clearhead.view import page

LEAST_HEIGHT, MOST_HEIGHT = 120, 6000  # pixels

VIEW = "application/vnd.jupyter.widget-view+json"

Body = tuple[str, bytes]  # an answer's type, and its bytes, as the server would send them


class Page(anywidget.AnyWidget):
    """A screen's page, deflated, without what a widget keeps: widgets of one notebook share it, also as it is saved."""

    _esm = "export default {}"
    packed = traitlets.Bytes().tag(sync=True)


shared: dict[str, Page] = {}


def page_of(screen: page.Screen) -> Page:
    """A screen's page, which all widgets of a Jupyter notebook share.

    In marimo each has one of its own, because what a cell made is gone when that cell runs again.
    """
    found = shared.get(screen.name)
    if found is None or found.comm is None or in_marimo():
        found = shared[screen.name] = Page(packed=zlib.compress(page.frame(screen).encode(), 9))
    return found


def in_marimo() -> bool:
    """Whether this runs in a marimo notebook."""
    return "marimo" in sys.modules and bool(sys.modules["marimo"].running_in_notebook())


class Frame(anywidget.AnyWidget):
    """One of the page's screens as a widget; subclasses bring the screen and its answers."""

    screen: ClassVar[page.Screen]
    _esm = Path(__file__).parent / "static/widget.js"
    title = traitlets.Unicode().tag(sync=True)
    page = traitlets.Unicode().tag(sync=True)  # the id of a Page
    kept = traitlets.Bytes().tag(sync=True)  # its first answers and its state, deflated JSON
    height = traitlets.Int(0).tag(sync=True)  # pixels; 0: as high as what it holds

    def __init__(self, known: Mapping[str, Any], state: str, height: int | None) -> None:
        if height is not None and not LEAST_HEIGHT <= height <= MOST_HEIGHT:
            raise InputError(f"height is {height}: give pixels from {LEAST_HEIGHT} to {MOST_HEIGHT}, or None.")
        self.known, self.state = known, state
        self.shared = page_of(self.screen)  # as long as this lives
        kept = json.dumps({"known": known, "state": state}).encode()
        super().__init__(
            title=self.screen.title, page=self.shared.model_id, kept=zlib.compress(kept, 9), height=height or 0
        )
        self.on_msg(self._asked)

    def body(self, what: str, about: dict[str, Any]) -> Body:
        """The answer to one question. Raises InputError."""
        raise NotImplementedError

    def plain(self) -> str:
        """What is shown where neither widgets nor scripts are: HTML without any."""
        raise NotImplementedError

    def told(self) -> str:
        """What `plain` gives, or why it gives nothing."""
        try:
            return self.plain()
        except ClearheadError as error:
            return f"<p>{escape(str(error))}</p>"

    def _asked(self, _: object, content: dict[str, Any], buffers: object) -> None:
        """Answer a message from the page's frame: a greeting, or a question."""
        if "greet" in content:
            self.send({"here": content["greet"]})
        number, path, about = content.get("ask"), str(content.get("what")), content.get("about")
        if number is None or not isinstance(about, dict):
            return
        self.send({"begun": number})
        try:
            kind, body = self.file(about) if path == "file" else self.body(path.removeprefix("ask/"), about)
        except ClearheadError as error:
            self.send({"answered": number, "error": str(error)})
        except BaseException as error:
            said = "The kernel was interrupted: choose again." if isinstance(error, KeyboardInterrupt) else repr(error)
            self.send({"answered": number, "error": said})
            raise
        else:
            self.send({"answered": number, "type": kind}, [body])

    def file(self, about: dict[str, Any]) -> Body:
        """The page as one file, with the answers that it has received."""
        known, state = about.get("known"), about.get("state")
        if not isinstance(known, dict):
            raise InputError("Nothing to write: run the cell again.")
        return "text/html", page.single_file(self.screen, known, str(state)).encode()

    def view(self) -> dict[str, Any]:
        """The widget alone, as Jupyter's front ends find it."""
        bundle = super()._repr_mimebundle_()
        return {} if bundle is None else {VIEW: bundle[0][VIEW]}

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and, for viewers without widgets, the page with its first answers."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            bundle[0]["text/html"] = still.framed(
                page.single_file(self.screen, self.known, self.state), self.screen.title, self.told()
            )
        return bundle
