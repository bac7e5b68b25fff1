"""Readings whose matrices are known in float64, and odd ones: `python -m tests.view.known NAME…` serves them."""

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np

from clearhead import causal, weights, window
from clearhead.definition import weights as definition
from clearhead.errors import TrustError
from clearhead.reading.answers import Reader
from clearhead.reading.readings import Agreement, Reading, Sees, Stack, StackLayer
from tests.view import made_up
from tests.view.needle import WORDS

HEADS, KEY_HEADS, DIM = 4, 2, 16
REACH = 30  # tokens before its own that a query sees through a window
LAYERS = (2, 5)  # the numbers of the layers that were kept
TEXT = (
    "The whale swam under the ship. The captain saw the whale, and the men in the boats saw the white whale. The sea "
    "was calm and the wind was low, but the whale was near the ship. Then the captain cried out, and the boats went "
    "down into the sea. The men pulled hard at the oars; the white whale turned, and the sea was full of foam. The "
    "ship was far away, and the men were alone with the whale on the wide sea."
)


@cache
def operands(items: int, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values of a layer, float32; keys and values of a half as many heads."""
    random = np.random.default_rng([items, layer])
    drawn = words_of(items)
    kinds = random.standard_normal((len(WORDS), DIM))
    q = 0.9 * kinds[drawn] + 0.9 * random.standard_normal((HEADS, items, DIM))
    k = 0.9 * kinds[drawn] + 0.9 * random.standard_normal((KEY_HEADS, items, DIM))
    k[:, 0] += 2 * q.mean((0, 1))
    v = random.standard_normal((KEY_HEADS, items, DIM))
    return q.astype(np.float32), k.astype(np.float32), v.astype(np.float32)


@cache
def words_of(items: int) -> np.ndarray:
    """The number of the word at each place."""
    return np.random.default_rng(items).integers(0, len(WORDS), items)


def tokens_of(items: int) -> list[str]:
    """A text of so many tokens."""
    return [f" {WORDS[n]}" for n in words_of(items)]


def exact(items: int, layer: int, head: int, reach: int | None = None) -> np.ndarray:
    """A head's weights in float64, by the definition."""
    q, k, _ = (x.astype(np.float64) for x in operands(items, layer))
    mask = causal() if reach is None else window(reach)
    return definition.weights(q[head], k[head * KEY_HEADS // HEADS], mask=mask)


def lengths(items: int, layer: int, head: int) -> np.ndarray:
    """The length of the values that a head gives its weights to."""
    return np.linalg.norm(operands(items, layer)[2].astype(np.float64), axis=-1)[head * KEY_HEADS // HEADS]


def stack_layer(items: int, number: int, reach: int | None = None) -> StackLayer:
    """A layer in which two heads share a key head, and a query sees itself and at most `reach` tokens before it."""
    q, k, v = operands(items, number)
    w = weights(q, k, mask=causal() if reach is None else window(reach))
    keys = tuple(head * KEY_HEADS // HEADS for head in range(HEADS))
    band = Sees(None if reach is None else -reach, 0, 0)
    return StackLayer(
        number, tuple(range(HEADS)), keys, items, items, band, lambda: w, lambda: v[list(keys)],
        lambda: Agreement(items, 2e-6, 1e-4),
    )  # fmt: skip


def reading_of(layers: dict[int, StackLayer], tokens: Sequence[str], name: str) -> Reading:
    """A text with its layers."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(token, len(numbers)) for token in tokens])
    stack = Stack("decoder", layers, lambda layer, side: tokens, steps=(len(tokens),), ids=ids)
    return Reading(name, {"decoder": stack}, f"{len(tokens)} tokens")


def known_reading(items: int) -> Reading:
    """Words drawn at random."""
    layers = {number: stack_layer(items, number) for number in LAYERS}
    return reading_of(layers, tokens_of(items), f"known, {items} words")


def windowed_reading() -> Reading:
    """Words of which each sees the thirty before it."""
    layers = {number: stack_layer(100, number, REACH) for number in LAYERS}
    return reading_of(layers, tokens_of(100), "windowed")


def doubted_reading() -> Reading:
    """Two layers, of which the second is not what the model used."""

    def fails() -> None:
        raise TrustError("decoder layer 5, head 1: differs by 0.31 (allowed: 0.0001) from the model's own attention.")

    good, bad = (stack_layer(60, number) for number in LAYERS)
    bad = StackLayer(bad.number, bad.heads, bad.key_heads, 60, 60, bad.sees, fails, fails, fails)
    return reading_of({2: good, 5: bad}, tokens_of(60), "doubted")


READINGS = {
    "120": lambda: known_reading(120),
    "700": lambda: known_reading(700),
    "2000": lambda: known_reading(2000),
    "windowed": windowed_reading,
    "doubted": doubted_reading,
    **made_up.READINGS,
}


def main(arguments: Sequence[str]) -> None:
    """Serve some of them, at a port and with a token if these are given (`7000/token`)."""
    from clearhead.view import server
    from clearhead.view.command import ViewOptions, serve_page

    readings = [READINGS[name]() for name in arguments if "/" not in name]
    place = next((name for name in arguments if "/" in name), None)
    if place is None:
        serve_page(lambda: Reader(readings), "read", "", ViewOptions(browser=False))
        return
    port, token = place.split("/")
    print(f"http://{server.HOST}:{port}/{token}/read", flush=True)
    server.serve(server.listen(int(port)), token, lambda: Reader(readings), lambda: None)


if __name__ == "__main__":
    main(sys.argv[1:])
