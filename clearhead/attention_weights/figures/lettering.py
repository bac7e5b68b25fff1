"""The names of items along an axis: legible, measured, and never one over the other."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter, MaxNLocator

from clearhead.attention_weights.figures.fonts import PLAIN, escaped, extent, families_for, legible
from clearhead.errors import InputError, ShapeError
from clearhead.wording import JOINERS, label

MOST_NAMED = 64  # an axis of more items is labelled with numbers
SIZE = 7.5  # points
WIDEST = 90.0  # points, after which a name is cut
TALLEST = 12.0  # points; what is taller would lie over its neighbours, as letters under a heap of accents do
GAP = 1.5  # points between names


@dataclass(frozen=True)
class Names:
    """Names of items as they are drawn, and the room that they take in points."""

    texts: list[str]
    families: tuple[str, ...]
    width: float
    height: float

    @property
    def pitch(self) -> float:
        """How far apart the names must stand, line under line."""
        return self.height + GAP


def named(tokens: Sequence[str]) -> Names:
    """Names of tokens, each shortened to fit, with what no installed font has spelled as Python spells it."""
    safe = [label(token) for token in tokens]
    families = families_for("".join(name[: int(WIDEST)] for name in safe))
    texts = [shorten(name, families) for name in safe]
    sizes = [extent(text, SIZE, families) for text in texts]
    width, height = (max(side) for side in zip(*sizes, strict=True))
    return Names(texts, families, width, height)


def short_name(token: str) -> str:
    """A token's name in a sentence."""
    return named([token]).texts[0]


def shorten(name: str, families: tuple[str, ...]) -> str:
    """Cut a name to the room that it has, with an ellipsis; a tall one is spelled as Python spells it."""
    name = legible(name[: int(WIDEST)], families)
    if extent(cut(name, families), SIZE, families)[1] > TALLEST:
        name = "".join(map(escaped, name))
    return cut(name, families)


def cut(name: str, families: tuple[str, ...]) -> str:
    """As much of a name as fits into WIDEST points."""

    def shown(count: int) -> str:
        while count and (unicodedata.combining(name[count]) or {*name[count - 1 : count + 1]} & {*JOINERS}):
            count -= 1  # nothing is cut between a letter and its accents, nor where characters join
        return name[: max(count, 1)] + "…"

    if extent(name, SIZE, families)[0] <= WIDEST:
        return name
    least, most = 1, len(name) - 1
    while least < most:
        middle = (least + most + 1) // 2
        fits = extent(shown(middle), SIZE, families)[0] <= WIDEST
        least, most = (middle, most) if fits else (least, middle - 1)
    return shown(least)


def name_items(axis: Any, names: Names | None, first: int, stop: int, room: float) -> None:
    """Label an axis with the names of its items or, where there are none, with round numbers.

    `room` is the axis's length in points.
    """
    if names is None:
        number_items(axis, first, stop, room)
        return
    pitch = room / (stop - first)
    axis.set_ticks(range(first, stop), names.texts, fontsize=SIZE, family=list(names.families), **PLAIN)
    if axis.axis_name == "x" and names.width + 2 * GAP > pitch:
        axis.set_tick_params(rotation=90)


def number_items(axis: Any, first: int, stop: int, room: float) -> None:
    """Label an axis with round numbers of items, as many as stand apart."""
    last = f"{stop - 1:,}"
    width, height = extent(last, 8)
    most = room / (1.6 * width + 6 if axis.axis_name == "x" else 3 * height)
    axis.set_major_locator(MaxNLocator(nbins=max(1, min(10, int(most))), integer=True, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:,.0f}" if first <= at < stop else ""))


def pitch_of(names: Names | None, count: int, side: float) -> float:
    """The length in points of an axis of `count` items: `side`, or as much as their names need."""
    return max(side, count * names.pitch) if names else side


def names_of(tokens: list[str], first: int, stop: int) -> Names | None:
    """The names of a range of items, if there are few enough to name each."""
    return named(tokens[first:stop]) if tokens and stop - first <= MOST_NAMED else None


def both_tokens(tokens: Any, queries: int, keys: int) -> tuple[list[str], list[str]]:
    """Names of queries and keys as strings, empty without tokens: from a pair of lists, or from one list.

    One list names the keys, and the queries if there are as many. Raises InputError or ShapeError.
    """
    if isinstance(tokens, tuple) and len(tokens) == 2 and not any(isinstance(part, str) for part in tokens):
        return token_names(tokens[0], queries), token_names(tokens[1], keys)
    names = token_names(tokens, keys)
    return (names if queries == keys else []), names


def token_names(tokens: Any, count: int) -> list[str]:
    """Check tokens and return them as strings; an empty list without tokens."""
    if tokens is None:
        return []
    if isinstance(tokens, str) or not hasattr(tokens, "__len__"):
        raise InputError(f"tokens={tokens!r} must be a list of names: give one for each item.")
    if len(tokens) != count:
        raise ShapeError(
            f"{len(tokens)} tokens do not match {count} items: give one for each item, or a pair of lists, the "
            "queries' and the keys'."
        )
    return [str(token) for token in tokens]
