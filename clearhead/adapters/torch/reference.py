"""Attention in torch operations, which torch can differentiate any number of times.

Decides how a rule's expressions are evaluated on tensors. It computes what the kernels compute, but slowly and with a
full table of scores; forward-mode and higher derivatives use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from clearhead.adapters.torch.rule_names import Rule
from clearhead.rules.expression import LEAVES, Expression, parts
from clearhead.rules.fused import fuse
from clearhead.rules.threefry import BITS, threefry

HALF_DTYPES = (torch.float16, torch.bfloat16)
WORD_MASK = (1 << 32) - 1


def attention_formula(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    rule: Rule,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and LSE."""
    if query.dtype in HALF_DTYPES:
        query, key, value = query.float(), key.float(), value.float()
    heads = query.shape[-3] if query.dim() > 2 else 1
    key, value = repeat_shared_heads(key, heads), repeat_shared_heads(value, heads)
    scores = (query * scale) @ key.transpose(-1, -2)
    lead = torch.broadcast_shapes(scores.shape[:-2], value.shape[:-2])
    scores = scores.expand(*lead, *scores.shape[-2:])
    weights, lse = softmax_with_sink(
        apply_rule(scores, tables, rule, score_places(lead, scores.shape[-2], scores.device)), sink
    )
    return weights @ value, lse


