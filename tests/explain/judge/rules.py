"""What masks and score rules mean, written once more: for the judge, by nobody else's code.

A mask is a tuple: ("causal",), ("full",), ("window", left, right), ("dilated", step), ("prefix", n),
("documents", lengths), ("not", mask), ("and", mask, mask), ("or", mask, mask).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CAUSAL = ("causal",)


def sees(mask: tuple, i: int, n: int) -> np.ndarray:
    """Which of n items item i sees, (n,) bool."""
    j = np.arange(n)
    name, *given = mask
    if name == "causal":
        return j <= i
    if name == "full":
        return np.ones(n, bool)
    if name == "window":
        left, right = given
        return (i - left <= j) & (j <= i + right)
    if name == "dilated":
        return np.isin(j, np.arange(i, -1, -given[0]))
    if name == "prefix":
        return j < given[0]
    if name == "documents":
        ends = np.cumsum(given[0])
        document = np.searchsorted(ends, j, side="right")
        return document == document[i]
    if name == "not":
        return ~sees(given[0], i, n)
    one, other = (sees(part, i, n) for part in given)
    return one & other if name == "and" else one | other


def typed(mask: tuple) -> str:
    """A mask as the command line takes it; there are no brackets, so an `or` stands in no other mask."""
    name, *given = mask
    if name in ("causal", "full"):
        return name
    if name == "window":
        left, right = given
        return f"window:{left},{right}" if right else f"window:{left}"
    if name == "dilated":
        return f"dilated:{given[0]}"
    if name == "prefix":
        return f"prefix:{given[0]}"
    if name == "documents":
        return "documents:" + ",".join(map(str, given[0]))
    if name == "not":
        return "~" + typed(given[0])
    return f"{typed(given[0])} {'&' if name == 'and' else '|'} {typed(given[1])}"


@dataclass(frozen=True, eq=False)
class Rule:
    """A score rule: what it makes of scores, how it is called, its formula for the terminal and for LaTeX."""

    name: str
    after: Callable[[np.ndarray, int, np.ndarray], np.ndarray]  # (scores, i, j) -> scores
    plain: str
    latex: str


def softcap(cap: float) -> Rule:
    return Rule(
        f"softcap:{short(cap)}",
        lambda s, i, j: cap * np.tanh(s / cap),
        f"s ← {cap:g} · tanh(s ÷ {cap:g})",
        rf"s \leftarrow {cap:g} \tanh(s / {cap:g})",
    )


def scale(factor: float) -> Rule:
    return Rule(
        f"scale:{short(factor)}",
        lambda s, i, j: s * factor,
        f"s ← {factor:g} · s",
        rf"s \leftarrow {factor:g}\, s",
    )


def alibi() -> Rule:
    """Of one head: its slope is 2⁻⁸."""
    slope = 2.0**-8
    return Rule(
        "alibi",
        lambda s, i, j: s - slope * abs(i - j),
        f"s ← s − {slope:.4g} · |i − j|",
        rf"s \leftarrow s - {slope:.4g}\, |i - j|",
    )


def of_function(name: str, after: Callable[[np.ndarray, int, np.ndarray], np.ndarray]) -> Rule:
    """A Python function of (score, batch, head, query, key)."""
    escaped = name.replace("_", r"\_")
    return Rule(
        name,
        after,
        f"s ← {name}(score, batch, head, query, key)",
        rf"s \leftarrow \mathrm{{{escaped}}}(score, batch, head, query, key)",
    )


def short(value: float) -> str:
    """A number without a .0 behind it."""
    return repr(value).removesuffix(".0")
