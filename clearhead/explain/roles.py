"""A scene with designed matrices, in which queries, keys and values differ and every number has a reason.

Anna gives Tom a ball: who is "he", and what is "it"? Vectors have ten named dims, so each matrix can be read: W^Q takes
from a pronoun what it stands for, W^K takes from a noun the pronoun that could stand for it, W^V passes on who it is.
"""

import numpy as np

from clearhead.arrays import Array
from clearhead.explain.blocks import Block, Column, Heading, Prose, Table
from clearhead.explain.steps import Explanation, explain_vectors
from clearhead.rules.mask_kinds import Mask
from clearhead.wording import number

NOUN_KINDS = ("woman", "man", "thing")
ENTITIES = ("ball", "Anna", "Tom")  # not in the order of the kinds, so values differ from keys
DIM_NAMES = (
    *(f"names a {kind}" for kind in NOUN_KINDS),
    *(f"stands for a {kind}" for kind in NOUN_KINDS),
    *ENTITIES,
    "other",
)
QUERY_GAIN = 6.0  # a larger one brings the weights nearer to a single choice
TOKENS = ("Anna", "gave", "Tom", "the", "ball", "because", "he", "wanted", "it")
MEANING = {
    "Anna": ("names a woman", "Anna"),
    "Tom": ("names a man", "Tom"),
    "ball": ("names a thing", "ball"),
    "he": ("stands for a man",),
    "it": ("stands for a thing",),
}  # every other word is "other"


def scene(position: int | str = -1, mask: Mask | None = None) -> Explanation:
    """Explain the scene at one of its words.

    >>> e = scene("he")
    >>> e.tokens[int(e.weights.argmax())], e.output.round(2)
    ('Tom', array([0.03, 0.03, 0.84]))
    """
    x, (query, key, value) = scene_vectors(), scene_matrices()
    return explain_vectors(x @ query, TOKENS, position, keys=x @ key, values=x @ value, mask=mask)


def scene_vectors() -> Array:
    """The words' vectors, (9, 10): 1 in each dim that applies to a word."""
    return np.array([[float(dim in MEANING.get(token, ("other",))) for dim in DIM_NAMES] for token in TOKENS])


def scene_matrices() -> tuple[Array, Array, Array]:
    """W^Q, W^K and W^V, (10, 3) each: they select the pronoun's kind, the noun's kind, and the entity."""
    one, none = np.eye(3), np.zeros((3, 3))
    rest = np.zeros((1, 3))
    return (
        np.concatenate([none, QUERY_GAIN * one, none, rest]),
        np.concatenate([one, none, none, rest]),
        np.concatenate([none, none, one, rest]),
    )


def preface(e: Explanation) -> list[Block]:
    """The section on the vectors and their queries, keys and values."""
    of, x = e.operands, scene_vectors()
    columns = (
        Column("j"),
        Column("item", "left"),
        Column("xⱼ: what it is", "left"),
        Column("qⱼ: what it asks for", "left"),
        Column("kⱼ: what it is found by", "left"),
        Column("vⱼ: what it gives", "left"),
    )
    rows = tuple(
        (
            str(j),
            token,
            nonzero_dims(x[j], DIM_NAMES),
            nonzero_dims(of.queries[j], NOUN_KINDS),
            nonzero_dims(of.keys[j], NOUN_KINDS),
            nonzero_dims(of.values[j], ENTITIES),
        )
        for j, token in enumerate(TOKENS)
    )
    text = (
        "Each word is a vector of 10 numbers, 1 for everything that it is. W^Q reads from a pronoun what it stands "
        f"for, {number(QUERY_GAIN)} times as large; W^K reads from a noun what it could stand in for; W^V reads who it "
        "is. So the three differ: “he” asks for a man, and is itself not found as one."
    )
    return [Heading("0  Queries, keys and values"), Prose(text), Table(columns, rows)]


def outcome(e: Explanation) -> Block:
    """The output, read by the names of its dims."""
    at = int(e.output.argmax())
    dims = ", ".join(f"{who} (dim {k})" for k, who in enumerate(ENTITIES))
    who = (
        f"most of all {ENTITIES[at]}, {number(float(e.output[at]))}"
        if (e.output == e.output.max()).sum() == 1
        else "no one"
    )
    return Prose(f"The output's dims are {dims}: “{e.token}” comes out as {who}.", strong=True)


def nonzero_dims(vector: Array, names: tuple[str, ...]) -> str:
    """The names of the dims that are not 0."""
    shown = [f"{name} {number(x)}" if x != 1 else name for name, x in zip(names, vector, strict=True) if x]
    return ", ".join(shown) or "nothing"
