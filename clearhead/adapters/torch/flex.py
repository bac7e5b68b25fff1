"""torch's `flex_attention` without a compiler, with gradients on the CPU.

Responsible for turning score_mod, mask_mod and a BlockMask into a rule. They are traced in every call, since captured
variables may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from clearhead.adapters.torch.arguments import check_tensors, scale_or_default
from clearhead.adapters.torch.host import array_view, lead_of, table_of
from clearhead.adapters.torch.operator import attend
from clearhead.adapters.torch.rule_names import Rule, join_rule, split_rules
from clearhead.adapters.torch.trace import trace_torch_function
from clearhead.attention_weights.matrix import weights
from clearhead.engine.problem import check_rules
from clearhead.errors import InputError, ShapeError
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.mask_kinds import Mask

POSITIONS = ("batch", "head", "row", "key")


def flex_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Callable[..., Any] | None = None,
    block_mask: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: dict[str, Any] | None = None,
    *,
    return_aux: Any = None,
) -> Any:
    """Attention with the semantics of `torch.nn.attention.flex_attention.flex_attention`, with gradients.

    Shapes (batch, heads, n, dim), (batch, heads, m, dim), (batch, heads, m, value_dim); all float dtypes. `score_mod`
    takes (score, batch, head, q_idx, kv_idx); tensors that it captures have gradients. `block_mask` is torch's, or just
    a mask_mod of (batch, head, q_idx, kv_idx), which needs no table, or a clearhead mask. `return_lse` also returns the
    natural logarithm of each query's Σ exp(score); `return_aux`, torch's AuxRequest, an AuxOutput of that and of each
    query's largest score. `kernel_options` are for compilers and have no effect. Raises TraceError for a function that
    cannot be traced, ShapeError and InputError.

    >>> x = torch.eye(2).reshape(1, 1, 2, 2)
    >>> flex_attention(x, x, x, block_mask=lambda b, h, q, k: q >= k, scale=1.0)[0, 0].round(decimals=3)
    tensor([[1.0000, 0.0000],
            [0.2690, 0.7310]])
    """
    check_tensors(query=query, key=key, value=value)
    if not query.dim() == key.dim() == value.dim() == 4:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ShapeError(f"flex_attention is for (batch, heads, length, dim), not {shapes}: add axes of one.")
    if query.shape[1] != key.shape[1] and not enable_gqa:
        raise ShapeError(f"{query.shape[1]} query heads and {key.shape[1]} key heads: pass enable_gqa=True to share.")
    if return_lse and return_aux is not None:
        raise InputError("return_lse and return_aux exclude each other: pass return_aux=AuxRequest(lse=True).")
    score = (
        None
        if score_mod is None
        else float_formula(trace_torch_function(score_mod, ("score", *POSITIONS), query.dtype))
    )
    if isinstance(block_mask, Mask):
        check_rules(block_mask, (), lead_of(query, key, value), query.shape[-2], key.shape[-2])
        mask_rule, arrays = split_rules(block_mask, ())
        seen = None if mask_rule.seen is None else Formula(mask_rule.seen, tuple[Any, ...](map(table_of, arrays)))
        rule, tables = join_rule(mask_rule.masks, seen, score)
    else:
        rule, tables = join_rule((), mask_formula(block_mask, query, key), score)
    factor = scale_or_default(query, scale)
    output, lse = attend(query, key, value, tables, None, rule.name, factor)
    if return_aux is None:
        return (output, lse) if return_lse else output
    from torch.nn.attention.flex_attention import AuxOutput  # older torch has neither this nor AuxRequest

    peaks = largest_scores(query, key, lse, tables, rule, factor) if return_aux.max_scores else None
    return output, AuxOutput(lse if return_aux.lse else None, peaks)


def largest_scores(
    query: torch.Tensor, key: torch.Tensor, lse: torch.Tensor, tables: Sequence[torch.Tensor], rule: Rule, scale: float
) -> torch.Tensor:
    """Each query's largest score, without a gradient as in torch: its weight is the largest, exp(score − LSE)."""
    lse = lse.detach()
    if not key.shape[-2]:
        return lse
    mask, score = rule.filled([array_view(x) for x in tables])
    seen = weights(array_view(query), array_view(key), mask=mask, score=score, scale=scale, lse=array_view(lse))
    return lse + torch.from_numpy(seen.summary("top", top=1).top_weights[..., 0]).log()


def mask_formula(block_mask: Any, query: torch.Tensor, key: torch.Tensor) -> Formula | None:
    """The formula of a mask: full blocks, and in partial_blocks ones the pairs that its function selects."""
    if block_mask is None:
        return None
    if not hasattr(block_mask, "mask_mod"):
        if not callable(block_mask):
            raise InputError(f"block_mask is {block_mask!r}: give a BlockMask, a function of positions, or a mask.")
        return bool_formula(trace_torch_function(block_mask, POSITIONS))
    queries, keys = block_mask.seq_lengths
    if query.shape[-2] > queries or key.shape[-2] > keys:
        raise ShapeError(
            f"block_mask is for {queries} queries and {keys} keys, not {query.shape[-2]} and {key.shape[-2]}: "
            "make one with create_block_mask for these lengths."
        )
    partial_blocks = block_table(block_mask.kv_num_blocks, block_mask.kv_indices)
    full_blocks = torch.zeros_like(partial_blocks)
    if block_mask.full_kv_num_blocks is not None:
        full_blocks = block_table(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
    rows, columns = block_mask.BLOCK_SIZE
    mod = block_mask.mask_mod

    def seen(batch: Any, head: Any, row: Any, key: Any) -> Any:
        index = (
            batch if full_blocks.shape[0] > 1 else 0,
            head if full_blocks.shape[1] > 1 else 0,
            row // rows,
            key // columns,
        )
        return full_blocks[index] | (partial_blocks[index] & mod(batch, head, row, key))

    return bool_formula(trace_torch_function(seen, POSITIONS))


def float_formula(formula: Formula) -> Formula:
    """A score's formula, converted to float."""
    e = formula.expression
    return formula if e.kind == "float" else Formula(Expression("float", "float", (e,)), formula.arrays)


def bool_formula(formula: Formula) -> Formula:
    """A mask's formula, converted to bool."""
    if formula.expression.kind == "bool":
        return formula
    zero = Expression("constant", formula.expression.kind, value=0)
    return Formula(Expression("ne", "bool", (formula.expression, zero)), formula.arrays)


def block_table(counts: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """A table of blocks, (batch, heads, rows, columns), from the first `counts` of each row's `indices`."""
    among = torch.arange(indices.shape[-1], device=indices.device) < counts[..., None]
    table = torch.zeros((*indices.shape[:-1], indices.shape[-1] + 1), dtype=torch.bool, device=indices.device)
    positions = torch.where(among, indices.long(), indices.shape[-1])
    return table.scatter_(-1, positions, True)[..., :-1]
