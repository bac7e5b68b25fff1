"""transformers models on clearhead's kernels: the function for `attn_implementation="clearhead"`.

Responsible for the meaning of a model's options and for the way a call takes: kernels that write into the model's
memory, or torch's operator, which supports differentiation, tracing and vmap. `mask` reads masks; `batch` assembles a
batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.autograd import forward_ad
from transformers.utils import output_capturing

from clearhead.adapters.torch import dispatch, operator
from clearhead.adapters.torch.host import FLOAT_DTYPES
from clearhead.adapters.torch.weighed import Weighed
from clearhead.adapters.torch.weights import weights_of
from clearhead.adapters.transformers.batch import LayerProblem, by_kernel, by_operator, rule_for
from clearhead.adapters.transformers.mask import FULL_SLICE, BatchPart, MaskTensor
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, full, window

NAME = "clearhead"
UNSUPPORTED_OPTIONS = ("sinks", "block_indices")  # unsupported options of a few models that change the result


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute a layer's attention: query (batch, heads, n, dim) to output (batch, n, heads, dim), and weights.

    The weights are a lazy tensor, returned only with `output_attentions=True`. Raises InputError, ShapeError or
    DtypeError for anything that clearhead does not support.
    """
    operator.check_ranks()
    query, key, value = operator.autocast_operands(query, key, value)
    check_supported(query, key, value, kwargs)
    pattern, hides, adds = None, None, () if position_bias is None else (position_bias,)
    if position_bias is not None:
        check_broadcasts("position_bias", position_bias, position_bias, query, key)
    if isinstance(attention_mask, MaskTensor) and not attention_mask.changed:
        pattern = attention_mask.pattern
        key, value = key[:, :, : pattern.stop], value[:, :, : pattern.stop]
    elif attention_mask is not None:
        hides, added = table_of(attention_mask, query, key)
        adds = (*adds, *added)
    if kwargs.get("indices") is not None:
        hides = hide_unchosen(kwargs["indices"], key.shape[2], hides)
    if pattern is not None:
        parts = pattern.parts
    else:
        mask = full() if attention_mask is not None else default_mask(module, query, key, is_causal, sliding_window)
        parts = (BatchPart(FULL_SLICE, FULL_SLICE, FULL_SLICE, mask),)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    problem = LayerProblem(parts, pattern, hides, adds, softcap, scale, s_aux, dropout)
    wants_weights, weights = bool(kwargs.get("output_attentions")) or collects_weights(), None
    if needs_only_numbers(query, key, value, problem):
        output, lse = by_kernel(query, key, value, problem, wants_weights)
    elif (
        wants_weights
        and not dropout
        and not dispatch.needs_operators()
        and dispatch.is_plain_memory(problem.tensors(query, key, value))
    ):
        output, lse, weights = with_weights(query, key, value, problem)
    else:
        output, lse = by_operator(query, key, value, problem)
    if wants_weights and weights is None:
        weights = weights_alone(query, key, problem, None if lse is None else lse.detach())
    return output, weights


def weights_alone(
    query: torch.Tensor, key: torch.Tensor, problem: LayerProblem, lse: torch.Tensor | None
) -> torch.Tensor:
    """The weights of a layer, not connected to its output."""
    rule, tables = rule_for(problem, BatchPart(FULL_SLICE, FULL_SLICE, FULL_SLICE, problem.batch_mask))
    snapshot = key.clone()  # the model goes on writing to a static cache
    return weights_of(query, snapshot, tables, problem.sink, rule, problem.scale, lse)


