"""Going on with a text: one token after the other, drawn from the likely ones.

Decides how a token is drawn. From all tokens a small model soon draws one that derails it, and always the likeliest
one makes it turn in circles; so it is drawn from the fewest tokens that together have the chance `top_p` (nucleus
sampling, Holtzman et al. 2020). A seed makes the reply the same again.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import numpy as np

from clearhead.errors import InputError
from clearhead.model.decoding import Decoding
from clearhead.model.interface import LanguageModel
from clearhead.model.parameters import Matrix
from clearhead.model.tokens import START


def stream(
    model: LanguageModel, text: str, tokens: int = 40, *, temperature: float = 0.8, top_p: float = 0.9, seed: int = 0
) -> Iterator[str]:
    """What comes after a text, piece by piece; joined, `Model.generate`'s reply.

    The model sees at most its context: when that is full, it goes on from the last half of what it has read. Raises
    InputError at once.
    """
    checked(tokens, temperature, top_p, seed)
    random = np.random.default_rng(seed)
    choose = partial(drawn, temperature=temperature, top_p=top_p, random=random)
    chosen = replies(model, model.tokenizer.encode(text), choose)
    return characters(model.tokenizer.bytes[token] for token in islice(chosen, tokens))


def replies(model: LanguageModel, read: list[int], choose: Callable[[Matrix], int]) -> Iterator[int]:
    """Tokens without end, each chosen by its logits and read before the next."""
    context, reading = model.parameters.context, Decoding(model)
    new = read = shortened(read, context)
    while True:
        token = choose(reading.read(new))
        yield token
        read, new = [*read, token], [token]
        if len(read) > context:
            new = read = shortened(read, context)
            reading = Decoding(model)


def characters(parts: Iterable[bytes]) -> Iterator[str]:
    """Text from its bytes as they come: a character when it is whole, � where none can come of them."""
    whole = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        yield whole.decode(part)
    yield whole.decode(b"", final=True)


def drawn(logits: Matrix, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """A token from its logits (vocabulary,): softmax at a temperature, cut to the nucleus; at 0 the likeliest one.

    >>> logits = np.log(np.array([0.0, 0.1, 0.2, 0.7], np.float32) + np.float32(1e-9))
    >>> random = np.random.default_rng(0)
    >>> [drawn(logits, 1.0, 0.8, random) for _ in range(9)], drawn(logits, 0.0, 1.0, random)
    ([3, 3, 3, 3, 2, 2, 3, 3, 3], 3)
    """
    scores = logits.astype(np.float64)
    scores[START] = -np.inf  # begins a text, and never follows
    order = np.argsort(-scores, kind="stable")
    if temperature == 0:
        return int(order[0])
    chances = np.exp((scores[order] - scores[order[0]]) / temperature)
    upto = np.cumsum(chances / chances.sum())
    nucleus = int(np.searchsorted(upto, top_p)) + 1  # the token that reaches top_p is in it
    upto = upto[:nucleus]
    return int(order[np.searchsorted(upto, random.random() * upto[-1], side="right")])


def shortened(tokens: list[int], context: int) -> list[int]:
    """All tokens if they fit into the context, else `<s>` and the last ones, half as many as fit."""
    return tokens if len(tokens) <= context else [START, *tokens[-(context // 2) :]]


def checked(tokens: int, temperature: float, top_p: float, seed: int) -> None:
    """Refuse what cannot be drawn with."""
    if tokens < 1:
        raise InputError(f"tokens={tokens} make no reply: use 1 or more.")
    if not 0 <= temperature < np.inf:
        raise InputError(
            f"temperature={temperature} is none: use 0 for the likeliest tokens, 1 for the model's chances."
        )
    if not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p} is no share: use more than 0 and at most 1.")
    if seed < 0:
        raise InputError(f"seed={seed} is below 0: use 0, 1, 2 …")
