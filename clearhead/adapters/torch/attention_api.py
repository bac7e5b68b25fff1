"""clearhead's own attention on tensors: its masks and rules, with gradients.

Responsible for turning rules into a name and tensors; the operator does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from clearhead.adapters.torch import operator
from clearhead.adapters.torch.arguments import check_tensors, scale_or_default
from clearhead.adapters.torch.card_weights import card_weights
from clearhead.adapters.torch.direct import attend_directly
from clearhead.adapters.torch.host import lead_of, table_of
from clearhead.adapters.torch.jagged import attend_jagged, mask_over
from clearhead.adapters.torch.rule_names import split_rules
from clearhead.adapters.torch.weights import weights_of
from clearhead.engine.problem import check_rules
from clearhead.errors import InputError
from clearhead.rules.current import current_rules
from clearhead.rules.mask_kinds import Mask, checked_mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import Score, ScoreLike, as_rules

MAX_NAMED_RULES = 256
named_rules: dict[Any, str] = {}  # names of rules without arrays, by mask and score


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    sink: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """`clearhead.attention` of tensors, with gradients of query, key, value and sink.

    Shapes, masks, score rules and errors are the same. Arrays in rules are constants; for their gradients, write the
    rule as a function and use `flex_attention`. Accepts jagged nested tensors, too, and computes each sequence alone.

    >>> x = torch.eye(2, requires_grad=True)
    >>> attention(x, x, x, scale=1.0).sum().backward()
    >>> x.grad.round(decimals=3)
    tensor([[1.2690, 1.2690],
            [0.7310, 0.7310]])
    """
    rules = several(score)
    name, tables = rule_and_tables(mask, *rules)
    direct = attend_directly(query, key, value, name, scale) if sink is None and not tables else None
    if direct is not None:
        return direct
    return attend_named(query, key, value, mask, rules, name=name, tables=tables, sink=sink, scale=scale)[0]


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    sink: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attention` that also returns each query's log-sum-exp of scores, which has a gradient too.

    >>> output, lse = attend(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]))
    >>> output.tolist(), lse.exp().tolist()
    ([[1.0], [2.0]], [1.0, 2.0])
    """
    rules = several(score)
    name, tables = rule_and_tables(mask, *rules)
    return attend_named(query, key, value, mask, rules, name=name, tables=tables, sink=sink, scale=scale)


def attend_named(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    rules: Sequence[Any],
    *,
    name: str,
    tables: tuple[torch.Tensor, ...],
    sink: torch.Tensor | None,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend` by the name and tables of its mask and rules."""
    try:
        nested = query.is_nested or key.is_nested or value.is_nested
    except AttributeError:
        check_tensors(query=query, key=key, value=value)
        raise
    if sink is not None:
        check_tensors(sink=sink)
    factor = scale_or_default(query, scale)
    if nested:
        over = None if rules or sink is not None else mask_over(checked_mask(mask), query, key, value)
        if over is None:
            raise InputError(
                "nested tensors only work with causal(), full() and window(), without gaps, rules or sink: "
                "pad them, as by x.to_padded_tensor(0.0), and hide the padding with a mask."
            )
        return attend_jagged(query, key, value, over, factor)
    if tables:
        check_tables(query, key, value, mask, rules)
    return operator.attend(query, key, value, tables, sink, name, factor)


def check_tables(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, rules: Sequence[Any]) -> None:
    """Check that the arrays of rules fit a call; raises ShapeError."""
    if not torch.compiler.is_compiling():
        known_rules = tuple(rule for rule in rules if isinstance(rule, Score))
        check_rules(checked_mask(mask), known_rules, lead_of(query, key, value), query.shape[-2], key.shape[-2])


def several(score: ScoreLike) -> Sequence[Any]:
    """One rule or several as several."""
    return score if isinstance(score, (list, tuple)) else (score,)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def rule_and_tables(mask: Mask, *score: Any) -> tuple[str, tuple[torch.Tensor, ...]]:
    """The name of a rule, and its arrays as tensors."""
    if isinstance(mask, torch.Tensor):
        raise InputError(
            f"mask is a tensor of shape {tuple(mask.shape)}: give clearhead.dense(mask.numpy()), True where a key is "
            "visible, or call scaled_dot_product_attention(q, k, v, attn_mask=mask)."
        )
    rules = current_rules(score)
    try:
        return named_rules[mask, rules], ()
    except (KeyError, TypeError):  # an unhashable mask, which `checked_mask` reports
        rule, arrays = split_rules(checked_mask(mask), as_rules(rules))
    if not arrays and len(named_rules) < MAX_NAMED_RULES:
        named_rules[mask, rules] = rule.name
    return rule.name, tuple(map(table_of, arrays))


def attention_weights(
    query: torch.Tensor,
    key: torch.Tensor,
    *,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    sink: torch.Tensor | None = None,
    scale: float | None = None,
    lse: torch.Tensor | None = None,
) -> Any:
    """The weights of `attention` over tensors, (..., queries, keys), each computed when it is read.

    Tensors of the CPU give a lazy tensor with gradients, CUDA tensors `CardWeights`, whose indices give CUDA tensors
    with the CPU's bits. Both have `row`, `column`, `block`, `summary`, `map`, and `weights`, the `clearhead.Weights`.
    `lse` is the second result of `attend` for the same call. Raises as `attention` does.

    >>> w = attention_weights(torch.zeros(2, 1), torch.zeros(2, 1))
    >>> w.row(1), w.summary("effective").effective
    (tensor([0.5000, 0.5000]), array([1., 2.], dtype=float32))
    """
    check_tensors(query=query, key=key, **{} if sink is None else {"sink": sink}, **{} if lse is None else {"lse": lse})
    factor = scale_or_default(query, scale)
    rules = several(score)
    name, tables = rule_and_tables(mask, *rules)
    if tables:
        check_tables(query, key, key, mask, rules)
    make = card_weights if query.is_cuda else weights_of
    return make(query, key, tables, sink, name, factor, lse)