def weights_formula(
    query: torch.Tensor,
    key: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
    rule: Rule,
    scale: float,
    heads: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weights (..., queries, keys) in the computation's dtype, optionally only of some `heads` and `rows`.

    `heads` has head numbers, counted over all leading axes, in any shape; that shape replaces the leading axes.
    """
    if query.dtype in HALF_DTYPES:
        query, key = query.float(), key.float()
    each = query.shape[-3] if query.dim() > 2 else 1
    key = repeat_shared_heads(key, each)
    lead, queries = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.shape[-2]
    at = score_places(lead, queries, query.device)
    if heads is not None:
        query, key = (x.expand(*lead, *x.shape[-2:]).flatten(0, -3)[heads] for x in (query, key))
        sink = None if sink is None else sink.expand(lead).flatten()[heads]
        at |= {"batch": (heads // each)[..., None, None], "head": (heads % each)[..., None, None]}
    if rows is not None:
        query, at["row"] = query[..., rows, :], rows[:, None]
    scores = apply_rule((query * scale) @ key.transpose(-1, -2), tables, rule, at, queries)
    return softmax_with_sink(scores, sink)[0]


def repeat_shared_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeat key or value heads for the query heads that share them."""
    own = x.shape[-3] if x.dim() > 2 else 1
    return x.repeat_interleave(heads // own, -3) if 1 < own < heads else x


def score_places(lead: Sequence[int], queries: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The batch, head and row of each score."""
    heads = lead[-1] if lead else 1
    batch = torch.arange(math.prod(lead) // max(1, heads), device=device).reshape(*lead[:-1], 1, 1, 1)
    head, row = torch.arange(heads, device=device).reshape(heads, 1, 1), torch.arange(queries, device=device)[:, None]
    if not lead:
        batch, head = batch.reshape(1, 1), head.reshape(1, 1)
    return {"batch": batch, "head": head, "row": row}


def softmax_with_sink(scores: torch.Tensor, sink: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and LSE; 0 and −∞ for queries that see nothing."""
    *lead, queries, keys = scores.shape
    sinks = scores.new_zeros(*lead, queries, 0)
    if sink is not None:
        sinks = sink.to(scores.dtype).expand(lead)[..., None, None].expand(*lead, queries, 1)
    every = torch.cat([scores, sinks], -1)
    alive = (every > -math.inf).any(-1, keepdim=True)
    every = torch.where(alive, every, 0)
    total = torch.logsumexp(every, -1, keepdim=True) if every.shape[-1] else every.sum(-1, keepdim=True)
    weights = torch.exp(every[..., :keys] - total) * alive
    return weights, torch.where(alive, total, -math.inf)[..., 0]


def apply_rule(
    scores: torch.Tensor,
    tables: Sequence[torch.Tensor],
    rule: Rule,
    at: dict[str, torch.Tensor],
    queries: int | None = None,
) -> torch.Tensor:
    """Apply a rule to scores, hidden ones becoming −∞; the scores may be only some rows of `queries`."""
    *_, rows, keys = scores.shape
    device = scores.device
    tables = [x.to(scores.dtype) if x.dtype in HALF_DTYPES else x for x in tables]
    queries = rows if queries is None else queries
    key = torch.arange(keys, device=device)
    fused = fuse(rule.bare_masks, (), queries, keys)
    place = torch.zeros(3, queries, dtype=torch.int64, device=device)
    for span in fused.spans:
        own = slice(span.first_query, span.first_query + span.queries)
        place[:, own] = torch.tensor([[span.offset], [span.first_key], [span.first_key + span.keys]], device=device)
    shift, start, stop = place[:, at["row"]]
    position = at["row"] + shift
    seen = (key >= start) & (key < stop)
    if fused.low is not None:
        seen = seen & (key >= position + fused.low)
    if fused.high is not None:
        seen = seen & (key <= position + fused.high)
    leaves = {"score": scores, **at, "query": position, "key": key}
    if rule.score is not None:
        scores = torch.broadcast_to(evaluate_on_tensors(rule.score, leaves, tables), scores.shape)
    if rule.seen is not None:
        seen = seen & evaluate_on_tensors(rule.seen, leaves, tables)
    return torch.where(seen, scores, -math.inf)


def evaluate_on_tensors(e: Expression, leaves: dict[str, torch.Tensor], tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Evaluate an expression on tensors, with floats in the scores' dtype."""
    types = {"float": leaves["score"].dtype, "int": torch.int64, "bool": torch.bool}
    known: dict[Expression, torch.Tensor] = {}
    for part in parts(e):
        args = [known[a] for a in part.args]
        if part.op in LEAVES:
            known[part] = leaves[part.op]
        elif part.op == "constant":
            known[part] = torch.tensor(part.value, dtype=types[part.kind], device=leaves["key"].device)
        elif part.op == "load":
            known[part] = index_table(tables[part.array or 0], args).to(types[part.kind])
        elif part.op == "float":
            known[part] = FORMULAS["float"](args[0], types["float"])
        else:
            known[part] = FORMULAS[part.op](*args)
    return known[e]


def index_table(table: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Elements of a table; negative indices count from the end, and all are clamped to the table."""
    clamped = [torch.where(x < 0, x + n, x).clamp(0, n - 1) for x, n in zip(index, table.shape, strict=True)]
    return table[tuple(clamped)]


def floor_quotient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Python's //; integers divided by 0 give 0."""
    if a.is_floating_point():
        return torch.div(a, b, rounding_mode="floor")
    return torch.where(b == 0, 0, a // torch.where(b == 0, 1, b))


def floor_modulo(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Python's %; integers modulo 0 give 0."""
    return torch.remainder(a, b) if a.is_floating_point() else torch.where(b == 0, 0, a % torch.where(b == 0, 1, b))


def tensor_to_int64(a: torch.Tensor) -> torch.Tensor:
    """Booleans as 0 and 1, floats truncated; 0 for a float that 64 bits cannot hold."""
    return (torch.where(a.abs() < 2.0**63, a, 0) if a.is_floating_point() else a).to(torch.int64)


def tensor_softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x))."""
    return torch.logaddexp(x, torch.zeros_like(x))


def cube_root(x: torch.Tensor) -> torch.Tensor:
    """The cube root, with the sign of x."""
    return torch.copysign(x.abs().pow(1 / 3), x)


class TorchWords:
    """Threefry's 32-bit words in torch's int64."""

    @staticmethod
    def word(number: int) -> int:
        """A constant."""
        return number

    @staticmethod
    def add(a: Any, b: Any) -> Any:
        """a + b."""
        return (a + b) & WORD_MASK

    @staticmethod
    def xor(a: Any, b: Any) -> Any:
        """a ^ b."""
        return a ^ b

    @staticmethod
    def rotate(a: Any, by: int) -> Any:
        """Rotate bits to the left."""
        return (a << by | a >> 32 - by) & WORD_MASK


def tensor_threefry(
    key0: torch.Tensor, key1: torch.Tensor, counter0: torch.Tensor, counter1: torch.Tensor
) -> torch.Tensor:
    """A random number below 2³⁰ from key and counter."""
    k0, k1, c0, c1 = (x & WORD_MASK for x in (key0, key1, counter0, counter1))
    bits: torch.Tensor = threefry(TorchWords(), (k0, k1), (c0, c1))[0] >> 32 - BITS
    return bits


FORMULAS: dict[str, Callable[..., Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "floordiv": floor_quotient,
    "mod": floor_modulo, "fmod": torch.fmod, "neg": torch.neg, "abs": torch.abs, "min": torch.minimum,
    "max": torch.maximum, "copysign": torch.copysign,
    "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc,
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne,
    "and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor, "not": torch.logical_not,
    "where": torch.where, "int": tensor_to_int64, "float": torch.Tensor.to, "sqrt": torch.sqrt, "cbrt": cube_root,
    "exp": torch.exp, "exp2": torch.exp2, "expm1": torch.expm1, "log": torch.log, "log2": torch.log2,
    "log10": torch.log10, "log1p": torch.log1p, "pow": torch.pow, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan,
    "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "atan2": torch.atan2, "sinh": torch.sinh,
    "cosh": torch.cosh, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": tensor_softplus, "erf": torch.erf,
    "erfc": torch.erfc, "threefry": tensor_threefry,
}  # fmt: skip
