"""The small language model: token embedding, layers, and the embedding again to score the next token.

Decides what a text goes through and what is asked of it; a layer is `block`'s, drawing a reply `generate`'s.
"""

import functools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from clearhead.errors import InputError
from clearhead.functional import attention
from clearhead.model import objective, parameters
from clearhead.model.block import Attend, LayerPass, Turn, layer_pass, normed, times, turns
from clearhead.model.generate import stream
from clearhead.model.objective import Loss
from clearhead.model.parameters import Matrix, Parameters
from clearhead.model.tokens import Tokenizer
from clearhead.once import cached_property

WEIGHTS, TOKENS = "tiny.safetensors", "tiny.json"


@dataclass(frozen=True, eq=False)
class Forward:
    """All that the model computed of some tokens, in order; n is their number."""

    tokens: tuple[int, ...]
    embedded: Matrix  # (n, dim): each token's row of the embedding
    layers: tuple[LayerPass, ...]
    normed: Matrix  # (n, dim): what leaves the last layer, each row over its root mean square
    logits: Matrix  # (n, vocabulary): normed times the embedding, scores of each token to come next


@dataclass(frozen=True, eq=False)
class Model:
    """A decoder-only transformer: pre-norm, rotary positions, tied embeddings, attention by clearhead, all in float32.

    >>> model = load()
    >>> tokens = model.tokenizer.encode("The river was")
    >>> model.tokenizer.names(tokens)
    ['<s>', 'The', ' ri', 'ver', ' was']
    >>> done = model.forward(tokens)
    >>> done.logits.shape, len(done.layers), done.layers[0].q.shape
    ((5, 2048), 4, (4, 5, 32))
    """

    parameters: Parameters
    tokenizer: Tokenizer

    def forward(self, tokens: Sequence[int], *, without: Collection[tuple[int, int]] = ()) -> Forward:
        """Every value between tokens and logits; the first token should be `<s>`, as `tokenizer.encode` puts it.

        At most `parameters.context` tokens. Heads (layer, head) that it does `without` add nothing to the residual
        stream. Raises InputError.

        >>> model = load()
        >>> tokens = model.tokenizer.encode("The river was wide. The river")
        >>> chances = model.forward(tokens, without=[(3, 3)]).logits[-1]
        >>> bool((chances != model.logits(tokens)[-1]).any())
        True
        """
        known, held = self.checked(tokens), self.parameters
        for number, head in without:
            if not (0 <= number < len(held.layers) and 0 <= head < held.heads):
                raise InputError(f"head {(number, head)} is none of {len(held.layers)} × {held.heads}: count from 0.")
        turn = self.turn(0, len(known))
        x = embedded = held.embedding[list(known)]
        layers = list[LayerPass]()
        for at, layer in enumerate(held.layers):
            off = [head for number, head in without if number == at]
            layers.append(layer_pass(x, layer, held.heads, turn, attention_without(off) if off else attention))
            x = layers[-1].leaving
        return Forward(known, embedded, tuple(layers), normed(x), self.unembedded(x))

    def logits(self, tokens: Sequence[int]) -> Matrix:
        """Scores (n, vocabulary) of each token to come next, after each of the tokens; softmax makes them chances."""
        return self.forward(tokens).logits

    def unembedded(self, x: Matrix) -> Matrix:
        """Logits of a residual stream (n, dim): the last, or any other to see what it would guess (a logit lens)."""
        return times(normed(x), self.parameters.embedding.T)

    def loss(self, text: str) -> Loss:
        """How surprised the model is by each token of a text, −log p in nats.

        >>> loss = load().loss("She was very happy.")
        >>> 2 < loss.mean < 4 < loss.uniform, len(loss.nats) == len(loss.tokens)
        (True, True)
        """
        return objective.loss(self, text)

    def generate(
        self, text: str, tokens: int = 40, *, temperature: float = 0.8, top_p: float = 0.9, seed: int = 0
    ) -> str:
        """What comes after a text: `tokens` more, each drawn from the likeliest that together have the chance `top_p`.

        A `temperature` below 1 favours the likelier ones, 0 takes the likeliest. One seed gives one reply. Raises
        InputError.

        >>> model = load()
        >>> reply = model.generate("The whale", 20, seed=3)
        >>> reply == model.generate("The whale", 20, seed=3), reply == model.generate("The whale", 20, seed=4)
        (True, False)
        """
        return "".join(stream(self, text, tokens, temperature=temperature, top_p=top_p, seed=seed))

    def checked(self, tokens: Sequence[int], already: int = 0) -> tuple[int, ...]:
        """Tokens that the model knows, and not too many after those that it has read."""
        known, room = tuple(map(int, tokens)), self.parameters.context - already
        if not 0 < len(known) <= room:
            after = f" after {already}" if already else ""
            raise InputError(
                f"{len(known)} tokens{after} are no text for this model, which takes 1 to {room} here: give fewer."
                if known
                else "No token is no text for this model: give one or more, as by encode()."
            )
        strange = [token for token in known if not 0 <= token < len(self.tokenizer)]
        if strange:
            raise InputError(f"token {strange[0]} is unknown: use 0 to {len(self.tokenizer) - 1}, as by encode().")
        return known

    def turn(self, first: int, count: int) -> Turn:
        """By which angles some positions turn q and k."""
        cosine, sine = self._turns
        return cosine[first : first + count], sine[first : first + count]

    @cached_property
    def _turns(self) -> Turn:
        return turns(self.parameters.context, self.parameters.embedding.shape[1] // self.parameters.heads)


def attention_without(heads: Sequence[int]) -> Attend:
    """Attention whose outputs are 0 for some heads."""

    def attend(q: Matrix, k: Matrix, v: Matrix) -> Matrix:
        y: Matrix = attention(q, k, v)
        y[heads] = 0
        return y

    return attend


def read(folder: Traversable) -> Model:
    """A model from its two files, tiny.safetensors and tiny.json."""
    from safetensors.numpy import load as tensors

    told = json.loads(folder.joinpath(TOKENS).read_text("utf-8"))
    held = parameters.read(tensors(folder.joinpath(WEIGHTS).read_bytes()), told["heads"], told["context"])
    return Model(held, Tokenizer(told["merges"]))


@functools.cache
def load() -> Model:
    """The model that ships with clearhead, read once; 1.05 million parameters (docs/model.md).

    >>> load().parameters.embedding.shape
    (2048, 128)
    """
    return read(resources.files(__package__))
