"""A transformer's attention layer on one sentence, step by step: W^Q, W^K, W^V, heads, the scale and W^O.

Responsible for the page; the numbers are the definition's, in float64. Where the user gives no matrices, selections
stand in for learned ones: head h's W^Q, W^K and W^V take the d dims from h · d on, and W^O is the identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import textbook
from clearhead.errors import InputError, ShapeError
from clearhead.explain.blocks import Block, Cell, Column, Formula, Heading, Prose, Table
from clearhead.explain.json import json_text
from clearhead.explain.matrices import Matrices
from clearhead.explain.rows import MOST_ROWS, name_cells, rest_label
from clearhead.explain.steps import Explanation, right_angles
from clearhead.explain.story import notes_prose, title
from clearhead.rules.masks import causal, visible
from clearhead.wording import count, number, quoted, sub

DIMS_PER_CELL = 3  # shown of a vector


@dataclass(frozen=True, eq=False)
class Layer:
    """Every value of the layer at one position."""

    explained: Explanation
    matrices: Matrices | None
    q: Array  # (heads, n, d)
    k: Array  # (heads, n, d)
    v: Array  # (heads, n, dv)
    scores: Array  # (heads, i + 1) q_i · k_j
    scaled: Array  # the scores divided by √d
    weights: Array  # (heads, i + 1)
    outputs: Array  # (heads, dv) each head's weighted sum
    y: Array  # (out,) after W^O


def work_out_layer(e: Explanation, heads: int, matrices: Matrices | None = None) -> Layer:
    """Compute the layer at the explanation's position; raises InputError.

    >>> from clearhead.explain.steps import explain_vectors
    >>> layer = work_out_layer(explain_vectors(np.eye(4)), heads=2)
    >>> layer.scaled.round(3).tolist(), layer.y.round(3).tolist()
    ([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.707]], [0.25, 0.25, 0.199, 0.403])
    """
    n, i = len(e.x), e.position
    q, k, v = (split_into_heads(x, heads) for x in project(e.x, matrices))
    query, seen = q[:, i : i + 1], visible(causal(), n, n, np.array([i]))
    scores = textbook.scores(query, k)  # (heads, 1, n)
    scaled = textbook.scores(query, k, q.shape[-1] ** -0.5)
    for head in range(heads):
        orthogonal = right_angles(query[head, 0], k[head], scores[head, 0])
        scores[head, 0, orthogonal] = scaled[head, 0, orthogonal] = 0
    weights = textbook.softmax(scaled, seen)
    outputs = textbook.weighted_sum(weights, v, seen)[:, 0]  # (heads, dv)
    y = outputs.reshape(-1)
    if matrices is not None and matrices.output is not None:
        y = y @ matrices.output
    row = np.s_[:, 0, : i + 1]
    return Layer(e, matrices, q, k, v, scores[row], scaled[row], weights[row], outputs, y)


def project(x: Array, matrices: Matrices | None) -> tuple[Array, Array, Array]:
    """x W^Q, x W^K and x W^V; without matrices, x itself."""
    if matrices is None:
        return x, x, x
    dim = matrices.query.shape[0]
    if dim != x.shape[1]:
        raise ShapeError(
            f"Vectors of {x.shape[1]} numbers do not fit W^Q {matrices.query.shape}: give matrices of {x.shape[1]} "
            "rows."
        )
    return x @ matrices.query, x @ matrices.key, x @ matrices.value


def split_into_heads(x: Array, heads: int) -> Array:
    """Reshape (n, heads · d) to (heads, n, d)."""
    n, dim = x.shape
    if heads < 1 or dim % heads:
        raise InputError(f"--heads {heads} does not divide the {count(dim, 'dim')}: use a divisor of {dim}.")
    return x.reshape(n, heads, dim // heads).swapaxes(0, 1)


def layer_page(layer: Layer) -> list[Block]:
    """The page: five steps."""
    e, d = layer.explained, layer.q.shape[-1]
    opening = (
        f"The first approach compares items as they are. A transformer's layer lets {quoted(e.token)} ask, be found "
        f"and give by three learned matrices, in {head_count_text(len(layer.q))}. "
    )
    if layer.matrices is None:
        opening += (
            f"Here the matrices only pick dims, so that nothing is hidden: head h takes {count(d, 'dim')}, from dim "
            f"{d} · h on."
        )
    else:
        opening += f"Here they are those of {layer.matrices.name}: {layer.matrices}."
    blocks: list[Block] = [title("A transformer's layer, step by step", e, e.position)]
    blocks += [*notes_prose(e), Prose(opening)]
    blocks += (
        layer_projections(layer) + layer_scores(layer) + layer_softmax(layer) + layer_sums(layer) + layer_output(layer)
    )
    return blocks


def head_count_text(heads: int) -> str:
    """The number of heads, in words."""
    return f"several heads at once (here {heads})" if heads > 1 else "one head here; most layers have several"


def vector_text(x: Array) -> str:
    """The first numbers of a vector, as text."""
    return ", ".join(map(number, x[:DIMS_PER_CELL])) + (", …" if len(x) > DIMS_PER_CELL else "")


def item_columns(layer: Layer, *more: str) -> tuple[Column, ...]:
    """The columns of the item, and one for each head."""
    return (Column("j"), Column("item", "left"), *(Column(f"{name}") for name in more))


def layer_projections(layer: Layer) -> list[Block]:
    """Step 1: queries, keys and values."""
    e, i = layer.explained, layer.explained.position
    formula = Formula(
        f"{sub('q', i)} = {sub('x', i)} W^Q,  kⱼ = xⱼ W^K,  vⱼ = xⱼ W^V,  for each head",
        rf"q_{{{i}}} = x_{{{i}}} W^Q,\ k_j = x_j W^K,\ v_j = x_j W^V,\ \mbox{{for each head}}",
    )
    text = f"{quoted(e.token)} plays three parts: it asks as q, is found as k, and gives v."
    parts: tuple[tuple[Array, str, str], ...] = (
        (layer.q, "q", "asks by"),
        (layer.k, "k", "is found by"),
        (layer.v, "v", "gives"),
    )
    if layer.matrices is None:
        text, parts = f"{text} Here all three are alike.", parts[:1]
    rows = tuple((f"{h}", *(vector_text(x[h, i]) for x, *_ in parts)) for h in range(len(layer.q)))
    columns = (Column("head"), *(Column(f"{sub(letter, i)}: what it {does}", "left") for _, letter, does in parts))
    return [Heading("1  Queries, keys, values", formula), Prose(text), Table(columns, rows)]


def layer_scores(layer: Layer) -> list[Block]:
    """Step 2: scores."""
    i, d = layer.explained.position, layer.q.shape[-1]
    formula = Formula(
        f"score{sub('', i)}ⱼ = {sub('q', i)} · kⱼ ÷ √{d}",
        rf"\mathrm{{score}}_{{{i},j}} = q_{{{i}}} \cdot k_j / \sqrt{{{d}}}",
    )
    text = (
        f"Each head compares in {count(d, 'dim')} of its own. A sum of {count(d, 'product')} spreads like √{d} = "
        f"{number(d**0.5)}, which is divided away."
    )
    return [Heading("2  Scores, scaled", formula), Prose(text), per_head_table(layer, layer.scaled, "head")]


def layer_softmax(layer: Layer) -> list[Block]:
    """Step 3: softmax."""
    i = layer.explained.position
    formula = Formula(
        f"α{sub('', i)}ⱼ = exp(score{sub('', i)}ⱼ) ÷ Σₖ exp(score{sub('', i)}ₖ),  k = 0 … {i}, for each head",
        rf"\alpha_{{{i},j}} = \exp(\mathrm{{score}}_{{{i},j}}) / \sum_{{k=0}}^{{{i}}} \exp(\mathrm{{score}}_{{{i},k}})",
    )
    text = "As in the first approach, head by head: every column adds up to 1, and each head may look elsewhere."
    if len(layer.q) == 1:
        text = "As in the first approach: the column adds up to 1."
    return [Heading("3  Softmax", formula), Prose(text), per_head_table(layer, layer.weights, "head", total=True)]


def per_head_table(layer: Layer, values: Array, name: str, *, total: bool = False) -> Table:
    """A row for each item, a column for each head; where there are many items, those heaviest in some head."""
    e, n = layer.explained, values.shape[1]
    shown: Sequence[int] = range(n)
    if n > MOST_ROWS:
        heaviest = np.argsort(-layer.weights.max(axis=0), kind="stable")[: MOST_ROWS - 1]
        shown = sorted({*heaviest.tolist(), e.position})
    rows: list[tuple[Cell, ...]] = [(*name_cells(e, j), *map(number, values[:, j])) for j in shown]
    if len(shown) < n:
        others = np.delete(np.arange(n), shown).tolist()
        rest = values[:, others].sum(axis=1)
        rows.append(
            ("", rest_label(layer.weights, shown, others), *(map(number, rest) if total else [""] * len(values)))
        )
    last: tuple[Cell, ...] | None = ("", "sum", *map(number, values.sum(axis=1))) if total else None
    return Table(item_columns(layer, *(f"{name} {h}" for h in range(len(values)))), tuple(rows), last)


def layer_sums(layer: Layer) -> list[Block]:
    """Step 4: weighted sums."""
    i = layer.explained.position
    formula = Formula(
        f"{sub('o', i)} = Σⱼ α{sub('', i)}ⱼ vⱼ,  for each head",
        rf"o_{{{i}}} = \sum_j \alpha_{{{i},j}}\, v_j,\ \mbox{{for each head}}",
    )
    rows = tuple((f"{h}", vector_text(o)) for h, o in enumerate(layer.outputs))
    return [
        Heading("4  Weighted sums", formula),
        Prose("Each head adds up the values, each times its weight."),
        Table((Column("head"), Column("output", "left")), rows),
    ]


def layer_output(layer: Layer) -> list[Block]:
    """Step 5: W^O."""
    i = layer.explained.position
    formula = Formula(f"{sub('y', i)} = [heads side by side] W^O", rf"y_{{{i}}} = [\mbox{{heads side by side}}]\, W^O")
    heads, d = layer.outputs.shape
    has_output = layer.matrices is not None and layer.matrices.output is not None
    how = f"mixed by W^O into {count(len(layer.y), 'number')}" if has_output else "mixed by W^O (here the identity)"
    text = f"y = {vector_text(layer.y)}: {heads} × {d} = {count(heads * d, 'number')}, {how}."
    return [Heading("5  W^O", formula), Prose(text)]


def layer_json(layer: Layer) -> str:
    """The numbers as JSON."""
    e = layer.explained
    fields = {
        "tokens": e.tokens,
        "position": e.position,
        "queries": layer.q[:, e.position].tolist(),
        "keys": layer.k[:, : e.position + 1].tolist(),
        "values": layer.v[:, : e.position + 1].tolist(),
        "scores": layer.scores.tolist(),
        "scaled": layer.scaled.tolist(),
        "weights": layer.weights.tolist(),
        "outputs": layer.outputs.tolist(),
        "y": layer.y.tolist(),
        "notes": e.notes,
    }
    return json_text(fields)
