"""The Learn screen as a widget."""

import json
from typing import Any
from urllib.parse import urlencode

from clearhead.explain import explain
from clearhead.explain.json import json_bytes
from clearhead.notebook.frame import Body, Frame
from clearhead.reading.kept import question
from clearhead.view import page
from clearhead.view.answers import answer

FIRST_TEXT = "a red apple and a green pear"  # as static/learn/state.js has it
FIRST_DIM = 2


class Learn(Frame):
    """Self-attention to touch, in a notebook: a sentence of yours, or the page's first one with its guided path.

    `height` is in pixels; None: as high as what it shows. Raises InputError for a text without a word.

    >>> Learn("the river bank")
    Learn('the river bank')
    """

    screen = page.LEARN

    def __init__(self, text: str | None = None, *, state: str | None = None, height: int | None = None) -> None:
        self.text = FIRST_TEXT if text is None else " ".join(text.split())
        if text is not None:
            state = "&".join(filter(None, (urlencode({"text": self.text, "step": "0"}), state)))
        firsts: list[tuple[str, dict[str, Any]]] = [
            ("sentence", {"text": self.text}), ("learned", {"text": self.text}), ("costs", {"dim": FIRST_DIM}),
        ]  # fmt: skip
        super().__init__(
            {question(what, about): json.loads(self.body(what, about)[1]) for what, about in firsts},
            state or "",
            height,
        )

    def __repr__(self) -> str:
        return f"Learn({self.text!r})"

    def body(self, what: str, about: dict[str, Any]) -> Body:
        """The answer to one question. Raises InputError."""
        return "application/json", json_bytes(answer(what, {str(name): str(value) for name, value in about.items()}))

    def plain(self) -> str:
        """The last word's weights, worked out."""
        return explain(self.text)._repr_html_()
