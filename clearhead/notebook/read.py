"""The Read screen as a widget."""

from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

import numpy as np

from clearhead.attention_weights.matrix import Weights
from clearhead.errors import InputError
from clearhead.explain.json import json_bytes
from clearhead.functional import Attended
from clearhead.notebook.frame import Body, Frame
from clearhead.reading.answers import Reader, as_bytes
from clearhead.reading.kept import Kept, keep_around, keep_row
from clearhead.reading.readings import Reading, StackLayer
from clearhead.view import page
from clearhead.view.showing import readings_by_source
from clearhead.watched.seen import Watch
from clearhead.wording import percent

HEIGHT = 760  # pixels
MOST_SHOWN_PLAIN = 8  # keys
MOST_PAIRS = 1 << 22  # over all heads, of which the map and the sheet are quick and small


class Read(Frame):
    """The attention of a model, or weights, to read in a notebook: rows, columns, the map, the sheet of heads.

    `sources` are watches, weights (with the names of their items as `tokens`), results of `attend`, or a text for the
    small model to read; two of them stand side by side. `names` are what the menu calls them. It opens at `layer`,
    `head` and `row` (a query, from 0 or from the end if negative): by default the first ones and the last query.
    `height` is in pixels; None: as high as what it shows. Raises InputError for sources without attention, or for what
    they do not have.

    >>> from clearhead import weights
    >>> Read(weights([[0.0], [1.0]], [[0.0], [1.0]]), tokens=["a", "b"])
    Read('Attention of weights: 2 items, 1 layer, 1 head.')
    """

    screen = page.READ

    def __init__(
        self,
        *sources: Watch | Weights | Attended | Reading | str,
        tokens: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        layer: int | None = None,
        head: int | None = None,
        row: int | None = None,
        height: int | None = HEIGHT,
    ) -> None:
        found = readings_by_source(sources, tokens, names)
        self.reader = Reader([reading for each in found for reading in each])
        self.layer, self.head, self.row = opening(self.reader.readings[0], layer, head, row)
        kept = Kept(self.reader)
        kept.ask("readings", {})
        places = [0, len(found[0])] if len(found) == 2 else [0]
        state: dict[str, Any] = {"panes": 2} if len(places) > 1 else {}
        for number, reading in enumerate(places):
            at = place(self.reader.readings[reading], self.layer.number, self.head, self.row)
            mark = "2" if number else ""
            state |= {f"{key}{mark}": value for key, value in {"reading": reading, **at}.items()}
            if at:
                keep_place(kept, reading, **at)
        super().__init__(kept.known, urlencode(state), height)

    def __repr__(self) -> str:
        return f"Read({', '.join(repr(str(reading)) for reading in self.reader.readings)})"

    def body(self, what: str, about: dict[str, Any]) -> Body:
        """The answer to one question. Raises InputError or TrustError."""
        found = self.reader.answer(what, about)
        if found.values is None:
            return "application/json", json_bytes(found.fields)
        return "application/octet-stream", as_bytes(found)

    def plain(self) -> str:
        """The row that it opens at: its heaviest keys."""
        names = self.reader.readings[0].stack().names
        weights = self.layer.weights[self.layer.heads.index(self.head)].row(self.row)
        heaviest = np.argsort(-weights, kind="stable")[:MOST_SHOWN_PLAIN]
        keys, query = names(self.layer, "keys"), names(self.layer, "queries")[self.row]
        rows = "".join(
            f"<tr><td>{j}</td><td>{escape(keys[j])}</td><td>{escape(percent(weights[j]))}</td></tr>"
            for j in heaviest
            if weights[j]  # the others are not seen, or weigh nothing
        )
        where = f"Head {self.layer.number}.{self.head}: where query {self.row}, “{escape(query)}”, looks"
        return f"<table><caption>{where}</caption><tr><th>key</th><th></th><th>weight</th></tr>{rows}</table>"


def opening(reading: Reading, layer: int | None, head: int | None, row: int | None) -> tuple[StackLayer, int, int]:
    """The layer, the head and the query that a widget opens at; raises InputError for one that is not there."""
    stack = reading.stack()
    chosen = stack.layer(next(iter(stack.layers)) if layer is None else layer)
    number = chosen.heads[0] if head is None else head
    chosen.places([number])
    at = chosen.queries - 1 if row is None else row + chosen.queries * (row < 0)
    if not 0 <= at < chosen.queries:
        raise InputError(f"row is {row}: give a query from {-chosen.queries} to {chosen.queries - 1}.")
    return chosen, number, at


def place(reading: Reading, layer: int, head: int, row: int) -> dict[str, int]:
    """Where a reading opens: as the first one does if it has this row of this head, and else where the page likes."""
    found = reading.stack().layers.get(layer)
    if found is None or head not in found.heads or row >= found.queries:
        return {}
    return {"layer": layer, "heads": head, "row": row}


def keep_place(kept: Kept, reading: int, layer: int, heads: int, row: int) -> None:
    """Keep what the page asks as it opens: a row, and what stands round it where that is quick."""
    column = keep_row(kept, reading, layer, heads, row)
    layers = kept.reader.readings[reading].stack().layers.values()
    if sum(len(each.heads) * each.queries * each.keys for each in layers) <= MOST_PAIRS:
        keep_around(kept, reading, layer, heads, (row, column))
