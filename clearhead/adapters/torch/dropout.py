"""Dropout of attention weights as a mask: a formula over batch, head, query and key decides which pairs are kept.

Pairs are drawn by Threefry, a stateless generator, whose key is two numbers from torch's generator and whose counter is
the pair's position. So the result does not depend on threads or tiles, and there is no table of pairs. With o and l the
output and LSE over the kept pairs and L the LSE over all, the rescaled weights give o · exp(l − L) / (1 − p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import MOST_RULES, Rule, rule_named
from clearhead.rules.expression import Expression
from clearhead.rules.threefry import BITS


def attend_dropped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
    p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output with each weight dropped with probability p and the others divided by 1 − p, and the LSE of all scores."""
    _, lse = attend(query, key, value, tables, sink, rule, scale)
    *lead, queries = lse.shape
    heads = lead[-1] if lead else 1
    key_words = torch.randint(1 << 31, (2,), device=query.device)
    table = torch.cat([key_words, torch.tensor([round(p * (1 << BITS)), heads, queries], device=query.device)])
    output, kept_lse = attend(query, key, value, (*tables, table), sink, dropout_rule(rule, len(tables)), scale)
    share = torch.exp(torch.where(kept_lse == -math.inf, -math.inf, kept_lse - lse)) / max(1 - p, 1e-30)
    return output * share[..., None].to(output.dtype), lse


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def dropout_rule(name: str, at: int) -> str:
    """The rule that also hides dropped pairs; its table of key, threshold and sizes has number `at`."""
    return write_dropout_rule(name, at)


@lru_cache(MOST_RULES)
def write_dropout_rule(name: str, at: int) -> str:
    """`dropout_rule` outside the graph, since torch.compile cannot trace it."""
    rule = rule_named(name)

    def number(n: int) -> Expression:
        return Expression("load", "int", (Expression("constant", "int", value=n),), array=at)

    batch, head, row, key = (Expression(leaf, "int") for leaf in ("batch", "head", "row", "key"))
    key0, key1, threshold, heads, queries = (number(n) for n in range(5))
    line = integer_operation(
        "add",
        integer_operation("mul", integer_operation("add", integer_operation("mul", batch, heads), head), queries),
        row,
    )
    keep = Expression("ge", "bool", (Expression("threefry", "int", (key0, key1, line, key)), threshold))
    seen = keep if rule.seen is None else Expression("and", "bool", (rule.seen, keep))
    return Rule(rule.masks, seen, rule.score).name


def integer_operation(op: str, a: Expression, b: Expression) -> Expression:
    """An integer operation."""
    return Expression(op, "int", (a, b))
