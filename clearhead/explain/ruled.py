"""What rules did to the scores on their way to softmax, as blocks of a page: each rule in its turn, then the mask.

Decides the words and formulas of rules; the numbers come from steps.
"""

import inspect

import numpy as np

from clearhead.explain.blocks import Block, Column, Formula, Heading, Prose, Table
from clearhead.explain.steps import Explanation
from clearhead.explain.wording import label, listed, number, quoted, sub
from clearhead.rules.scores import Alibi, Function, Scale, Score, Softcap


def formula_of(rule: Score) -> Formula:
    """A rule as a formula over a score s, a query i and a key j."""
    match rule:
        case Scale(factor):
            return Formula(f"s ← {factor:g} · s", rf"s \leftarrow {factor:g}\, s")
        case Softcap(cap):
            return Formula(f"s ← {cap:g} · tanh(s ÷ {cap:g})", rf"s \leftarrow {cap:g} \tanh(s / {cap:g})")
        case Alibi():
            slope = f"{float(rule.slopes[0]):.4g}"
            return Formula(f"s ← s − {slope} · |i − j|", rf"s \leftarrow s - {slope}\, |i - j|")
        case Function(function):
            name = getattr(function, "__name__", "rule")
            names = ", ".join(inspect.signature(function).parameters)
            written = name.replace("_", r"\_")
            return Formula(
                f"s ← {name}({names})", rf"s \leftarrow \mathrm{{{written}}}({names.replace('_', chr(92) + '_')})"
            )
    return Formula(f"s ← {rule!r} of s", rf"s \leftarrow \mathrm{{{type(rule).__name__.lower()}}}(s)")


def rules_step(e: Explanation, rows: tuple[int, ...], example: int) -> list[Block]:
    """Every score after every rule."""
    if not e.rules:
        return []
    i, page = e.position, list[Block]()
    for at, rule in enumerate(e.rules):
        before, after = (float(stage[i, example]) for stage in e.stages[at : at + 2])
        place = f"Rule {at + 1} of {len(e.rules)}: " if len(e.rules) > 1 else "Rule: "
        page.append(Heading(f"{place}{rule!r}", formula_of(rule)))
        page.append(
            Prose(f"For {quoted(e.tokens[example])}, item {example}: {number(before)} becomes {number(after)}.")
        )
    columns = (Column("j"), Column("item", "left"), Column("score"), *(Column(f"after {rule!r}") for rule in e.rules))
    cells = tuple(
        (str(j), label(e.tokens[j]) + (" (itself)" if j == i else ""), *(number(float(s[i, j])) for s in e.stages))
        for j in rows
    )
    return [*page, Table(columns, cells)]


def mask_step(e: Explanation) -> list[Block]:
    """What the mask hides of the items, and why."""
    if not e.masked:
        return []
    i, n = e.position, len(e.tokens)
    hidden = [j for j in range(n) if not e.seen[i, j]]
    formula = Formula(
        f"s{sub('', i)}ⱼ = −∞  where {e.mask!r} hides j", rf"s_{{{i},j}} = -\infty \ \mbox{{where hidden}}"
    )
    count = f"{len(e.items)} of {n} items" if e.items else "none of the items"
    text = f"Of {quoted(e.token)}, item {i}, {e.mask!r} lets {count} be seen."
    if hidden:
        who = listed([f"{quoted(e.tokens[j])} ({j})" for j in hidden])
        text += f" Hidden, whatever their score: {who}. exp(−∞) = 0, so they have no weight at all."
    return [Heading("Mask", formula), Prose(text)]


def nothing_seen(e: Explanation) -> list[Block]:
    """A query without keys."""
    text = f"{quoted(e.token)} sees nothing: there are no weights, and by definition its output is 0."
    return [Prose(text, strong=True)]


def unseen_score(e: Explanation) -> list[Block]:
    """Seen items whose rules made the score −∞."""
    lost = [j for j in e.items if np.isneginf(e.score_matrix[e.position, j])]
    if not lost:
        return []
    who = listed([quoted(e.tokens[j]) for j in lost])
    return [Prose(f"A rule made the score of {who} −∞: exp(−∞) = 0, no weight at all.", strong=True)]
