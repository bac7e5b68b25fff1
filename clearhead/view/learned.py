"""Learned heads on the reader's own sentence: what each does there, and what the model would guess without it.

Decides which heads of the small model stand for which kind, and how what they do is measured on one sentence.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError
from clearhead.model import Forward, Model, load
from clearhead.model.heads import is_sign
from clearhead.view.sentences import MOST_ITEMS
from clearhead.wording import percent

Weights = npt.NDArray[np.float64]

KINDS = {
    (0, 0): "itself",
    (1, 1): "the piece before",
    (3, 3): "what came next",
    (2, 1): "rests at the start",
    (0, 2): "signs",
    (1, 2): "many at once",
}  # the heads of the shipped model that are most so
GUESSES = 5
MOST_PIECES = 48  # of a sentence


def learned(text: str) -> dict[str, Any]:
    """The sentence's pieces, the named heads' weights on them, and the next piece with all heads and without each."""
    model = load()
    done, names = read(model, text)
    guesses = chances(done)
    most = np.argsort(-guesses, kind="stable")[:GUESSES]
    heads = []
    for (layer, head), kind in KINDS.items():
        w = np.asarray(done.layers[layer].weights, np.float64)[head]
        off = chances(model.forward(done.tokens, without=[(layer, head)]))
        heads.append(
            {
                "head": f"{layer}.{head}",
                "kind": kind,
                "measure": measured(kind, w, done.tokens, names),
                "weights": [row[: i + 1].tolist() for i, row in enumerate(w[:MOST_ITEMS])],
                "without": off[most].tolist(),
            }
        )
    return {
        "text": text,
        "names": names,
        "guesses": [
            {"name": shown(name), "chance": float(guesses[token])}
            for token, name in zip(most, model.tokenizer.names(most.tolist()), strict=True)
        ],
        "heads": heads,
    }


def head(text: str, which: str) -> dict[str, Any]:
    """One head's queries, keys, values and scale on a sentence's first pieces. Raises InputError.

    >>> told = head("The river was wide.", "3.3")
    >>> told["names"][:4], len(told["q"][0]), told["left"]
    (['<s>', 'The', '␣ri', 'ver'], 32, 0)
    """
    model = load()
    layers, heads = len(model.parameters.layers), model.parameters.heads
    layer, _, own = which.partition(".")
    if not (layer.isdecimal() and own.isdecimal() and int(layer) < layers and int(own) < heads):
        raise InputError(f"head {which} is none of the small model's {layers} × {heads}: choose one, such as 3.3.")
    done, names = read(model, text)
    of = done.layers[int(layer)]
    parts = {"q": of.q, "k": of.k, "v": of.v}
    return {
        "text": text,
        "head": which,
        "names": names[:MOST_ITEMS],
        "left": max(0, len(names) - MOST_ITEMS),
        "scale": of.scale,
        **{name: x[int(own), :MOST_ITEMS].astype(np.float64).tolist() for name, x in parts.items()},
    }


def read(model: Model, text: str) -> tuple[Forward, list[str]]:
    """A text that the model has read, and its pieces' names."""
    tokens = model.tokenizer.encode(text.strip())[:MOST_PIECES]
    return model.forward(tokens), [shown(name) for name in model.tokenizer.names(tokens)]


def shown(name: str) -> str:
    """A piece with its blank in sight."""
    return name.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def chances(done: Forward) -> Weights:
    """The chance of every piece to come next."""
    logits = done.logits[-1].astype(np.float64)
    e = np.exp(logits - logits.max())
    made: Weights = e / e.sum()
    return made


def measured(kind: str, w: Weights, tokens: tuple[int, ...], names: list[str]) -> str:
    """What a head of a kind does on this sentence, in a few letters."""
    n = len(tokens)
    if kind == "many at once":
        e = np.where(w > 0, w, 1.0)
        return f"as if {float(np.exp(-(w * np.log(e)).sum(axis=1)).mean()):.1f}"
    if kind == "signs":
        signs = np.array([is_sign(name) for name in names])
        return percent_of(w[:, signs].sum(axis=1)) if signs.any() else "none"
    if kind == "itself":
        return percent_of(w.diagonal())
    if n < 2:
        return "none"
    if kind == "the piece before":
        return percent_of(w.diagonal(-1))
    if kind == "rests at the start":
        return percent_of(w[1:, 0])
    found = [(i, last + 1) for i in range(n) if (last := last_time(tokens, i)) is not None]
    return percent_of(np.array([w[i, j] for i, j in found])) if found else "none"


def last_time(tokens: tuple[int, ...], i: int) -> int | None:
    """Where the piece at i was read before, last."""
    return next((j for j in range(i - 1, -1, -1) if tokens[j] == tokens[i]), None)


def percent_of(shares: Weights) -> str:
    """Their mean, in per cent."""
    return percent(float(shares.mean()))
