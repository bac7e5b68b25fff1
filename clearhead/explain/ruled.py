"""The sections on score rules and the mask, which change the scores before softmax.

Responsible for the words and formulas of rules. Not for the numbers, which are in `steps`.
"""

import inspect

from clearhead.explain.blocks import Block, Column, Formula, Heading, Prose
from clearhead.explain.rows import RowChoice, items_table, name_cells
from clearhead.explain.steps import Explanation
from clearhead.rules.named import name_of_mask, name_of_score
from clearhead.rules.scores import Alibi, Function, Scale, Score, Softcap
from clearhead.wording import count, listed, number, quoted, sub


def rule_formula(rule: Score) -> Formula:
    """A rule as a formula in a score s, a query i and a key j."""
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
    name = type(rule).__name__.lower()
    return Formula(f"s ← {name}(s)", rf"s \leftarrow \mathrm{{{name}}}(s)")


def rules_step(e: Explanation, shown: RowChoice, example: int) -> list[Block]:
    """The sections on the rules, and a table of every score after each."""
    if not e.rules:
        return []
    page = list[Block]()
    for at, rule in enumerate(e.rules):
        before, after = e.stages[at][example], e.stages[at + 1][example]
        place = f"Rule {at + 1} of {len(e.rules)}: " if len(e.rules) > 1 else "Rule: "
        page.append(Heading(f"{place}{name_of_score(rule)}", rule_formula(rule)))
        page.append(
            Prose(f"For {quoted(e.tokens[example])}, item {example}: {number(before)} becomes {number(after)}.")
        )
    stages = [Column(f"after {name_of_score(rule)}") for rule in e.rules]
    columns = (Column("j"), Column("item", "left"), Column("score"), *stages)
    rows = [[*name_cells(e, j), *(number(stage[j]) for stage in e.stages)] for j in shown.rows]
    return [*page, items_table(e, shown, columns, rows, [""] * len(e.stages))]


def mask_step(e: Explanation) -> list[Block]:
    """The section on the mask: which items it hides."""
    if not e.masked:
        return []
    i, n, mask = e.position, len(e.tokens), name_of_mask(e.mask)
    hidden = [j for j in range(n) if not e.seen[j]]
    formula = Formula(f"s{sub('', i)}ⱼ = −∞  where {mask} hides j", rf"s_{{{i},j}} = -\infty \ \mbox{{where hidden}}")
    sees = f"{len(e.items):,} of {count(n, 'item')}" if e.items else f"none of {count(n, 'item')}"
    text = f"{quoted(e.token)}, item {i}, sees {sees}, by the mask {mask}."
    if hidden:
        who = listed([f"{quoted(e.tokens[j])} (item {j})" for j in hidden])
        text += f" Hidden, whatever the score: {who}. exp(−∞) = 0 is no weight at all."
    return [Heading("Mask", formula), Prose(text)]
