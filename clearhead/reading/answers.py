"""Questions about readings, as the page and notebooks ask them, and their answers as plain data and numbers.

Responsible for the kinds of question, for checking what is asked, and for keeping answers small (300 kB). Not for how
they travel, which is the server's and the notebook's.
"""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import InputError, TrustError
from clearhead.explain.json import json_bytes
from clearhead.reading.lines import Line
from clearhead.reading.readings import Agreement, Reading, Stack, StackLayer
from clearhead.reading.selected import JOINS, MEASURES, Selected, selected
from clearhead.reading.sheet import heaviest_over_heads, measured, pair_over_heads, thumbnails
from clearhead.reading.tiles import POOLS, TILE, deepest, rings, strip

MOST_NUMBERS = 65_536  # of one answer
MOST_NAMES_BYTES = 250_000
LONGEST_NAME = 200  # characters
LONGEST_TEXT = 2_000_000  # characters, of a text to read
MOST_PAIRS = 400
MOST_HEAVIEST = 40
MOST_PAIRS_AT_ONCE = 1 << 28  # whose scores are summed for one answer, in about a tenth of a second
MOST_READINGS = 32
TILE_PLACE = ("z", "r", "c", "from", "to")


@dataclass(frozen=True)
class Asked:
    """The parameters of a question, each checked as it is read: InputError for one that is missing or of no use."""

    fields: Mapping[str, Any]

    def refused(self, name: str) -> InputError:
        """The error for a parameter."""
        told = repr(self.fields[name])[:40] if name in self.fields else "missing"
        return InputError(f"The question cannot be answered ({name} is {told}): load the page again.")

    def whole(self, name: str) -> int:
        """A whole number."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refused(name)
        return value

    def word(self, name: str, options: Sequence[str] | None = None) -> str:
        """A text, or one of some words."""
        value = self.fields.get(name)
        if not isinstance(value, str) or (options is not None and value not in options):
            raise self.refused(name)
        return value

    @property
    def heads(self) -> list[int]:
        """The heads, at least one."""
        heads = self.fields.get("heads")
        if not isinstance(heads, list) or not heads or not all(type(head) is int for head in heads):
            raise self.refused("heads")
        return list(dict.fromkeys(heads))


class Answer(NamedTuple):
    """An answer: what can be written as JSON, and numbers."""

    fields: dict[str, Any]
    values: Array | None = None


@dataclass(eq=False)
class Reader:
    """Readings to choose from, and the last row or column that was asked for."""

    readings: list[Reading]
    last: tuple[Any, Line] | None = field(default=None, repr=False)  # what was asked, and the line

    def answer(self, what: str, fields: Mapping[str, Any]) -> Answer:
        """Answer one question by its name and parameters. Raises InputError or TrustError."""
        if what not in QUESTIONS:
            raise InputError(f"{what[:40]} is not a known question: ask one of {', '.join(QUESTIONS)}.")
        return QUESTIONS[what](self, Asked(fields))

    # Finding what a question is about

    def reading(self, asked: Asked) -> Reading:
        """The reading that is asked about."""
        number = asked.whole("reading")
        if not 0 <= number < len(self.readings):
            raise InputError(f"there is no reading {number}: give 0 to {len(self.readings) - 1}.")
        return self.readings[number]

    def stack(self, asked: Asked) -> Stack:
        """The part that is asked about."""
        return self.reading(asked).stack(asked.word("part"))

    def layer(self, asked: Asked) -> StackLayer:
        """The layer that is asked about."""
        return self.stack(asked).layer(asked.whole("layer"))

    def selected(self, asked: Asked) -> tuple[StackLayer, Selected]:
        """The heads that are asked about."""
        join, measure = asked.word("join", JOINS), asked.word("measure", MEASURES)
        layer = self.layer(asked)
        return layer, selected(layer, asked.heads, join, measure)  # type: ignore[arg-type]

    # Answers

    def described(self, asked: Asked) -> Answer:
        """All readings: their parts, layers, heads and lengths."""
        return Answer({"readings": [described_reading(one) for one in self.readings], "chosen": 0})

    def names(self, asked: Asked) -> Answer:
        """The next names of a layer's queries or keys, long ones cut unless they are asked for `whole`."""
        stack, layer, start = self.stack(asked), self.layer(asked), asked.whole("from")
        every = stack.names(layer, asked.word("side", ("queries", "keys")))
        longest = MOST_NAMES_BYTES // 4 if asked.fields.get("whole") is True else LONGEST_NAME  # at 4 bytes a character
        found: list[str] = []
        size = 0
        for name in every[max(0, start) :]:
            cut = name if len(name) <= longest else f"{name[:longest]}…"
            size += len(cut.encode("utf-8", "replace")) + 8
            if size > MOST_NAMES_BYTES and found:
                break
            found.append(cut)
        return Answer({"names": found, "to": max(0, start) + len(found), "count": len(every)})

    def line(self, asked: Asked) -> Answer:
        """A row or a column: what is said about it, and a stretch of its weights.

        A column needs the log-sum-exp of each row first. While they are not all there, the answer is how many are.
        """
        by, at, without = asked.word("by", ("row", "column")), asked.whole("at"), asked.fields.get("without") is True
        start, began = max(0, asked.whole("from") if "from" in asked.fields else 0), time.process_time()
        layer, of = self.selected(asked)
        size = layer.queries if by == "row" else layer.keys
        if not 0 <= at < size:
            raise InputError(
                f"{'query' if by == 'row' else 'key'} {at} is not one of the {size}: give 0 to {size - 1}."
            )
        if by == "column" and (done := of.prepared(MOST_PAIRS_AT_ONCE)) < layer.queries:
            return Answer({"done": done, "of": layer.queries, "ms": milliseconds(began)})
        key = (by, at, without, id(layer), *map(str, (asked.heads, of.join, of.factors is None)))
        if self.last is None or self.last[0] != key:
            self.last = key, Line(of.row(at) if by == "row" else of.column(at), by, at, without)
        line = self.last[1]
        values = line.values[start : start + MOST_NUMBERS]
        about = line.described() | {"from": start, "to": start + len(values), "ms": milliseconds(began)}
        return Answer(about, values)

    def tile(self, asked: Asked) -> Answer:
        """A strip of a tile of the map, and the cells that stand out in it."""
        how, began = asked.word("how", POOLS), time.process_time()
        zoom, row, column, start, stop = (asked.whole(name) for name in TILE_PLACE)
        layer, of = self.selected(asked)
        if not (0 <= zoom <= deepest(max(of.shape)) and 0 <= start < stop <= TILE and row >= 0 and column >= 0):
            raise InputError("There is no such tile: load the page again.")
        pixels = strip(of, how, zoom, row, column, start, stop)
        found = rings(of, layer.sees, pixels, zoom, row, column, start) if how == "max" else []
        place = {name: asked.fields[name] for name in TILE_PLACE}
        return Answer(place | {"rings": found, "ms": milliseconds(began)}, pixels.ravel())

    def sheet(self, asked: Asked) -> Answer:
        """Thumbnails and measures of some heads of a layer."""
        began, stack, layer, heads = time.process_time(), self.stack(asked), self.layer(asked), asked.heads
        pictures = thumbnails(layer, heads)
        about = {"size": list(pictures.shape[1:]), "heads": measured(stack, layer, heads), "ms": milliseconds(began)}
        return Answer(about, pictures.ravel())

    def pair(self, asked: Asked) -> Answer:
        """What a query gives a key in every head of the part."""
        found = pair_over_heads(self.stack(asked), asked.whole("row"), asked.whole("column"))
        return Answer({"heads": found[:MOST_PAIRS], "count": len(found)})

    def heaviest(self, asked: Asked) -> Answer:
        """The heaviest weights of a query or of a key over all heads of the part."""
        by, at = asked.word("by", ("row", "column")), asked.whole("at")
        return Answer({"found": heaviest_over_heads(self.stack(asked), by, at, MOST_HEAVIEST)})

    def trust(self, asked: Asked) -> Answer:
        """How well a layer agrees with the model's own output."""
        try:
            agreement, failed = self.layer(asked).find_agreement(), False
        except TrustError as error:
            agreement, failed = Agreement(said=str(error)), True
        return Answer({"checked": agreement.rows > 0, "failed": failed, **asdict(agreement)})

    def picture(self, asked: Asked) -> Answer:
        """The picture that the patches were cut from."""
        png = self.reading(asked).picture
        if png is None:
            raise InputError("This text has no picture: give one with --image.")
        return Answer({"kind": "image/png", "data": base64.b64encode(png).decode()})

    def again(self, asked: Asked) -> Answer:
        """Read another text with the same model, as a further reading."""
        reading, text = self.reading(asked), asked.word("text")
        if reading.again is None:
            raise InputError(f"{reading.name} is not here, only what it was seen to do: it cannot read another text.")
        if not text.strip():
            raise InputError("There is no text: type a sentence.")
        if len(text) > LONGEST_TEXT:
            raise InputError(f"The text has {len(text):,} characters: give at most {LONGEST_TEXT:,}.")
        if len(self.readings) >= MOST_READINGS:
            raise InputError(f"{MOST_READINGS} texts are open already: run clearhead view again.")
        self.readings.append(reading.again(text))
        return Answer({"reading": len(self.readings) - 1, "readings": self.described(asked).fields["readings"]})


