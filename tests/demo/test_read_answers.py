"""Read's answers in the browser beside Python's: the same model over the same text, every row of every head."""

import json
from collections.abc import Callable
from typing import Any

import demo_pages
import numpy as np
import pytest

from clearhead.reading.answers import Reader
from clearhead.reading.sources import from_small_model
from clearhead.reading.tiles import TILE
from clearhead.view import page
from tests.demo.conftest import Ask
from tests.demo.test_learn_answers import same

ERROR = 2e-5  # of a weight: the model computes in float32, in another order
PART: dict[str, Any] = {"reading": 0, "part": "decoder"}
ONE: dict[str, Any] = {**PART, "layer": 3, "heads": [3], "join": "one", "measure": "weight"}


@pytest.fixture(scope="module")
def ask_read(ask_page: Callable[..., Ask]) -> Ask:
    """Asks the Read screen's answers, of the small model over the demo's text."""
    ask = ask_page(page.READ, demo_pages.READ, {"text": demo_pages.TEXT})
    ask("readings", [{}])
    return ask


@pytest.fixture(scope="module")
def reader() -> Reader:
    """Python's answers."""
    return Reader([from_small_model(demo_pages.TEXT)])


def python(reader: Reader, what: str, about: dict[str, Any]) -> Any:
    """Python's answer, as a page receives it."""
    found = reader.answer(what, about)
    fields = json.loads(json.dumps(found.fields))
    fields.pop("ms", None)
    return fields if found.values is None else {**fields, "values": found.values.ravel()}


def test_every_weight_of_every_head_is_the_models(ask_read: Ask, reader: Reader) -> None:
    for layer in reader.readings[0].stack().layers.values():
        weights, place = np.asarray(layer.weights), {"z": 0, "r": 0, "c": 0, "from": 0, "to": TILE, "how": "max"}
        asked = [{**ONE, **place, "layer": layer.number, "heads": [head]} for head in layer.heads]
        for head, told in zip(layer.heads, ask_read("tile", asked), strict=True):
            cells = told["values"].reshape(TILE, TILE)[: layer.queries, : layer.keys]
            assert np.allclose(cells, weights[head], atol=ERROR, rtol=0)


def test_a_row_is_described_in_the_same_numbers(ask_read: Ask, reader: Reader) -> None:
    asked = [
        {**ONE, "by": by, "at": at, "without": without, "heads": heads, "join": join, "measure": measure}
        for by, at, without in (("row", 0, False), ("row", 100, True), ("column", 7, False))
        for heads, join in (([3], "one"), ([0, 1, 3], "mean"), ([3, 2], "max"))
        for measure in ("weight", "value")
    ]
    for about, ours in zip(asked, ask_read("line", asked), strict=True):
        theirs = python(reader, "line", about)
        shown = min(5, len(theirs["top"]))  # further ones may change places
        ours["top"], theirs["top"] = ours["top"][:shown], theirs["top"][:shown]
        same(ours, theirs, 2e-3, str(about))
        assert np.allclose(ours["values"], theirs["values"], atol=10 * ERROR)
        assert [place for place, *_ in ours["top"]] == [place for place, *_ in theirs["top"]]


def test_maps_are_pooled_alike(ask_read: Ask, reader: Reader) -> None:
    place = {"z": 0, "r": 0, "c": 0, "from": 0, "to": 256}
    asked = [
        {**ONE, **place, "how": how, "heads": heads, "join": join}
        for how in ("max", "sum", "mean")
        for heads, join in (([3], "one"), ([1, 3], "mean"))
    ]
    for about, ours in zip(asked, ask_read("tile", asked), strict=True):
        same(ours, python(reader, "tile", about), 10 * ERROR, str(about))


def test_heads_are_named_and_ranked_alike(ask_read: Ask, reader: Reader) -> None:
    sheets = [{**PART, "layer": layer, "heads": [0, 1, 2, 3]} for layer in range(4)]
    for about, ours in zip(sheets, ask_read("sheet", sheets), strict=True):
        same(ours, python(reader, "sheet", about), 1e-3, str(about))
    for what, about in (
        ("pair", {**PART, "row": 90, "column": 40}),
        ("heaviest", {**PART, "by": "row", "at": 90}),
        ("heaviest", {**PART, "by": "column", "at": 40}),
    ):
        [ours] = ask_read(what, [about])
        same(ours, python(reader, what, about), ERROR, what)


def test_readings_are_described_alike(ask_read: Ask, reader: Reader) -> None:
    [ours] = ask_read("readings", [{}])
    same(ours, python(reader, "readings", {}), 0)
    [names] = ask_read("names", [{**PART, "layer": 0, "side": "keys", "from": 0}])
    assert names["names"] == list(reader.readings[0].tokens)


def test_another_text_can_be_read(ask_read: Ask) -> None:
    for text in (
        "Grüße, 😀 and it's 3 o'clock\n\n  \u2003don't",
        "a" * 3000,
        "\ufb01ne '\"\\ \u00b2½Ⅷ_x",
        "\ufeff" + "😀 and 🐋\x85" * 9,
    ):
        told = ask_read("again", [{"reading": 0, "text": text}])[0]
        number = told["reading"]
        reader = Reader([from_small_model(text)])
        theirs = python(reader, "readings", {})["readings"][0]
        same(told["readings"][number], theirs, 0, text[:20])
        [names] = ask_read("names", [{**PART, "reading": number, "layer": 0, "side": "keys", "from": 0}])
        assert names["names"] == list(reader.readings[0].tokens)
        [line] = ask_read("line", [{**ONE, "reading": number, "by": "row", "at": len(names["names"]) - 1}])
        w = reader.readings[0].stack().head(3, 3)
        assert np.allclose(line["values"], w.row(len(names["names"]) - 1), atol=ERROR)
    assert "type a sentence" in ask_read("again", [{"reading": 0, "text": " "}])[0]["refused"]
