"""Attention as torch operations: the definition, which torch can differentiate again and again.

Decides how a rule's expressions are evaluated on tensors. What the kernels give, this gives too, slowly and with a
table of scores: forward-mode and higher derivatives come from here.
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

NARROW = (torch.float16, torch.bfloat16)
WORD = (1 << 32) - 1


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
    if query.dtype in NARROW:
        query, key, value = query.float(), key.float(), value.float()
    heads = query.shape[-3] if query.dim() > 2 else 1
    key, value = repeated(key, heads), repeated(value, heads)
    scores = (query * scale) @ key.transpose(-1, -2)
    lead = torch.broadcast_shapes(scores.shape[:-2], value.shape[:-2])
    scores = scores.expand(*lead, *scores.shape[-2:])
    weights, lse = softmax_with_sink(
        ruled(scores, tables, rule, score_places(lead, scores.shape[-2], scores.device)), sink
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
    """The weights (..., queries, keys), in the computation's dtype; of some `heads`, by number, and some `rows`.

    Heads count over all leading axes, and may stand in any shape, which the result has in their place.
    """
    if query.dtype in NARROW:
        query, key = query.float(), key.float()
    each = query.shape[-3] if query.dim() > 2 else 1
    key = repeated(key, each)
    lead, queries = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.shape[-2]
    at = score_places(lead, queries, query.device)
    if heads is not None:
        query, key = (x.expand(*lead, *x.shape[-2:]).flatten(0, -3)[heads] for x in (query, key))
        sink = None if sink is None else sink.expand(lead).flatten()[heads]
        at |= {"batch": (heads // each)[..., None, None], "head": (heads % each)[..., None, None]}
    if rows is not None:
        query, at["row"] = query[..., rows, :], rows[:, None]
    scores = ruled((query * scale) @ key.transpose(-1, -2), tables, rule, at, queries)
    return softmax_with_sink(scores, sink)[0]


def repeated(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Key or value heads once for each query head that shares them."""
    own = x.shape[-3] if x.dim() > 2 else 1
    return x.repeat_interleave(heads // own, -3) if 1 < own < heads else x


def score_places(lead: Sequence[int], queries: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Where each score stands: its batch, head and row."""
    heads = lead[-1] if lead else 1
    batch = torch.arange(math.prod(lead) // max(1, heads), device=device).reshape(*lead[:-1], 1, 1, 1)
    head, row = torch.arange(heads, device=device).reshape(heads, 1, 1), torch.arange(queries, device=device)[:, None]
    if not lead:
        batch, head = batch.reshape(1, 1), head.reshape(1, 1)
    return {"batch": batch, "head": head, "row": row}


def softmax_with_sink(scores: torch.Tensor, sink: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and LSE; both know of queries that see nothing."""
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


def ruled(
    scores: torch.Tensor,
    tables: Sequence[torch.Tensor],
    rule: Rule,
    at: dict[str, torch.Tensor],
    queries: int | None = None,
) -> torch.Tensor:
    """Scores after the rule; hidden ones are −∞. Some rows of `queries`, or all."""
    *_, rows, keys = scores.shape
    device = scores.device
    tables = [x.to(scores.dtype) if x.dtype in NARROW else x for x in tables]
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
        scores = torch.broadcast_to(evaluate(rule.score, leaves, tables), scores.shape)
    if rule.seen is not None:
        seen = seen & evaluate(rule.seen, leaves, tables)
    return torch.where(seen, scores, -math.inf)


def evaluate(e: Expression, leaves: dict[str, torch.Tensor], tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """An expression's value on tensors, floats in the scores' dtype."""
    types = {"float": leaves["score"].dtype, "int": torch.int64, "bool": torch.bool}
    known: dict[Expression, torch.Tensor] = {}
    for part in parts(e):
        args = [known[a] for a in part.args]
        if part.op in LEAVES:
            known[part] = leaves[part.op]
        elif part.op == "constant":
            known[part] = torch.tensor(part.value, dtype=types[part.kind], device=leaves["key"].device)
        elif part.op == "load":
            known[part] = load_element(tables[part.array or 0], args).to(types[part.kind])
        elif part.op == "float":
            known[part] = FORMULAS["float"](args[0], types["float"])
        else:
            known[part] = FORMULAS[part.op](*args)
    return known[e]


def load_element(table: torch.Tensor, index: list[torch.Tensor]) -> torch.Tensor:
    """Elements of a table; an index below 0 counts from the end, and none leaves the table."""
    score_places = [torch.where(x < 0, x + n, x).clamp(0, n - 1) for x, n in zip(index, table.shape, strict=True)]
    return table[tuple(score_places)]


def floor_quotient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Python's //; of whole numbers it is 0 where b is 0."""
    if a.is_floating_point():
        return torch.div(a, b, rounding_mode="floor")
    return torch.where(b == 0, 0, a // torch.where(b == 0, 1, b))


def modulo(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Python's %; of whole numbers it is 0 where b is 0."""
    return torch.remainder(a, b) if a.is_floating_point() else torch.where(b == 0, 0, a % torch.where(b == 0, 1, b))


def whole(a: torch.Tensor) -> torch.Tensor:
    """Truth as 0 and 1, a float cut to a whole number; 0 for what 64 bits do not hold."""
    return (torch.where(a.abs() < 2.0**63, a, 0) if a.is_floating_point() else a).to(torch.int64)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x))."""
    return torch.logaddexp(x, torch.zeros_like(x))


def cube_root(x: torch.Tensor) -> torch.Tensor:
    """The cube root, of the sign of x."""
    return torch.copysign(x.abs().pow(1 / 3), x)


class TorchWords:
    """Threefry's words of 32 bits in torch's 64."""

    @staticmethod
    def word(number: int) -> int:
        """A constant."""
        return number

    @staticmethod
    def add(a: Any, b: Any) -> Any:
        """a + b."""
        return (a + b) & WORD

    @staticmethod
    def xor(a: Any, b: Any) -> Any:
        """Bits that differ."""
        return a ^ b

    @staticmethod
    def rotate(a: Any, by: int) -> Any:
        """Bits moved to the left."""
        return (a << by | a >> 32 - by) & WORD


def torch_drawn(key0: torch.Tensor, key1: torch.Tensor, counter0: torch.Tensor, counter1: torch.Tensor) -> torch.Tensor:
    """A number below 2³⁰ from key and counter."""
    k0, k1, c0, c1 = (x & WORD for x in (key0, key1, counter0, counter1))
    bits: torch.Tensor = threefry(TorchWords(), (k0, k1), (c0, c1))[0] >> 32 - BITS
    return bits


FORMULAS: dict[str, Callable[..., Any]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "floordiv": floor_quotient, "mod": modulo,
    "fmod": torch.fmod, "neg": torch.neg, "abs": torch.abs, "min": torch.minimum, "max": torch.maximum,
    "copysign": torch.copysign, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc,
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne,
    "and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor, "not": torch.logical_not,
    "where": torch.where, "int": whole, "float": torch.Tensor.to, "sqrt": torch.sqrt, "cbrt": cube_root,
    "exp": torch.exp, "exp2": torch.exp2, "expm1": torch.expm1, "log": torch.log, "log2": torch.log2,
    "log10": torch.log10, "log1p": torch.log1p, "pow": torch.pow, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan,
    "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "atan2": torch.atan2, "sinh": torch.sinh,
    "cosh": torch.cosh, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": softplus, "erf": torch.erf,
    "erfc": torch.erfc, "threefry": torch_drawn,
}  # fmt: skip
