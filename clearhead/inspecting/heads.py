"""What `clearhead inspect` tells of a model's attention: a sheet of all heads, and what one row's weight is made of.

Decides which numbers describe a head, and where weights come from: the shipped word vectors, or a watched model. How
they are written is left to `page` and `command`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from clearhead.errors import InputError
from clearhead.weights import Weights, weights

ASKED = ("entropy", "effective", "distance", "first", "off_first")


@dataclass(frozen=True, eq=False)
class Inspected:
    """Attention that can be looked at: whose it is, the items, and the weights (heads, queries, keys) of each layer."""

    name: str
    tokens: tuple[str, ...]
    layers: dict[int, Weights]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        heads = sum(w.shape[0] for w in self.layers.values())
        sizes = ((len(self.tokens), "item"), (len(self.layers), "layer"), (heads, "head"))
        counts = ", ".join(f"{n:,} {word}" + "s" * (n != 1) for n, word in sizes)
        return f"Attention of {self.name}: {counts}."

    def head(self, layer: int, head: int) -> Weights:
        """The weights (queries, keys) of one head."""
        if layer not in self.layers or not 0 <= head < self.layers[layer].shape[0]:
            known = ", ".join(f"{n}.0 to {n}.{w.shape[0] - 1}" for n, w in self.layers.items())
            raise InputError(f"there is no head {layer}.{head}: it has {known}.")
        chosen: Weights = self.layers[layer][head]
        return chosen


@dataclass(frozen=True)
class Head:
    """One line of the sheet: means over queries, but `strongest`, the largest weight off the first key."""

    layer: int
    head: int
    entropy: float
    effective: float
    distance: float
    first: float
    strongest: float


ORDERS = tuple(part.name for part in fields(Head))


@dataclass(frozen=True)
class Part:
    """One key of a row, by falling weight, and what it and the heavier ones carry together."""

    key: int
    token: str
    weight: float
    together: float


def from_vectors(text: str) -> Inspected:
    """Self-attention of a text over the word vectors that ship with the package: one layer, one head, no scale.

    >>> from_vectors("the river bank").layers[0].shape
    (1, 3, 3)
    """
    from clearhead.words import load

    sentence = load().embed(text)
    x = sentence.x[None]
    return Inspected("the shipped word vectors", sentence.tokens, {0: weights(x, x, scale=1.0)}, sentence.notes)


def sheet(of: Inspected, advance: Callable[[int], None] = lambda done: None) -> Iterator[Head]:
    """Every head of every layer, one sweep a layer.

    >>> [head] = sheet(from_vectors("the river bank"))
    >>> round(head.effective, 1)
    1.3
    """
    for layer, w in of.layers.items():
        found = w.summary(*ASKED)
        means = {name: found[name].mean(axis=-1, dtype=np.float64) for name in ASKED[:-1]}
        strongest = found["off_first"].max(axis=-1)
        for head in range(w.shape[0]):
            own = {name: float(means[name][head]) for name in means}
            yield Head(layer=layer, head=head, strongest=float(strongest[head]), **own)
        advance(1)


def ordered(heads: Sequence[Head], by: str) -> list[Head]:
    """Heads sorted by one of their numbers, layer and head ascending, others falling."""
    if by not in ORDERS:
        raise InputError(f"--sort {by} is unknown: use {', '.join(ORDERS)}.")
    if by in ("layer", "head"):
        return sorted(heads, key=lambda head: (getattr(head, by), head.layer, head.head))
    return sorted(heads, key=lambda head: (-getattr(head, by), head.layer, head.head))


def carried(w: Weights, query: int, tokens: Sequence[str], share: float = 0.99) -> list[Part]:
    """The fewest keys of a row that carry a share of its weight, heaviest first.

    >>> w = weights(np.eye(3), np.eye(3), scale=5.0)
    >>> [part.token for part in carried(w, -1, ["a", "b", "c"], share=0.9)]
    ['c']
    """
    row = w.row(query).astype(np.float64)
    order = np.argsort(-row, kind="stable")
    sums = np.cumsum(row[order])
    count = int(np.searchsorted(sums, share * sums[-1] * (1 - 1e-6))) + 1 if sums[-1] else 0
    return [Part(int(j), str(tokens[j]), float(row[j]), float(sums[n])) for n, j in enumerate(order[:count])]


def read_text(words: Sequence[str]) -> str:
    """The text itself, or what a file of that name holds.

    >>> read_text(["the", "river"])
    'the river'
    """
    text = " ".join(words)
    try:
        path = Path(text)
        if len(words) == 1 and path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{text} is not UTF-8 text: convert it first.") from None
    except OSError:  # too long for the name of a file
        pass
    return text