QUESTIONS: dict[str, Callable[[Reader, Asked], Answer]] = {
    "readings": Reader.described,
    "names": Reader.names,
    "line": Reader.line,
    "tile": Reader.tile,
    "sheet": Reader.sheet,
    "pair": Reader.pair,
    "heaviest": Reader.heaviest,
    "trust": Reader.trust,
    "picture": Reader.picture,
    "again": Reader.again,
}


def described_reading(reading: Reading) -> dict[str, Any]:
    """A reading without its numbers."""
    return {
        "name": reading.name,
        "title": reading.title,
        "notes": list(reading.notes),
        "again": reading.again is not None,
        "picture": reading.picture is not None,
        "code": asdict(reading.code),
        "parts": [described_stack(stack) for stack in reading.stacks.values()],
    }


def described_stack(stack: Stack) -> dict[str, Any]:
    """A part without its numbers."""
    layers = [
        {
            "number": layer.number,
            "heads": list(layer.heads),
            "key_heads": list(layer.key_heads),
            "queries": layer.queries,
            "keys": layer.keys,
            "sees": asdict(layer.sees),
            "edits": list(layer.edits),
        }
        for layer in stack.layers.values()
    ]
    return {
        "name": stack.name,
        "crosses": stack.crosses,
        "steps": list(stack.steps),
        "grid": None if stack.grid is None else asdict(stack.grid),
        "matches": stack.ids is not None,
        "unit": stack.unit,
        "values": all(layer.find_values is not None for layer in stack.layers.values()),
        "layers": layers,
    }


def milliseconds(began: float) -> float:
    """Processor time since `began`."""
    return round(1000 * (time.process_time() - began), 2)


def as_bytes(answer: Answer) -> bytes:
    """An answer with numbers: the length of its JSON in four bytes, the JSON, and the numbers as float32."""
    head = json_bytes(answer.fields)
    head += b" " * (-len(head) % 4)
    values = np.ascontiguousarray(answer.values, "<f4")
    return len(head).to_bytes(4, "little") + head + values.tobytes()
