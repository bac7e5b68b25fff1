"""Dropout of attention weights as a mask: which pairs are kept is a formula over batch, head, query and key.

Decides how pairs are drawn: keep[a[batch, head, query] + b[key]], three small random tables from torch's generator, so
that nothing depends on threads or tiles and no table of all pairs exists. With o and l the output and LSE over the
kept pairs and L the LSE over all, dropped and rescaled weights give o · exp(l − L) / (1 − p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch

from clearhead.adapters.torch_operator import attend
from clearhead.adapters.torch_rule import Rule, registered, rule_named
from clearhead.rules.expression import Expression

HALF = 1 << 15  # what a and b are below


def attend_dropped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    rule: Rule,
    scale: float,
    p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output with each weight dropped with probability p, the others divided by 1 − p; and the LSE of all scores."""
    _, lse = attend(query, key, value, tables, sink, rule, scale)
    *lead, queries = lse.shape
    heads = lead[-1] if lead else 1
    a = torch.randint(HALF, (math.prod(lead[:-1]), heads, queries), dtype=torch.int32, device=query.device)
    b = torch.randint(HALF, (key.shape[-2],), dtype=torch.int32, device=query.device)
    keep = torch.rand(2 * HALF, device=query.device) >= p
    kept = rule_named(thinned(rule.name, len(tables)))
    output, kept_lse = attend(query, key, value, (*tables, a, b, keep), sink, kept, scale)
    share = torch.exp(torch.where(kept_lse == -math.inf, -math.inf, kept_lse - lse)) / max(1 - p, 1e-30)
    return output * share[..., None].to(output.dtype), lse


@cache
def thinned(name: str, at: int) -> str:
    """The rule that also hides what is dropped; its three tables stand at a number."""
    rule = rule_named(name)
    places = (Expression("batch", "int"), Expression("head", "int"), Expression("row", "int"))
    a = Expression("load", "int", places, array=at)
    b = Expression("load", "int", (Expression("key", "int"),), array=at + 1)
    keep = Expression("load", "bool", (Expression("add", "int", (a, b)),), array=at + 2)
    seen = keep if rule.seen is None else Expression("and", "bool", (rule.seen, keep))
    return registered(Rule(rule.masks, seen, rule.score)).name
