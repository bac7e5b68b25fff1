"""Inputs made for the sentences that random ones seldom need: each is here for what stands behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.explain import explain
from clearhead.explain.inputs import from_file, from_text
from clearhead.rules.named import named_mask, named_score
from clearhead.words import load, read_embeddings
from tests.explain.cases import PYTHON_RULES, WHAT_IF, Case, few_words, of_model, written
from tests.explain.judge import rules
from tests.explain.judge.rules import CAUSAL, Rule, typed

OTHERS = ("not", ("window", 0, 0))  # every item but itself
HALF, HIDE = rules.scale(0.5), 0  # a rule that is named, and one that is a function


def given(rule: Rule | int) -> tuple[Any, Rule]:
    """A rule for clearhead and for the judge."""
    if isinstance(rule, Rule):
        return named_score(rule.name, heads=1), rule
    function, after = PYTHON_RULES[rule]
    return function, rules.of_function(function.__name__, after)


def corner(
    x: list[list[float]], names: str = "", *, position: int = -1, mask: tuple = CAUSAL, rule: Rule | int | None = None,
    page: str = "worked", what: str = "", keys: list[list[float]] | None = None,
    values: list[list[float]] | None = None,
) -> Callable[[int], Case]:  # fmt: skip
    """Vectors, or queries, keys and values, and names of one letter each."""
    array = np.array(x, np.float64)
    tokens = tuple(names) or tuple(f"x{j}" for j in range(len(x)))
    pairs = [] if rule is None else [given(rule)]
    at = position % len(x)
    k = None if keys is None else np.array(keys, np.float64)
    v = k if values is None else np.array(values, np.float64)

    def made(seed: int) -> Case:
        score = [one for one, _ in pairs]

        def explained():
            return explain(array, tokens, at, keys=k, values=v, mask=named_mask(typed(mask)), score=score)

        scale = 1.0 if k is None else k.shape[1] ** -0.5
        own = tuple(own for _, own in pairs)
        return Case(seed, page, array, tokens, at, mask, own, explained, what=what, keys=k, values=v, scale=scale)

    return made


def text(words: str, path: Path | None) -> Callable[[int], Case]:
    """A text by the words of a file, or by those that ship."""
    sentence = (read_embeddings(path) if path else load()).embed(words)
    tokens = sentence.tokens

    def made(seed: int) -> Case:
        def explained():
            return from_text(words, embeddings=path)

        at = len(tokens) - 1
        return Case(seed, "worked", sentence.x, tokens, at, CAUSAL, (), explained, text=words, embeddings=path)

    return made


def on_model(words: str, given: str, head: tuple[int, int]) -> Callable[[int], Case]:
    """A text before the small language model."""

    def explained():
        return of_model(words, given, *head).explained

    return lambda seed: Case(
        seed, "model", np.zeros((1, 1)), ("",), 0, CAUSAL, (), explained, text=words, given=given, head=head
    )


def numbered(folder: Path) -> Callable[[int], Case]:
    """Vectors of a file whose names are numbers."""
    x, tokens = np.array([[1.0, 2.0], [0.5, -1.0]]), ("7e9", "8")
    path = written(folder / "numbered.csv", x, tokens)
    return lambda seed: Case(seed, "worked", x, tokens, 1, CAUSAL, (), lambda: from_file(path))


def angles(long: float, names: str, blank: bool = False) -> list[Callable[[int], Case]]:
    """One item and two at right angles to the last, of so much length; or zero vectors in their place."""
    other = [0.0, 0.0] if blank else [long, 0.0]
    last = [0.0, long]
    return [
        corner([other, last]),
        corner([other, other, last]),
        corner([other, other, last], names),
        corner([other, last], rule=HALF),
        corner([other, other, last], rule=HALF),
        corner([other, other, last], names, rule=HALF),
    ]


CORNERS = [
    *(one for long in (1.0, 27.0, 30.0) for blank in (False, True) for one in angles(long, "aab", blank)),
    corner([[26.6]] * 10),  # a sum that overflows, of exponentials that do not
    corner([[709.7], [1.0]]),
    corner([[709.75], [709.75], [1.0]]),
    corner([[709.79], [1.0]]),
    corner([[27.0], [27.0]]),  # one dim: nothing is at right angles
    corner([[30.0], [30.0]]),
    corner([[1.0], [2.0]]),
    corner([[1.0], [2.0]], rule=HALF),
    corner([[1.0, 0.0], [2.0, 1.0]], rule=HALF),
    *(corner([[1.0, 0.5], [2.0, 1.0], [3.0, 4.0]], position=i) for i in range(3)),
    corner([[27.0, 1.0], [27.0, 0.0]]),
    corner([[30.0, 1.0], [30.0, 0.0]]),
    corner([[-800.0, 1.0], [1.0, 0.0]], mask=OTHERS),  # scores far below 0, and none of its own
    corner([[-800.0], [1.0]], mask=OTHERS),
    corner([[-700.0, 1.0], [-720.0, 1.0], [1.0, 0.0]], mask=OTHERS),
    corner([[-600.0, 1.0], [-800.0, 1.0], [1.0, 0.0]], mask=OTHERS),
    corner([[-680.0, 1.0], [-690.0, 1.0], [1.0, 0.0]], mask=OTHERS),
    corner([[-1.0, 1.0], [-709.0, 1.0], [1.0, 0.0]], mask=OTHERS),
    corner([[-30.0, 1.0], [-760.0, 1.0], [1.0, 0.0]], mask=OTHERS),
    corner([[1e-300, 0.0], [1e-300, 1e-300]]),  # products that underflow
    corner([[1e-300]]),
    corner([[1e-300, 0.0], [0.0, 1e-300], [1e-300, 1e-300]], "aba"),
    corner([[1e-300, 0.0]] * 3, "aab"),
    corner([[1e150, 1e150], [1e150, -1e150]]),
    corner([[0.0]]),  # zero vectors
    corner([[0.0], [1.0]], position=0, mask=("full",)),
    corner([[1.0], [0.0]], rule=HALF),
    corner([[1.0], [-1.0], [0.0]]),  # an output of 0 from what is not
    corner([[0.1, 0.3], [0.3, -0.1]]),  # at right angles up to rounding
    corner([[1.0], [2.0], [3.0]], rule=HIDE),  # −∞ by a rule
    corner([[1.0], [2.0], [3.0]], rule=1),
    corner([[1.0], [2.0], [3.0]], "aab", rule=1),
    corner([[1.0], [2.0], [3.0]], rule=2),
    corner([[1.0], [2.0]], rule=HIDE),
    corner([[1.0], [2.0]], mask=("prefix", 0), page="matrix"),
    corner([[1.0], [2.0], [0.0]], mask=OTHERS, page="matrix"),
    corner([[1.0], [0.0], [0.0], [-2.0]], mask=OTHERS),
    corner([[1.0], [2.0], [3.0]], mask=("and", ("full",), ("prefix", 1))),
    corner([[40.0, 0.0], [20.0, 0.0], [1.0, 1.0], [40.0, 0.0]], "aabc"),  # weights that underflow
    corner([[1.0, 0.0], [40.0, 0.0]]),
    *(corner([[0.5, 0.5], [0.5, -0.5]], position=0, page=page) for page in ("order", "shapes", "cost", "layer")),
    *(corner([[1.0]], page=page) for page in ("order", "shapes", "cost", "layer", "matrix")),
    corner([[1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0], [1.0, 0.0]], page="order"),
    corner([[-1.0, 0.0], [1.0, 0.0]], page="order"),
    corner([[1.2e154], [1.2e154]], page="order"),
    corner([[1.0, 2.0, 3.0, 4.0]], page="shapes"),
    corner([[0.6, 0.8], [-0.6, -0.8], [0.6, 0.8]], page="order"),
    *(corner([[j % 7 - 3.0, 1.0] for j in range(n)], page="layer") for n in (32, 33, 210)),
    *(corner([[j % 7 - 3.0, 1.0] for j in range(n)], position=n // 2) for n in (32, 33, 200, 201, 300)),
    corner([[1.0, 0.0]] * 40),  # many of the same weight
    *(corner(x, position=at, page="positions") for x in (
        [[1.0], [2.0], [3.0]], [[1.0, 2.0, 0.5], [2.0, 1.0, 1.0], [3.0, 0.1, 0.7]], [[0.3, 0.7]] * 3,
        np.random.default_rng(1).normal(size=(60, 8)).tolist(),
    ) for at in (0, 1, -1)),
    *(corner(x, position=at, page="quiz") for x in (
        [[1.0]], [[0.0, 0.0]], [[40.0, 1.0], [1.0, 0.0]], [[26.65, 1.0], [26.65, 1.0]], [[1.0, 0.0], [0.0, 1.0]],
    ) for at in (0, -1)),
    on_model("The king went to the sea, and the king went to the", "-1", (2, 1)),
    on_model("She was very happy to see her mother. " * 12, "40", (1, 1)),
    on_model("море 7 zxq", "0", (0, 0)),
]  # fmt: skip
Q, K, V = (
    [[1.0, 2.0], [2.0, 0.5], [0.5, 1.0]],
    [[1.0, 0.5], [-2.0, 1.0], [0.3, 2.0]],
    [[3.0, 1.0], [0.0, 9.0], [1.0, 2.0]],
)
CORNERS += [
    corner(*given[:1], position=at, mask=mask, page="what if", what=what, **given[1])
    for what in WHAT_IF
    for given in (
        (Q, {}), (Q, {"keys": K, "values": V}), (Q, {"keys": K}), ([[0.0, 0.0], [1.0, 2.0], [1.0, 1.0]], {}),
        ([[1.0, 0.0], [-1.0, 0.5], [1.0, 1.0]], {}), ([[-1.0, 0.0], [-1.0, 0.5], [1.0, 0.0]], {}),
        ([[0.6, 0.0], [0.0, 1.0], [0.8, 0.6]], {"keys": [[1.0, 0.0]] * 3, "values": V}), ([[1.0]], {}),
        ([[3.0, 0.0], [-1.0, 0.0], [-1.0, 0.5], [1.0, 0.0]], {}), ([[5.0, 0.0], [-5.0, 0.0]], {}),
        ([[2.0], [1.0]], {"keys": [[1.0], [3.0]], "values": [[1.0], [2.0]]}),
    )
    for at, mask in ((-1, CAUSAL), (0, CAUSAL), (0, ("full",)), (-1, ("not", ("window", 1, 0))))
    if not (mask[0] == "not" and len(given[0]) < 3)
]  # fmt: skip
TEXTS = [
    "doomscrolling unfriended blorptax: 7, the café dont 😀 (thus) jumped",
    "friend unfriended friendly", "doomscroll blorp the river", "dont jumped 7, zero", "the the", "море", "river",
]  # fmt: skip


def all_corners(folder: Path) -> Iterator[Callable[[int], Case]]:
    """Vectors, and texts by the words that ship and by a few of a file that is put into `folder`."""
    yield from CORNERS
    yield numbered(folder)
    yield from (text(words, path) for words in TEXTS for path in (None, few_words(folder)))
