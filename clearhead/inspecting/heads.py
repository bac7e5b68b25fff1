"""The numbers `clearhead inspect` reports: a sheet of all heads, and the keys of one row by weight.

Responsible for the numbers that describe a head. Not for output, which is in `command`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from clearhead.attention_weights.matrix import Weights
from clearhead.errors import InputError
from clearhead.explain.inputs import item_position
from clearhead.reading.readings import Reading
from clearhead.wording import count, percent

SUMMARIES = ("entropy", "effective", "distance", "first", "off_first")


@dataclass(frozen=True)
class Head:
    """One line of the sheet: means over queries, except `strongest`, the largest weight on any key but the first."""

    layer: int
    head: int
    entropy: float
    effective: float
    distance: float
    first: float
    strongest: float


ORDERS = tuple(field.name for field in fields(Head))


@dataclass(frozen=True)
class KeyShare:
    """One key's weight in a row, and the summed weight (`together`) of this key and all heavier ones."""

    key: int
    token: str
    weight: float
    together: float


def measure_heads(of: Reading, advance: Callable[[int], None] = lambda done: None) -> Iterator[Head]:
    """Summarize every head of every layer, computing each layer's weights once; `advance(1)` follows each layer.

    >>> from clearhead.reading.sources import from_vectors
    >>> [head] = measure_heads(from_vectors("the river bank"))
    >>> round(head.effective, 1)
    1.8
    """
    for layer, one in of.stack().layers.items():
        w = one.weights
        summary = w.summary(*SUMMARIES)
        means = {name: summary[name].mean(axis=-1, dtype=np.float64) for name in SUMMARIES[:-1]}
        strongest = summary["off_first"].max(axis=-1)
        for n, head in enumerate(one.heads):
            head_means = {name: float(means[name][n]) for name in means}
            yield Head(layer=layer, head=head, strongest=float(strongest[n]), **head_means)
        advance(1)


def sort_heads(heads: Sequence[Head], by: str) -> list[Head]:
    """Heads sorted by one of their fields: `layer` and `head` ascending, the others descending."""
    if by not in ORDERS:
        raise InputError(f"--sort {by} is unknown: use {', '.join(ORDERS)}.")
    if by in ("layer", "head"):
        return sorted(heads, key=lambda head: (getattr(head, by), head.layer, head.head))
    return sorted(heads, key=lambda head: (-getattr(head, by), head.layer, head.head))


def rank_keys(w: Weights, query: int, tokens: Sequence[str]) -> list[KeyShare]:
    """Every key of a row, the heaviest first.

    >>> from clearhead import weights
    >>> w = weights(np.eye(3), np.eye(3), scale=5.0)
    >>> [part.token for part in rank_keys(w, -1, ["a", "b", "c"])]
    ['c', 'a', 'b']
    """
    row = w.row(query).astype(np.float64)
    order = np.argsort(-row, kind="stable")
    sums = np.cumsum(row[order])
    return [KeyShare(int(j), str(tokens[j]), float(row[j]), float(sums[n])) for n, j in enumerate(order)]


def heaviest(parts: Sequence[KeyShare], share: float = 0.99) -> list[KeyShare]:
    """The fewest keys of a row that carry `share` of its weight; empty for a row whose keys are all hidden.

    >>> from clearhead import weights
    >>> w = weights(np.eye(3), np.eye(3), scale=5.0)
    >>> [part.token for part in heaviest(rank_keys(w, -1, ["a", "b", "c"]), share=0.9)]
    ['c']
    """
    enough = share * parts[-1].together * (1 - 1e-6)
    return [part for part in parts if part.weight and part.together - part.weight < enough]


def remainder_text(parts: Sequence[KeyShare], shown: Sequence[KeyShare]) -> str:
    """The line below a list of keys: how many more keys have weight and what they sum to, or that there are none."""
    more = sum(part.weight > 0 for part in parts) - len(shown)
    if not shown:
        return "It sees nothing."
    rest = percent(max(0.0, parts[-1].together - shown[-1].together))
    return f"… and {count(more, 'key')} more, together {rest}: --json lists all." if more else ""


def last_piece(word: str, tokens: Sequence[str]) -> int | None:
    """The last token of a word that several tokens make up, where it last occurs; None if it does not.

    >>> last_piece("river", ["the", " ri", "ver", " was"])
    2
    """
    ends, text = [], ""
    for token in tokens:
        text += token
        ends.append(len(text))
    found = re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    if not found or not word.strip():
        return None
    end = text.lower().rfind(found[-1].lower()) + len(word)
    return int(np.searchsorted(ends, end))


def item_index(row: int | str, tokens: Sequence[str]) -> int:
    """An item's index, from its index counted from either end or from its word (the last occurrence).

    >>> item_index("-1", ["a", " b", "a"]), item_index("B", ["a", " b", "a"])
    (2, 1)
    """
    try:
        return item_position(str(row), [token.strip() for token in tokens])
    except InputError:
        if (piece := last_piece(str(row), tokens)) is not None:
            return piece
        items = len(tokens)
        raise InputError(
            f"--row {row} is not one of the {count(items, 'item')}: give 0 to {items - 1}, -1 to {-items} from the "
            "end, or a word of the text."
        ) from None
