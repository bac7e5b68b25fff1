"""What `clearhead inspect` tells of a model's attention: a sheet of all heads, and what one row's weight is made of.

Decides which numbers describe a head, and where weights come from: the shipped word vectors, or a watched model. How
they are written is left to `page` and `command`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from clearhead.attention_weights.matrix import Weights, weights
from clearhead.errors import InputError
from clearhead.explain.inputs import place
from clearhead.wording import count, percent

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
        return f"Attention of {self.name}: {', '.join(count(n, word) for n, word in sizes)}."

    def head(self, layer: int, head: int) -> Weights:
        """The weights (queries, keys) of one head."""
        if layer not in self.layers or not 0 <= head < self.layers[layer].shape[0]:
            known = [f"{n}.0" + f" to {n}.{w.shape[0] - 1}" * (w.shape[0] > 1) for n, w in self.layers.items()]
            raise InputError(f"there is no head {layer}.{head}: give --head one of {', '.join(known)}.")
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
    """One key of a row, and what it and the heavier ones carry together."""

    key: int
    token: str
    weight: float
    together: float


def from_vectors(text: str, embeddings: Path | None = None) -> Inspected:
    """Self-attention of a text over the shipped word vectors, or those in a file: one layer, one head, no scale.

    >>> from_vectors("the river bank").layers[0].shape
    (1, 3, 3)
    """
    from clearhead.words import load, read_embeddings

    words = read_embeddings(embeddings) if embeddings else load()
    sentence = words.embed(text)
    x = sentence.x[None]
    name = f"the vectors in {embeddings.name}" if embeddings else "the shipped word vectors"
    return Inspected(name, sentence.tokens, {0: weights(x, x, scale=1.0)}, (*words.remarks, *sentence.notes))


def sheet(of: Inspected, advance: Callable[[int], None] = lambda done: None) -> Iterator[Head]:
    """Every head of every layer, one sweep a layer.

    >>> [head] = sheet(from_vectors("the river bank"))
    >>> round(head.effective, 1)
    1.8
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


def ranked(w: Weights, query: int, tokens: Sequence[str]) -> list[Part]:
    """Every key of a row, heaviest first.

    >>> w = weights(np.eye(3), np.eye(3), scale=5.0)
    >>> [part.token for part in ranked(w, -1, ["a", "b", "c"])]
    ['c', 'a', 'b']
    """
    row = w.row(query).astype(np.float64)
    order = np.argsort(-row, kind="stable")
    sums = np.cumsum(row[order])
    return [Part(int(j), str(tokens[j]), float(row[j]), float(sums[n])) for n, j in enumerate(order)]


def carried(parts: Sequence[Part], share: float = 0.99) -> list[Part]:
    """The fewest of a row's keys that carry a share of its weight; none of a row that sees nothing.

    >>> w = weights(np.eye(3), np.eye(3), scale=5.0)
    >>> [part.token for part in carried(ranked(w, -1, ["a", "b", "c"]), share=0.9)]
    ['c']
    """
    enough = share * parts[-1].together * (1 - 1e-6)
    return [part for part in parts if part.weight and part.together - part.weight < enough]


def left_out(parts: Sequence[Part], shown: Sequence[Part]) -> str:
    """What must be said below a list of only some of the keys that a row gives weight."""
    more = sum(part.weight > 0 for part in parts) - len(shown)
    if not shown:
        return "It sees nothing."
    rest = percent(max(0.0, parts[-1].together - shown[-1].together))
    return f"… and {count(more, 'key')} more, together {rest}: --json lists all." if more else ""


def index_of(row: int | str, tokens: Sequence[str]) -> int:
    """The number of the item that is meant: by its number from either end, or by its word, of which the last counts.

    >>> index_of("-1", ["a", " b", "a"]), index_of("B", ["a", " b", "a"])
    (2, 1)
    """
    try:
        return place(str(row), [token.strip() for token in tokens])
    except InputError:
        items = len(tokens)
        raise InputError(
            f"--row {row} is not one of the {count(items, 'item')}: give 0 to {items - 1}, -1 to {-items} from the "
            "end, or a word of the text."
        ) from None
