"""Generating text: one token after another, sampled from the likely ones.

Responsible for how a token is sampled. Sampling from all tokens soon derails a small model, and always taking the
likeliest makes it repeat itself, so a token is sampled from the smallest set whose probability reaches `top_p` (nucleus
sampling, Holtzman et al. 2020). The same seed gives the same reply.
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
    """The continuation of a text, piece by piece; joined, the pieces are `Model.generate`'s reply.

    The model sees at most its context: when that is full, it continues from the last half of the tokens. Raises
    InputError at the call, not at the first piece.
    """
    check_sampling(tokens, temperature, top_p, seed)
    random = np.random.default_rng(seed)
    choose = partial(sample_token, temperature=temperature, top_p=top_p, random=random)
    reply = generate_tokens(model, model.tokenizer.encode(text), choose)
    return decode_stream(model.tokenizer.bytes[token] for token in islice(reply, tokens))


def generate_tokens(model: LanguageModel, read: list[int], choose: Callable[[Matrix], int]) -> Iterator[int]:
    """An endless stream of tokens: `choose` picks each from its logits, and the model reads it before the next."""
    context, reading = model.parameters.context, Decoding(model)
    new = read = fit_context(read, context)
    while True:
        token = choose(reading.read(new))
        yield token
        read, new = [*read, token], [token]
        if len(read) > context:
            new = read = fit_context(read, context)
            reading = Decoding(model)


def decode_stream(parts: Iterable[bytes]) -> Iterator[str]:
    """Decode UTF-8 as its bytes arrive: a character once its bytes are complete, � for invalid bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        yield decoder.decode(part)
    yield decoder.decode(b"", final=True)


def sample_token(logits: Matrix, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """Sample a token from logits (vocabulary,): softmax at a temperature, cut to the nucleus; at 0 the likeliest.

    >>> logits = np.log(np.array([0.0, 0.1, 0.2, 0.7], np.float32) + np.float32(1e-9))
    >>> random = np.random.default_rng(0)
    >>> [sample_token(logits, 1.0, 0.8, random) for _ in range(9)], sample_token(logits, 0.0, 1.0, random)
    ([3, 3, 3, 3, 2, 2, 3, 3, 3], 3)
    """
    scores = logits.astype(np.float64)
    scores[START] = -np.inf  # <s> begins a text and never follows a token
    order = np.argsort(-scores, kind="stable")
    if temperature == 0:
        return int(order[0])
    chances = np.exp((scores[order] - scores[order[0]]) / temperature)
    cumulative = np.cumsum(chances / chances.sum())
    nucleus = int(np.searchsorted(cumulative, top_p)) + 1  # includes the token that reaches top_p
    cumulative = cumulative[:nucleus]
    return int(order[np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")])


def fit_context(tokens: list[int], context: int) -> list[int]:
    """All tokens if they fit into the context, else `<s>` and the last half context of them."""
    return tokens if len(tokens) <= context else [START, *tokens[-(context // 2) :]]


def check_sampling(tokens: int, temperature: float, top_p: float, seed: int) -> None:
    """Raise InputError for settings that no token can be sampled with."""
    if tokens < 1:
        raise InputError(f"tokens={tokens} is too few: use 1 or more.")
    if not 0 <= temperature < np.inf:
        raise InputError(
            f"temperature={temperature} is negative or not finite: use 0 for the likeliest tokens, 1 for the model's "
            "own probabilities."
        )
    if not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p} is out of range: use more than 0 and at most 1.")
    if seed < 0:
        raise InputError(f"seed={seed} is negative: use 0, 1, 2 …")
