"""The small language model: token embedding, layers, and the embedding again to score the next token.

Responsible for the forward pass and for loading. Not for a layer, which is in `block`, nor for sampling, which is in
`generate`.
"""

import functools
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from clearhead.displayed import Brief
from clearhead.errors import InputError
from clearhead.functional import attention
from clearhead.model import objective, parameters
from clearhead.model.block import Attend, LayerPass, Rotation, layer_pass, matmul_rows, rms_norm, rotation_table
from clearhead.model.generate import stream
from clearhead.model.objective import Loss
from clearhead.model.parameters import Matrix, Parameters
from clearhead.model.tokens import Tokenizer
from clearhead.once import cached_property

WEIGHTS_FILE, TOKENS_FILE = "tiny.safetensors", "tiny.json"


@dataclass(frozen=True, eq=False, repr=False)
class Forward(Brief):
    """Every value that the model computed for n tokens, in order."""

    tokens: tuple[int, ...]
    embedded: Matrix  # (n, dim): each token's row of the embedding
    layers: tuple[LayerPass, ...]
    normed: Matrix  # (n, dim): the last layer's output, each row divided by its root mean square
    logits: Matrix  # (n, vocabulary): normed times the transposed embedding, the next token's scores


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
        """Every value between tokens and logits; the first token should be `<s>`, as `tokenizer.encode` gives it.

        Takes at most `parameters.context` tokens. The heads in `without`, as (layer, head), add nothing to the
        residual stream. Raises InputError.

        >>> model = load()
        >>> tokens = model.tokenizer.encode("The river was wide. The river")
        >>> chances = model.forward(tokens, without=[(3, 3)]).logits[-1]
        >>> bool((chances != model.logits(tokens)[-1]).any())
        True
        """
        checked, p = self.checked(tokens), self.parameters
        for number, head in without:
            if not (0 <= number < len(p.layers) and 0 <= head < p.heads):
                raise InputError(
                    f"head {(number, head)} is not one of {len(p.layers)} layers × {p.heads} heads: count from 0."
                )
        turn = self.turn(0, len(checked))
        x = embedded = p.embedding[list(checked)]
        layers = list[LayerPass]()
        for n, layer in enumerate(p.layers):
            off = [head for number, head in without if number == n]
            layers.append(layer_pass(x, layer, p.heads, turn, attention_without(off) if off else attention))
            x = layers[-1].leaving
        return Forward(checked, embedded, tuple(layers), rms_norm(x), self.unembedded(x))

    def logits(self, tokens: Sequence[int]) -> Matrix:
        """Next-token scores (n, vocabulary) after each of the tokens; softmax turns them into probabilities."""
        return self.forward(tokens).logits

    def unembedded(self, x: Matrix) -> Matrix:
        """Logits of a residual stream (n, dim): the last layer's, or an earlier one's as a logit lens."""
        return matmul_rows(rms_norm(x), self.parameters.embedding.T)

    def loss(self, text: str) -> Loss:
        """The loss of each token of a text, −log p in nats.

        >>> loss = load().loss("She was very happy.")
        >>> 2 < loss.mean < 4 < loss.uniform, len(loss.nats) == len(loss.tokens)
        (True, True)
        """
        return objective.loss(self, text)

    def generate(
        self, text: str, tokens: int = 40, *, temperature: float = 0.8, top_p: float = 0.9, seed: int = 0
    ) -> str:
        """Continue a text by `tokens` tokens, each sampled from the likeliest that together have probability `top_p`.

        A `temperature` below 1 favours likelier tokens; 0 always takes the likeliest. The same seed gives the same
        reply. Raises InputError.

        >>> model = load()
        >>> reply = model.generate("The whale", 20, seed=3)
        >>> reply == model.generate("The whale", 20, seed=3), reply == model.generate("The whale", 20, seed=4)
        (True, False)
        """
        return "".join(stream(self, text, tokens, temperature=temperature, top_p=top_p, seed=seed))

    def checked(self, tokens: Sequence[int], already: int = 0) -> tuple[int, ...]:
        """The tokens as ints; raises InputError for none, for more than the context holds, and for unknown ones."""
        checked, room = tuple(map(int, tokens)), self.parameters.context - already
        if not checked:
            raise InputError("tokens is empty, but the model needs at least one: give them as encode() does.")
        if len(checked) > room:
            after = f" after {already}" if already else ""
            step = f"give at most {room}" if room else "begin again with a new Decoding"
            raise InputError(
                f"{len(checked)} tokens{after} exceed the model's context of {self.parameters.context} tokens: {step}."
            )
        unknown = [token for token in checked if not 0 <= token < len(self.tokenizer)]
        if unknown:
            raise InputError(f"token {unknown[0]} is unknown: use 0 to {len(self.tokenizer) - 1}, as encode() does.")
        return checked

    def turn(self, first: int, count: int) -> Rotation:
        """The cosines and sines by which `count` positions from `first` rotate q and k."""
        cosine, sine = self._turns
        return cosine[first : first + count], sine[first : first + count]

    @cached_property
    def _turns(self) -> Rotation:
        return rotation_table(self.parameters.context, self.parameters.embedding.shape[1] // self.parameters.heads)


def attention_without(heads: Sequence[int]) -> Attend:
    """Attention in which the outputs of some heads are 0."""

    def attend(q: Matrix, k: Matrix, v: Matrix) -> Matrix:
        y: Matrix = attention(q, k, v)
        y[heads] = 0
        return y

    return attend


def read_model(folder: Traversable) -> Model:
    """Read a model from its two files, tiny.safetensors and tiny.json."""
    from safetensors.numpy import load as load_tensors

    settings = json.loads(folder.joinpath(TOKENS_FILE).read_text("utf-8"))
    tensors = load_tensors(folder.joinpath(WEIGHTS_FILE).read_bytes())
    weights = parameters.dequantize(tensors, settings["heads"], settings["context"])
    return Model(weights, Tokenizer(settings["merges"]))


@functools.cache
def load() -> Model:
    """Load the model that ships with clearhead, with 1.05 million parameters (docs/model.md); it is read only once.

    >>> load().parameters.embedding.shape
    (2048, 128)
    """
    return read_model(resources.files(__package__))