def with_weights(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, problem: LayerProblem
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, LSE and weights, where autograd treats the output as computed from the weights."""
    weights: Any = weights_alone(query, key, problem, None)
    lses: list[torch.Tensor] = []

    def compute(v: torch.Tensor, q: torch.Tensor, k: torch.Tensor, sink: Any, *tables: torch.Tensor) -> torch.Tensor:
        adds = tables[len(tables) - len(problem.adds) :]
        output, lse = by_operator(q, k, v, replace(problem, sink=sink, adds=adds))
        lses.append(lse.detach())
        return output.transpose(1, 2)

    output = Weighed.apply(compute, weights, value, *weights.origin.operands).transpose(1, 2)
    weights.origin.lse = lses[0]
    return output, lses[0], weights


def check_supported(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> None:
    """Raise an error for operands or options that clearhead does not support."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not (x.is_cpu or x.is_meta or dispatch.needs_operators()) and type(x) in dispatch.PLAIN_TENSORS:
            raise InputError(f"{name} of shape {tuple(x.shape)} is on {x.device}: move the model with model.cpu().")
    if query.dtype not in FLOAT_DTYPES or not query.dtype is key.dtype is value.dtype:
        raise DtypeError(
            f"query, key and value are {query.dtype}, {key.dtype} and {value.dtype}: cast the model to one dtype, as "
            "by model.float(), or run it under torch.autocast('cpu')."
        )
    for name in UNSUPPORTED_OPTIONS:
        if options.get(name) is not None:
            raise InputError(
                f"this model's layers compute with {name}, which clearhead does not support: use "
                "attn_implementation='eager' for it."
            )


def needs_only_numbers(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, problem: LayerProblem) -> bool:
    """Whether only numbers are needed, so kernels can write into the model's memory directly."""
    tensors = problem.tensors(query, key, value)
    if (
        problem.dropout
        or dispatch.needs_operators()
        or dispatch.needs_dispatcher(tensors)
        or forward_ad._current_level >= 0
    ):
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def table_of(
    mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
    """A mask given as a table, with four axes: a boolean one that hides, or one to add."""
    table = mask.dense() if isinstance(mask, MaskTensor) else mask
    if table.dtype is not torch.bool and not table.is_floating_point():
        raise DtypeError(
            f"attention_mask of shape {tuple(table.shape)} is {table.dtype}: give torch.bool, True where a key is "
            "visible, as by mask.bool(), or floats to add to the scores."
        )
    table = table[(None,) * (4 - table.dim())][..., : key.shape[2]]
    check_broadcasts("attention_mask", mask, table, query, key)
    return (table, ()) if table.dtype is torch.bool else (None, (table,))


def check_broadcasts(
    name: str, original: torch.Tensor, table: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> None:
    """Raise ShapeError for a table that does not broadcast to the scores."""
    wanted = (*query.shape[:3], key.shape[2])
    if table.dim() != 4 or any(n not in (1, size) for n, size in zip(table.shape, wanted, strict=True)):
        raise ShapeError(
            f"{name} has shape {tuple(original.shape)}: give (batch, heads, queries, keys) = {wanted}, each "
            "axis of that size or 1."
        )


def hide_unchosen(indices: torch.Tensor, keys: int, hides: torch.Tensor | None) -> torch.Tensor:
    """Hide all keys except those that the model chose for each query, (batch, queries, chosen)."""
    chosen = indices.new_zeros((*indices.shape[:2], keys), dtype=torch.bool).scatter(-1, indices.long(), True)[:, None]
    return chosen if hides is None else hides & chosen


def default_mask(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, is_causal: bool | None, sliding_window: int | None
) -> Mask:
    """The mask of a layer that was called without one."""
    queries, keys = query.shape[2], key.shape[2]
    causally = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causally or queries == 1:
        return full()
    if queries != keys:
        raise InputError(f"{queries} queries and {keys} keys have no mask: pass the model an attention_mask.")
    return causal() if sliding_window is None else window(sliding_window - 1)


def collects_weights() -> bool:
    """Whether transformers collects attentions now; some models (GPT-2) do not pass `output_attentions` on."""
    collector = getattr(output_capturing, "_active_collector", None)
    return collector is not None and "attentions" in (collector.get() or ())
