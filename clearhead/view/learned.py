"""Learned heads on the reader's sentence: what each does there, and what the model would guess without it.

Responsible for the heads that represent each kind, and for measuring them on one sentence.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError
from clearhead.model import Forward, Model, load
from clearhead.model.heads import is_sign
from clearhead.view.sentences import MOST_ITEMS_SHOWN
from clearhead.wording import percent

Shares = npt.NDArray[np.float64]

SHOWN_HEADS = {
    (0, 0): "itself",
    (1, 1): "the piece before",
    (3, 3): "what came next",
    (2, 1): "rests at the start",
    (0, 2): "signs",
    (1, 2): "many at once",
}  # the heads of the shipped model that show each kind most clearly
GUESSES = 5
MOST_PIECES = 48  # of a sentence


def learned_heads(text: str) -> dict[str, Any]:
    """The sentence's pieces, the named heads' weights on them, and the next piece with all heads and without each."""
    model = load()
    done, names = read_sentence(model, text)
    guesses = next_chances(done)
    likeliest = np.argsort(-guesses, kind="stable")[:GUESSES]
    heads = []
    for (layer, head), kind in SHOWN_HEADS.items():
        w = np.asarray(done.layers[layer].weights, np.float64)[head]
        off = next_chances(model.forward(done.tokens, without=[(layer, head)]))
        heads.append(
            {
                "head": f"{layer}.{head}",
                "kind": kind,
                "measure": head_measure(kind, w, done.tokens, names),
                "weights": [row[: i + 1].tolist() for i, row in enumerate(w[:MOST_ITEMS_SHOWN])],
                "without": off[likeliest].tolist(),
            }
        )
    return {
        "text": text,
        "names": names,
        "guesses": [
            {"name": visible_blanks(name), "chance": float(guesses[token])}
            for token, name in zip(likeliest, model.tokenizer.names(likeliest.tolist()), strict=True)
        ],
        "heads": heads,
    }


def head_vectors(text: str, which: str) -> dict[str, Any]:
    """One head's queries, keys, values and scale on a sentence's first pieces. Raises InputError.

    >>> answer = head_vectors("The river was wide.", "3.3")
    >>> answer["names"][:4], len(answer["q"][0]), answer["left"]
    (['<s>', 'The', '␣ri', 'ver'], 32, 0)
    """
    model = load()
    layers, heads = len(model.parameters.layers), model.parameters.heads
    layer, _, head = which.partition(".")
    if not (layer.isdecimal() and head.isdecimal() and int(layer) < layers and int(head) < heads):
        raise InputError(f"head {which} is not one of the small model's {layers} × {heads}: choose one, such as 3.3.")
    done, names = read_sentence(model, text)
    of = done.layers[int(layer)]
    parts = {"q": of.q, "k": of.k, "v": of.v}
    return {
        "text": text,
        "head": which,
        "names": names[:MOST_ITEMS_SHOWN],
        "left": max(0, len(names) - MOST_ITEMS_SHOWN),
        "scale": of.scale,
        **{name: x[int(head), :MOST_ITEMS_SHOWN].astype(np.float64).tolist() for name, x in parts.items()},
    }


def read_sentence(model: Model, text: str) -> tuple[Forward, list[str]]:
    """The model's forward pass over a text, and the names of its pieces."""
    tokens = model.tokenizer.encode(text.strip())[:MOST_PIECES]
    return model.forward(tokens), [visible_blanks(name) for name in model.tokenizer.names(tokens)]


def visible_blanks(name: str) -> str:
    """A piece with visible signs for blanks, newlines and tabs."""
    return name.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def next_chances(done: Forward) -> Shares:
    """The probability of every piece to come next."""
    logits = done.logits[-1].astype(np.float64)
    e = np.exp(logits - logits.max())
    chances: Shares = e / e.sum()
    return chances


def head_measure(kind: str, w: Shares, tokens: tuple[int, ...], names: list[str]) -> str:
    """The measure of a kind of head on this sentence, as a short text."""
    n = len(tokens)
    if kind == "many at once":
        e = np.where(w > 0, w, 1.0)
        return f"as if {float(np.exp(-(w * np.log(e)).sum(axis=1)).mean()):.1f}"
    if kind == "signs":
        signs = np.array([is_sign(name) for name in names])
        return mean_percent(w[:, signs].sum(axis=1)) if signs.any() else "none"
    if kind == "itself":
        return mean_percent(w.diagonal())
    if n < 2:
        return "none"
    if kind == "the piece before":
        return mean_percent(w.diagonal(-1))
    if kind == "rests at the start":
        return mean_percent(w[1:, 0])
    pairs = [(i, last + 1) for i in range(n) if (last := previous_occurrence(tokens, i)) is not None]
    return mean_percent(np.array([w[i, j] for i, j in pairs])) if pairs else "none"


def previous_occurrence(tokens: tuple[int, ...], i: int) -> int | None:
    """The last position before i that holds the same piece, or None."""
    return next((j for j in range(i - 1, -1, -1) if tokens[j] == tokens[i]), None)


def mean_percent(shares: Shares) -> str:
    """The mean of the shares, in per cent."""
    return percent(float(shares.mean()))
