"""The answers that a page in a file holds: which ones show a row of a head, and the form in which a page keeps them."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from clearhead.errors import ClearheadError
from clearhead.explain.json import json_bytes
from clearhead.reading.answers import Answer, Reader
from clearhead.reading.readings import StackLayer
from clearhead.reading.tiles import TILE, deepest

MOST_TILES = 12  # of the map, besides those of single cells
AROUND = 6  # cells round the chosen pair, whose numbers the page lists


def question(what: str, about: Mapping[str, Any]) -> str:
    """The name by which a page knows the answer to a question, as static/ask.js forms it.

    >>> question("names", {"side": "keys", "from": 0})
    'names {"from":0,"side":"keys"}'
    """
    return f"{what} {json.dumps(about, sort_keys=True, ensure_ascii=False, separators=(',', ':'))}"


def packed(answer: Answer) -> dict[str, Any]:
    """An answer as a page keeps it: its numbers as float32 in base64."""
    fields: dict[str, Any] = json.loads(json_bytes(answer.fields))
    if answer.values is None:
        return fields
    return fields | {"values": base64.b64encode(np.ascontiguousarray(answer.values, "<f4").tobytes()).decode()}


class Kept:
    """Answers as they are collected, by the names of their questions."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.known: dict[str, Any] = {}

    def ask(self, what: str, about: Mapping[str, Any]) -> Answer:
        """Answer a question and keep the answer, or the reason why there is none."""
        try:
            answer = self.reader.answer(what, about)
            self.known[question(what, about)] = packed(answer)
        except ClearheadError as error:
            answer = Answer({"error": str(error)})
            self.known[question(what, about)] = answer.fields
        return answer

    def ask_pages(self, what: str, about: Mapping[str, Any], count: str) -> list[Answer]:
        """Ask for an answer that comes in pages, of `count` items in all."""
        found = [self.ask(what, {**about, "from": 0})]
        while "error" not in found[-1].fields and found[-1].fields["to"] < found[-1].fields[count]:
            found.append(self.ask(what, {**about, "from": found[-1].fields["to"]}))
        return found

    def ask_tile(self, about: Mapping[str, Any], layer: StackLayer, place: tuple[int, int, int]) -> None:
        """Keep a whole tile, without the rows beyond the matrix's edge."""
        z, r, c = place
        asked = {**about, "z": z, "r": r, "c": c, "from": 0, "to": TILE}
        answer = self.reader.answer("tile", asked)
        cells = 1 << (deepest(max(layer.queries, layer.keys)) - z)
        rows = min(TILE, -(-layer.queries // cells) - r * TILE)
        assert answer.values is not None  # noqa: S101
        self.known[question("tile", asked)] = packed(Answer(answer.fields, answer.values[: rows * TILE]))


def row_answers(reader: Reader, layer: int, head: int, row: int) -> tuple[dict[str, Any], dict[str, int]]:
    """What a page needs to show a row of a head of the first reading, and the state that it opens at.

    >>> from clearhead.reading.sources import from_vectors
    >>> known, state = row_answers(Reader([from_vectors("the river bank")]), 0, 0, 2)
    >>> sorted({name.partition(" ")[0] for name in known})
    ['heaviest', 'line', 'names', 'pair', 'readings', 'sheet', 'tile', 'trust']
    >>> state
    {'layer': 0, 'heads': 0, 'row': 2, 'column': 2}
    """
    kept = Kept(reader)
    described = reader.answer("readings", {})
    listed = [{**each, "again": False} for each in described.fields["readings"]]  # a file reads no other text
    kept.known[question("readings", {})] = {**described.fields, "readings": listed}
    column = keep_row(kept, 0, layer, head, row)
    keep_around(kept, 0, layer, head, (row, column))
    return kept.known, {"layer": layer, "heads": head, "row": row, "column": column}


def keep_row(kept: Kept, reading: int, layer: int, head: int, row: int) -> int:
    """Keep a row of a head of a reading, with the names of its items; returns the key that it is compared with."""
    stack = kept.reader.readings[reading].stack()
    chosen = stack.layer(layer)
    part: dict[str, Any] = {"reading": reading, "part": stack.name}
    one = {**part, "layer": layer, "heads": [head], "join": "one", "measure": "weight"}
    line = kept.ask_pages("line", {**one, "by": "row", "at": row, "without": False}, "length")[0]
    for side in ("keys",) if chosen.queries == chosen.keys and not stack.crosses else ("keys", "queries"):
        kept.ask_pages("names", {**part, "layer": layer, "side": side}, "count")
    kept.ask("trust", {**part, "layer": layer})
    if kept.reader.readings[reading].picture is not None:
        kept.ask("picture", {"reading": reading})
    return heaviest_key(line, row, chosen)


def keep_around(kept: Kept, reading: int, layer: int, head: int, pair: tuple[int, int]) -> None:
    """Keep what stands round a pair (row, column) of a head: the map, the sheet of all heads, the pair in each."""
    stack, (row, column) = kept.reader.readings[reading].stack(), pair
    chosen = stack.layer(layer)
    part: dict[str, Any] = {"reading": reading, "part": stack.name}
    one = {**part, "layer": layer, "heads": [head], "join": "one", "measure": "weight"}
    kept.ask("pair", {**part, "row": row, "column": column})
    kept.ask("heaviest", {**part, "by": "row", "at": row})
    for place in tiles_of(chosen, row, column):
        kept.ask_tile({**one, "how": "max"}, chosen, place)
    for number, other in stack.layers.items():
        kept.ask("sheet", {**part, "layer": number, "heads": list(other.heads)})


def heaviest_key(line: Answer, row: int, layer: StackLayer) -> int:
    """The key that a row is compared with: its heaviest but the first, or the query's own where it has none."""
    listed = [int(key) for key, *_ in line.fields["top"]]
    others = [key for key in listed if key > 0]
    return (others or listed or [min(max(0, row + layer.sees.offset), layer.keys - 1)])[0]


def tiles_of(layer: StackLayer, row: int, column: int) -> list[tuple[int, int, int]]:
    """Tiles of the map that a file holds, (zoom, row, column): all of depths that have few, and those of the pair."""
    last = deepest(max(layer.queries, layer.keys))
    found: list[tuple[int, int, int]] = []
    for zoom in range(last + 1):
        span = TILE << (last - zoom)
        places = [
            (zoom, r, c)
            for r in range(-(-layer.queries // span))
            for c in range(-(-layer.keys // span))
            if is_seen(layer, (r * span, (r + 1) * span), (c * span, (c + 1) * span))
        ]
        if len(found) + len(places) > MOST_TILES and found:
            break
        found += places
    rows, columns = (
        {min(max(0, at + step), size - 1) // TILE for step in range(-AROUND, AROUND + 1)}
        for at, size in ((row, layer.queries), (column, layer.keys))
    )
    found += [(last, r, c) for r in sorted(rows) for c in sorted(columns) if (last, r, c) not in found]
    return found


def is_seen(layer: StackLayer, rows: tuple[int, int], columns: tuple[int, int]) -> bool:
    """Whether any of some queries sees any of some keys, both from the first up to the second."""
    low, high, offset = layer.sees.low, layer.sees.high, layer.sees.offset
    last = min(rows[1], layer.queries) - 1
    return (high is None or columns[0] <= last + offset + high) and (
        low is None or min(columns[1], layer.keys) > rows[0] + offset + low
    )
