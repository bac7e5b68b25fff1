"""Five numbers that describe what each head does: where its weight lies on average.

Responsible for the measures. Four are shares of a head's weight over a text. Induction is measured where only copying
helps, on random tokens repeated once (Olsson et al. 2022): the share on the token after the query token's first
occurrence.
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

FIRST_QUERY = 32  # earlier queries are left out: with few keys, each key's share is large
MOST_PARTS, REPEATS, SEED = 16, 8, 1
LEAD_IN = 4  # tokens of the repetition that are left out: a head cannot recognize it yet


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Each head's mean share of weight, (layers, heads), over the queries of a text after its first 32 tokens."""

    itself: Scores  # on the query's own token
    previous: Scores  # on the token before it
    sink: Scores  # on <s>, where a head rests when it finds nothing to attend to
    punctuation: Scores  # on punctuation tokens
    induction: Scores  # in random tokens repeated once, on the token that followed the first time
    signs: float  # the share of keys that are punctuation: what `punctuation` would be by chance


def head_scores(model: "Model", text: str) -> HeadScores:
    """Measure every head on a text, of which at most 16 context-length parts are read.

    Raises InputError for a text of fewer than 64 tokens.

    >>> from clearhead.model import load
    >>> scores = head_scores(load(), "The whale and the boat, and the men in it. " * 10)
    >>> scores.induction.shape, bool(scores.induction.max() > 0.85)
    ((4, 4), True)
    """
    context = model.parameters.context
    tokens = model.tokenizer.encode(text)[1:]
    parts = [[START, *tokens[i : i + context - 1]] for i in range(0, len(tokens), context - 1)]
    parts = [part for part in parts if len(part) > 2 * FIRST_QUERY][:MOST_PARTS]
    if not parts:
        raise InputError(
            f"{len(tokens)} tokens are too few to measure heads: give a text of at least {2 * FIRST_QUERY} tokens."
        )
    punctuation_ids = np.array([is_sign(name) for name in model.tokenizer.names(range(len(model.tokenizer)))])
    shares = [_weight_shares(model, np.array(part), punctuation_ids) for part in parts]
    itself, previous, sink, punctuation, signs = (np.mean(share, axis=0) for share in zip(*shares, strict=True))
    return HeadScores(itself, previous, sink, punctuation, _induction(model), float(signs))


def _weight_shares(model: "Model", tokens: Numbers, punctuation_ids: npt.NDArray[np.bool_]) -> tuple[Scores, ...]:
    """One part's shares on the token itself, the previous one, `<s>` and punctuation, and the latter's by chance."""
    w, signs = stacked_weights(model, tokens)[..., FIRST_QUERY:, :], punctuation_ids[tokens]
    rows = np.arange(FIRST_QUERY, len(tokens))
    diagonal, below = w[..., rows - FIRST_QUERY, rows], w[..., rows - FIRST_QUERY, rows - 1]
    by_chance = (np.cumsum(signs) / np.arange(1, len(tokens) + 1))[FIRST_QUERY:]
    on = diagonal, below, w[..., 0], w[..., signs].sum(axis=-1)
    return (*(share.mean(axis=-1) for share in on), by_chance.mean())


def _induction(model: "Model") -> Scores:
    """The share on the token after the first occurrence, in random tokens repeated once."""
    size = (model.parameters.context - 1) // 2
    random = np.random.default_rng(SEED)
    second = np.arange(size + 1 + LEAD_IN, 2 * size + 1)
    shares = []
    for _ in range(REPEATS):
        span = random.integers(FIRST_PAIR, len(model.tokenizer), size)
        w = stacked_weights(model, np.concatenate([[START], span, span]))
        shares.append(w[..., second, second - size + 1].mean(axis=-1))
    scores: Scores = np.mean(shares, axis=0)
    return scores


def stacked_weights(model: "Model", tokens: Numbers) -> Scores:
    """All heads' weights, (layers, heads, n, n)."""
    return np.stack([np.asarray(layer.weights, np.float64) for layer in model.forward(list(tokens)).layers])


def is_sign(name: str) -> bool:
    """Whether a token is ASCII punctuation: not blank, no letter, no digit, not `<s>` and not a raw byte."""
    shown = name.strip()
    return bool(shown) and shown.isascii() and shown.isprintable() and not any(c.isalnum() or c in "<\\" for c in shown)
