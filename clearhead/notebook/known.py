"""Answers that a page holds from the start, each named as the page names its question.

Responsible for which answers they are: those that the screen asks for as it opens, where they are quick.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from clearhead.errors import ClearheadError
from clearhead.explain.json import json_bytes
from clearhead.reading.answers import Answer, Reader
from clearhead.reading.tiles import TILE, deepest

MOST_PAIRS = 1 << 24  # over the heads of a layer, of which the map and the sheet are quick


def question(what: str, about: Mapping[str, Any]) -> str:
    """The name of a question, as static/ask.js forms it.

    >>> question("sentence", {"text": "a “b”"})
    'sentence {"text":"a “b”"}'
    """
    return f"{what} {json.dumps(about, sort_keys=True, ensure_ascii=False, separators=(',', ':'))}"


def packed(answer: Answer) -> dict[str, Any]:
    """An answer as static/ask.js keeps it: numbers as float32 in base64."""
    fields: dict[str, Any] = json.loads(json_bytes(answer.fields))
    if answer.values is None:
        return fields
    return fields | {"values": base64.b64encode(np.ascontiguousarray(answer.values, "<f4").tobytes()).decode()}


def first_answers(reader: Reader, readings: list[int], layer: int, head: int, row: int) -> dict[str, Any]:
    """What Read asks as it opens at a row of a head, of one or two readings; what cannot be answered is left out."""
    known = {}
    for what, about in first_questions(reader, readings, layer, head, row):
        try:
            known[question(what, about)] = packed(reader.answer(what, about))
        except ClearheadError:  # the page asks again, and shows the reason
            continue
    return known


def first_questions(
    reader: Reader, readings: list[int], layer: int, head: int, row: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions, quick ones first."""
    yield "readings", {}
    for number in readings:
        stack = reader.readings[number].stack()
        if layer not in stack.layers or head not in stack.layers[layer].heads:
            continue
        chosen = stack.layers[layer]
        at: dict[str, Any] = {"reading": number, "part": stack.name, "layer": layer}
        one = at | {"heads": [head], "join": "one", "measure": "weight"}
        for side in ("queries", "keys"):
            yield "names", at | {"side": side, "from": 0}
        yield "line", one | {"by": "row", "at": min(row, chosen.queries - 1), "without": False, "from": 0}
        yield "trust", at
        if len(chosen.heads) * chosen.queries * chosen.keys <= MOST_PAIRS:
            zoom = deepest(max(chosen.queries, chosen.keys))
            yield "sheet", at | {"heads": list(chosen.heads)}
            if zoom == 0:
                yield "tile", one | {"how": "max", "z": 0, "r": 0, "c": 0, "from": 0, "to": TILE}
