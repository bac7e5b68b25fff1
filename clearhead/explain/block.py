"""The page about a transformer's block in the shipped language model: from a token to the next token's probabilities.

Responsible for the page. The model computes every number on it; one head's attention is worked out by `steps`, as for a
user's vectors.
"""

from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.errors import InputError
from clearhead.explain import inputs, json, steps
from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.rows import MOST_ROWS, choose_rows
from clearhead.explain.steps import Explanation, vector_length
from clearhead.explain.story import scores_step, softmax_step, sum_step, title
from clearhead.model import Forward, HeadScores, LayerPass, Loss, Model, head_scores, load
from clearhead.once import cached_property
from clearhead.wording import count, label, number, percent, quoted, short

DIMS_SHOWN = 2  # of each vector
GUESS_COUNT = 3  # guesses of the next token after each layer
HEAD_KINDS = {
    "previous": "looks at the token before",
    "induction": "looks at what came next the last time",
    "sink": "rests on the first token",
    "itself": "looks at itself",
    "punctuation": "looks at signs",
}
LEAST_TOKENS = 80  # for measuring heads; a shorter text is repeated


@dataclass(frozen=True, eq=False)
class ModelPage:
    """The model's page for a text, at one position, of one layer's head."""

    text: str
    position: str
    layer: int
    head: int

    @property
    def model(self) -> Model:
        """The small language model."""
        return load()

    @cached_property
    def done(self) -> Forward:
        """The model's forward pass over the text; raises InputError for a long text or an unknown head."""
        tokens = self.model.tokenizer.encode(self.text)
        context = self.model.parameters.context
        if len(tokens) > context:
            raise InputError(
                f"{len(tokens)} tokens are more than the {context} that this model reads: give a shorter text."
            )
        if not 0 <= self.layer < len(self.model.parameters.layers) or not 0 <= self.head < self.model.parameters.heads:
            last = f"{len(self.model.parameters.layers) - 1}.{self.model.parameters.heads - 1}"
            raise InputError(f"--head {self.layer}.{self.head} is not a head of this model: give 0.0 to {last}.")
        return self.model.forward(tokens)

    @cached_property
    def explained(self) -> Explanation:
        """One head's attention, step by step."""
        of, names = self.done.layers[self.layer], self.names
        q, k, v = (x[self.head].astype(np.float64) for x in (of.q, of.k, of.v))
        position = inputs.item_position(self.position, names)
        return steps.explain_vectors(q, names, position, keys=k, values=v, scale=of.scale)

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens as text, without the blank with which a word's token begins."""
        return tuple(name.strip() or name for name in self.model.tokenizer.names(self.done.tokens))

    def blocks(self, dims: int) -> list[Block]:
        """The page: embedding, block, logit lens, objective, and the heads by kind."""
        e, shown = self.explained, choose_rows(self.explained)
        page: list[Block] = [title("A small language model, step by step", e, e.position), *model_opening(self)]
        page += [*layer_section(self), Heading(f"Head {self.layer}.{self.head}: its attention, worked out")]
        page += [*scores_step(e, shown), *softmax_step(e, shown), *sum_step(e, shown, dims)]
        return [*page, *depth_section(self), *objective_section(self), *heads_section(self)]

    def json(self) -> str:
        """The page's numbers as JSON."""
        i, loss = self.explained.position, self.model.loss(self.text)
        strongest = {kind: strongest_head(self.measured[0], kind) for kind in HEAD_KINDS}
        fields = {
            "tokens": self.names,
            "position": i,
            "head": [self.layer, self.head],
            "attention": json.explanation_fields(self.explained),
            "residual_lengths": [vector_length(x[i].astype(np.float64)) for x in self.stream()],
            "guesses": [[{"token": name, "chance": chance} for name, chance in row] for row in self.guesses()],
            "nats": loss.nats.tolist(),
            "mean": loss.mean,
            "perplexity": loss.perplexity,
            "bits_per_character": loss.bits_per_character,
            "uniform": loss.uniform,
            "heads": {kind: dict(zip(("head", "share"), head, strict=True)) for kind, head in strongest.items()},
        }
        return json.json_text(fields)

    @cached_property
    def measured(self) -> tuple[HeadScores, int]:
        """The scores of every head on this text, and how often the text was repeated to be long enough."""
        repeats = 1
        while len(self.model.tokenizer.encode(" ".join([self.text] * repeats))) < LEAST_TOKENS:
            repeats += 1
        return head_scores(self.model, " ".join([self.text] * repeats)), repeats

    def stream(self) -> list[Array]:
        """The residual stream after the embedding and after each layer."""
        return [self.done.embedded, *(layer.leaving for layer in self.done.layers)]

    def guesses(self) -> list[list[tuple[str, float]]]:
        """The likeliest next tokens if the model ended at each stage of the stream: the logit lens."""
        guesses, i = [], self.explained.position
        for x in self.stream():
            chance = next_token_chances(self.model.unembedded(x[i : i + 1])[0])
            best = np.argsort(-chance, kind="stable")[:GUESS_COUNT]
            guesses.append([(self.model.tokenizer.names([int(token)])[0], float(chance[token])) for token in best])
        return guesses


