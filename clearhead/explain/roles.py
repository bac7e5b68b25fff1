"""A scene with designed matrices, in which queries, keys and values differ and every number says why.

Anna gives Tom a ball: who is "he", and what is "it"? Vectors have ten named dims, so that each matrix can be read: W^Q
reads from a pronoun what it stands for, W^K reads from a noun what could stand for it, W^V passes on who that is.
"""

import numpy as np

from clearhead.arrays import Array
from clearhead.explain.blocks import Block, Column, Heading, Prose, Table
from clearhead.explain.steps import Explanation, explain
from clearhead.rules.masks import Mask
from clearhead.wording import number

KINDS = ("woman", "man", "thing")
WHO = ("ball", "Anna", "Tom")  # in another order than the kinds: what is given is not what is looked for
DIMS = (*(f"names a {kind}" for kind in KINDS), *(f"stands for a {kind}" for kind in KINDS), *WHO, "other")
EAGER = 6.0  # how much a pronoun insists: larger is nearer to one choice
TOKENS = ("Anna", "gave", "Tom", "the", "ball", "because", "he", "wanted", "it")
MEANING = {
    "Anna": ("names a woman", "Anna"),
    "Tom": ("names a man", "Tom"),
    "ball": ("names a thing", "ball"),
    "he": ("stands for a man",),
    "it": ("stands for a thing",),
}  # the other words are just "other"


def scene(position: int | str = -1, mask: Mask | None = None) -> Explanation:
    """The scene worked out at one of its words.

    >>> e = scene("he")
    >>> e.tokens[int(e.weights.argmax())], e.output.round(2)
    ('Tom', array([0.03, 0.03, 0.84]))
    """
    x, (query, key, value) = vectors(), matrices()
    return explain(x @ query, TOKENS, position, keys=x @ key, values=x @ value, mask=mask)


def vectors() -> Array:
    """(9, 10) a 1 for everything that a word is."""
    return np.array([[float(dim in MEANING.get(token, ("other",))) for dim in DIMS] for token in TOKENS])


def matrices() -> tuple[Array, Array, Array]:
    """W^Q, W^K and W^V, (10, 3) each: they pick the pronoun's kind, the noun's kind, and who it is."""
    one, none = np.eye(3), np.zeros((3, 3))
    rest = np.zeros((1, 3))
    return (
        np.concatenate([none, EAGER * one, none, rest]),
        np.concatenate([one, none, none, rest]),
        np.concatenate([none, none, one, rest]),
    )


def preface(e: Explanation) -> list[Block]:
    """The vectors and what the matrices make of them."""
    of, x = e.operands, vectors()
    columns = (
        Column("j"),
        Column("item", "left"),
        Column("xⱼ: what it is", "left"),
        Column("qⱼ: what it asks for", "left"),
        Column("kⱼ: what it is found by", "left"),
        Column("vⱼ: what it gives", "left"),
    )
    rows = tuple(
        (str(j), token, told(x[j], DIMS), told(of.queries[j], KINDS), told(of.keys[j], KINDS), told(of.values[j], WHO))
        for j, token in enumerate(TOKENS)
    )
    text = (
        "Each word is a vector of 10 numbers, 1 for everything that it is. W^Q reads from a pronoun what it stands "
        f"for, {number(EAGER)} times as large; W^K reads from a noun what it could stand in for; W^V reads who it is. "
        "So the three differ: “he” asks for a man, and is itself not found as one."
    )
    return [Heading("0  Queries, keys and values"), Prose(text), Table(columns, rows)]


def outcome(e: Explanation) -> Block:
    """What the output says, by the names of its dims."""
    at = int(e.output.argmax())
    dims = ", ".join(f"{who} (dim {k})" for k, who in enumerate(WHO))
    who = (
        f"most of all {WHO[at]}, {number(float(e.output[at]))}" if (e.output == e.output.max()).sum() == 1 else "no one"
    )
    return Prose(f"The output's dims are {dims}: “{e.token}” comes out as {who}.", strong=True)


def told(vector: Array, names: tuple[str, ...]) -> str:
    """The dims that are not 0, by name."""
    shown = [f"{name} {number(x)}" if x != 1 else name for name, x in zip(names, vector, strict=True) if x]
    return ", ".join(shown) or "nothing"
