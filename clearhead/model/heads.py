"""What each head does, in five numbers: where its weight lies on the average.

Decides how a head is measured. Four are shares of its weight over a text; induction is measured where only copying
helps, on random tokens said twice (Olsson et al. 2022): the share on the token after the same one's first occurrence.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError
from clearhead.model.tokens import FIRST_PAIR, START

if TYPE_CHECKING:
    from clearhead.model.model import Model

Scores = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

SETTLED = 32  # queries before it are left out: with few keys, everything gets much
MOST_PARTS, REPEATS, SEED = 16, 8, 1
GIVEN = 4  # tokens of the second time before a head can know that it is one


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Mean shares of each head's weight, each (layers, heads), over queries of a text that have 32 keys before them."""

    itself: Scores  # on the token that asks
    previous: Scores  # on the one before
    sink: Scores  # on <s>: where a head rests that finds nothing
    punctuation: Scores  # on tokens that are signs
    induction: Scores  # in random tokens said twice, on the one that came next the first time
    signs: float  # the share of keys that are signs: what `punctuation` would be by chance


def head_scores(model: "Model", text: str) -> HeadScores:
    """Measure every head on a text, of which at most 16 parts as long as the context are read.

    Raises InputError for a text of fewer than 64 tokens.

    >>> from clearhead.model import load
    >>> scores = head_scores(load(), "The whale and the boat, and the men in it. " * 10)
    >>> scores.induction.shape, bool(scores.induction.max() > 0.85)
    ((4, 4), True)
    """
    context = model.parameters.context
    tokens = model.tokenizer.encode(text)[1:]
    parts = [[START, *tokens[i : i + context - 1]] for i in range(0, len(tokens), context - 1)]
    parts = [part for part in parts if len(part) > 2 * SETTLED][:MOST_PARTS]
    if not parts:
        raise InputError(f"{len(tokens)} tokens are too few to measure heads: give a text of at least {2 * SETTLED}.")
    signs_known = np.array([is_sign(name) for name in model.tokenizer.names(range(len(model.tokenizer)))])
    shares = [_shares(model, np.array(part), signs_known) for part in parts]
    itself, previous, sink, punctuation, signs = (np.mean(share, axis=0) for share in zip(*shares, strict=True))
    return HeadScores(itself, previous, sink, punctuation, _induction(model), float(signs))


def _shares(model: "Model", tokens: Numbers, signs_known: npt.NDArray[np.bool_]) -> tuple[Scores, ...]:
    """One part's shares on itself, the previous token, `<s>` and signs, and by chance on signs."""
    w, signs = all_weights(model, tokens)[..., SETTLED:, :], signs_known[tokens]
    rows = np.arange(SETTLED, len(tokens))
    diagonal, below = w[..., rows - SETTLED, rows], w[..., rows - SETTLED, rows - 1]
    by_chance = (np.cumsum(signs) / np.arange(1, len(tokens) + 1))[SETTLED:]
    on = diagonal, below, w[..., 0], w[..., signs].sum(axis=-1)
    return (*(share.mean(axis=-1) for share in on), by_chance.mean())


def _induction(model: "Model") -> Scores:
    """The share on the token after the first occurrence, in random tokens said twice."""
    size = (model.parameters.context - 1) // 2
    random = np.random.default_rng(SEED)
    second = np.arange(size + 1 + GIVEN, 2 * size + 1)
    found = []
    for _ in range(REPEATS):
        span = random.integers(FIRST_PAIR, len(model.tokenizer), size)
        w = all_weights(model, np.concatenate([[START], span, span]))
        found.append(w[..., second, second - size + 1].mean(axis=-1))
    scores: Scores = np.mean(found, axis=0)
    return scores


def all_weights(model: "Model", tokens: Numbers) -> Scores:
    """Every weight of every head, (layers, heads, n, n)."""
    return np.stack([np.asarray(layer.weights, np.float64) for layer in model.forward(list(tokens)).layers])


def is_sign(name: str) -> bool:
    """Whether a token is punctuation: no blank, no letter, no digit."""
    shown = name.strip()
    return bool(shown) and shown.isascii() and not any(c.isalnum() or c in "<\\" for c in shown)