def next_token_chances(logits: Array) -> Array:
    """Softmax of logits (vocabulary,), in float64."""
    s = logits.astype(np.float64)
    e = np.exp(s - s.max())
    chances: Array = e / e.sum()
    return chances


def model_opening(of: ModelPage) -> list[Block]:
    """The paragraph about the model and a token's embedding."""
    held, i = of.model.parameters, of.explained.position
    vocabulary, dim = held.embedding.shape
    text = (
        f"The model was trained to guess the next token. It knows {vocabulary:,} of them, words and pieces of words, "
        f"and has {count(len(held.layers), 'layer')} of {count(held.heads, 'head')} each. {quoted(of.names[i])}, token "
        f"{i}, is number {of.done.tokens[i]}: its embedding is that row of a table ({vocabulary},{dim}), and begins "
        "the residual stream, the one vector a token that every layer reads and adds to: "
        f"{first_dims(of.done.embedded[i])}."
    )
    return [Prose(text)]


def layer_section(of: ModelPage) -> list[Block]:
    """The table of one layer's steps on the residual stream."""
    layer, n = of.done.layers[of.layer], len(of.done.tokens)
    rows = tuple(pass_row(of, *row) for row in layer_steps(layer, n))
    columns = (
        Column("step", "left"), Column("formula", "left"), Column("shape"), Column("multiply-adds"),
        Column(f"token {of.explained.position}", "left"), Column("length"),
    )  # fmt: skip
    text = (
        "Norm comes first: each sub-layer reads a copy of the stream with every row over the root of the mean of its "
        "squares, and adds what it found to the stream itself, which is never normed. So what entered is still there "
        "at the end, and learning reaches the first layer undiminished, through one long sum."
    )
    return [Heading(f"Layer {of.layer} of {len(of.done.layers)}"), Table(columns, rows), Prose(text)]


def layer_steps(layer: LayerPass, n: int) -> list[tuple[str, tuple[str, str], Array, int]]:
    """The steps of a layer: name, formula, output and multiply-adds."""
    heads, _, d = layer.q.shape
    dim, wide, pairs = layer.entering.shape[1], layer.hidden.shape[1], n * (n + 1) // 2
    return [
        ("enters", ("x", "x"), layer.entering, 0),
        ("norm", ("u = x ÷ rms(x)", r"u = x / \mathrm{rms}(x)"), layer.normed, n * dim),
        ("queries", ("q = R(u W^Q)", "q = R(u W^Q)"), layer.q, n * dim * heads * d),
        ("keys", ("k = R(u W^K)", "k = R(u W^K)"), layer.k, n * dim * heads * d),
        ("values", ("v = u W^V", "v = u W^V"), layer.v, n * dim * heads * d),
        ("attention", ("o = softmax(q Kᵀ ÷ √d) V", r"o = \mathrm{softmax}(q K^{T} / \sqrt{d})\, V"), layer.attended,
         2 * heads * d * pairs),
        ("W^O", ("a = [all o] W^O", r"a = [\mbox{all}\ o]\, W^O"), layer.attention, n * heads * d * dim),
        ("added", ("x + a", "x + a"), layer.between, 0),
        ("norm", ("w = norm(x + a)", r"w = \mathrm{norm}(x + a)"), layer.normed_between, n * dim),
        ("MLP, up", ("h = gelu(w W^up)", r"h = \mathrm{gelu}(w W^{up})"), layer.hidden, n * dim * wide),
        ("MLP, down", ("m = h W^down", r"m = h W^{down}"), layer.mlp, n * wide * dim),
        ("added", ("x + a + m", "x + a + m"), layer.leaving, 0),
    ]  # fmt: skip


def pass_row(of: ModelPage, name: str, formula: tuple[str, str], x: Array, cost: int) -> tuple[Cell, ...]:
    """A row of the layer's table; where there are several heads, it shows the chosen one."""
    head = x[of.head] if x.ndim == 3 else x
    vector = head[of.explained.position].astype(np.float64)
    shape, adds = ",".join(map(str, x.shape)), short(cost) if cost else ""
    return name, Formula(*formula), f"({shape})", adds, first_dims(vector), number(vector_length(vector))


def depth_section(of: ModelPage) -> list[Block]:
    """The section on the logit lens: the model's guesses if it ended after each layer."""
    i, names = of.explained.position, ["embedding", *(f"layer {n}" for n in range(len(of.done.layers)))]
    rows = tuple(
        (name, *(f"{quoted(token.strip() or token)} {percent(chance)}" for token, chance in row))
        for name, row in zip(names, of.guesses(), strict=True)
    )
    columns = (Column("after", "left"), *(Column(f"guess {n}", "left") for n in range(1, GUESS_COUNT + 1)))
    text = (
        f"What comes after {quoted(of.names[i])}? The last residual stream, normed, is compared with every token's "
        "embedding; softmax makes chances of the scores. The same can be asked after every layer, as if the model "
        "ended there (a logit lens): each layer changes the guess."
    )
    return [Heading("What depth adds"), Prose(text), Table(columns, rows)]


def objective_section(of: ModelPage) -> list[Block]:
    """The section on the training loss, measured on this text."""
    loss = of.model.loss(of.text)
    names = of.names[1:]
    rows = [
        (str(j + 1), label(names[j]), percent(float(np.exp(-nats))), number(float(nats)))
        for j, nats in enumerate(loss.nats)
    ]
    shown = rows if len(rows) <= MOST_ROWS else [*rows[:16], ("", f"… {len(rows) - 32} more", "", ""), *rows[-16:]]
    columns = (Column("token"), Column("", "left"), Column("chance it was given"), Column("−log p"))
    total = ("", "mean", "", number(loss.mean))
    return [Heading("The objective: guess the next token"), Prose(loss_text(loss)), Table(columns, tuple(shown), total)]


def loss_text(loss: Loss) -> str:
    """The loss in words."""
    better = "less" if loss.mean < loss.uniform else "no less"
    return (
        "Training changes every matrix so that the tokens that really come get a larger chance: it makes the mean of "
        f"−log p small, the cross-entropy. Here it is {number(loss.mean)} nats a token, {better} than the "
        f"{number(loss.uniform)} of a guess that gives all {loss.vocabulary:,} tokens the same chance. In other units: "
        f"perplexity exp({number(loss.mean)}) = {number(loss.perplexity)}, as unsure as among so many equal tokens, "
        f"and {number(loss.bits_per_character)} bits a character."
    )


def heads_section(of: ModelPage) -> list[Block]:
    """The section on the strongest head of each kind, measured on this text."""
    scores, repeats = of.measured
    rows = []
    for kind, does in HEAD_KINDS.items():
        (layer, head), share = strongest_head(scores, kind)
        rows.append((f"{layer}.{head}", does, number(share)))
    columns = (Column("head"), Column("what it does", "left"), Column("its weight there, on the average"))
    said = f", said {repeats} times" if repeats > 1 else ""
    text = (
        f"The head of each kind that is most so, on this text{said}; copying (induction) is measured on random tokens "
        f"said twice. Of all weight before it, signs would get {percent(scores.signs)} by chance."
    )
    return [Heading("Which head is which"), Prose(text), Table(columns, tuple(rows))]


def strongest_head(scores: HeadScores, kind: str) -> tuple[tuple[int, int], float]:
    """The head with the largest score of a kind, and the score."""
    values: Array = getattr(scores, kind)
    layer, head = divmod(int(values.argmax()), values.shape[1])
    return (layer, head), float(values[layer, head])


def first_dims(x: Array) -> str:
    """The first numbers of a vector, as text."""
    return ", ".join(number(float(value)) for value in x[:DIMS_SHOWN]) + ", …"
