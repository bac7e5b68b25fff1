"""Tensors as arrays, views and never copies, and what each operator does in the processor's memory.

Beside each function stands one that gives empty tensors of the same shapes, for compile and export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.adapters.torch.rule_names import Rule, rule_named
from clearhead.arrays import Array
from clearhead.definition.gradient import Gradients
from clearhead.definition.tangent import Direction
from clearhead.engine.execute import execute
from clearhead.engine.inputs import Operands, Rules, new
from clearhead.engine.launch_cache import launch_for
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients import tangents
from clearhead.gradients.backward import backward
from clearhead.gradients.residuals import Residuals

Pair = tuple[torch.Tensor, torch.Tensor]
Tensors = tuple[Any, ...]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def view(tensor: torch.Tensor) -> Array:
    """A tensor's memory as an array."""
    if tensor.dtype is torch.bfloat16:
        try:
            import ml_dtypes
        except ImportError:
            raise DtypeError(
                f"a tensor of shape {tuple(tensor.shape)} is bfloat16, which numpy alone does not know: pip install "
                "ml_dtypes, or use torch.float32."
            ) from None
        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except TypeError:
        if tensor.layout is not torch.strided or not tensor.is_cpu:
            elsewhere(tensor)
        raise DtypeError(
            f"a tensor of shape {tuple(tensor.shape)} is {tensor.dtype}, which cannot be read: give torch.float32, as "
            "by x.float()."
        ) from None


def tensor_of(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """An array's memory as a tensor."""
    if dtype is torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def on_processor(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Run the kernel."""
    if query.dtype not in DTYPES or not query.dtype is key.dtype is value.dtype:
        raise DtypeError(
            f"query, key and value are {query.dtype}, {key.dtype} and {value.dtype}: give three of one dtype, float32, "
            "float64, float16 or bfloat16, as by x.to(torch.float32)."
        )
    mask, score = rule_named(rule).filled([view(x) for x in tables] if tables else ())
    sinks = None if sink is None else view(sink)
    threads = torch.get_num_threads()
    operands = new(Operands, (view(query), view(key), view(value), None))
    rules = new(Rules, (mask, score, sinks, scale, "exact"))
    room = room_for(query, key, value) if query.dim() == 4 else None
    launch = launch_for(operands, rules, room, unrounded=True)
    output, lse = execute(operands, rules, threads=threads, out=room, lse=True, launch=launch)
    return torch.from_numpy(output), torch.from_numpy(lse)


def room_for(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Array | None:
    """An output laid out as torch's own attention gives it, heads side by side, so that they join without a copy."""
    batch, heads, queries, _ = query.shape
    known = key.dim() == value.dim() == 4 and key.shape[0] == value.shape[0] == batch
    if not known or key.shape[1] > heads or value.shape[1] > heads:
        lead = lead_of(query, key, value)
        if len(lead) != 2 or value.dim() < 2:
            return None
        batch, heads = lead
    dtype = np.float64 if query.dtype is torch.float64 else np.float32
    return np.empty((batch, queries, heads, value.shape[-1]), dtype).swapaxes(1, 2)


def shapes(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Empty tensors such as the operator gives."""
    torch._check(query.shape[-1] == key.shape[-1], lambda: f"dims differ: {query.shape}, {key.shape}")
    torch._check(key.shape[-2] == value.shape[-2], lambda: f"lengths differ: {key.shape}, {value.shape}")
    dtype = torch.float32 if query.dtype in HALF_DTYPES else query.dtype
    rows = (*lead_of(query, key, value), query.shape[-2])
    lse = query.new_empty(rows, dtype=dtype)
    if len(rows) != 3 or query.dim() != 4:
        return query.new_empty((*rows, value.shape[-1]), dtype=dtype), lse
    batch, heads, queries = rows
    return query.new_empty((batch, queries, heads, value.shape[-1]), dtype=dtype).transpose(1, 2), lse


def lead_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[int, ...]:
    """The leading axes of the result: heads of keys and values may be shared; raises ShapeError."""
    heads = query.shape[-3] if query.dim() > 2 else 1
    leads: list[tuple[int, ...]] = [query.shape[:-2]]
    for x in (key, value):
        own = x.shape[:-2]
        leads.append((*own[:-1], heads) if own and own[-1] != 1 and heads != 1 else own)
    try:
        return tuple(torch.broadcast_shapes(*leads))
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ShapeError(f"the leading axes do not broadcast ({shapes}): make them equal or 1.") from None


def backward_on_processor(d_output: torch.Tensor, d_lse: torch.Tensor, *operands: Any) -> list[torch.Tensor]:
    """Gradients of the operands: query, key, value, sink, then tables; of those without any, an empty tensor."""
    output, lse, query, key, value, tables, sink, name, scale = operands
    x, rule = (query, key, value, sink, *tables), rule_named(name)
    smooth = bool(smooth_tables(rule, tables))
    found = backward(
        residuals_of(name, scale, output, x), view(lse), view(d_output.to(query.dtype)), view(d_lse), rules=smooth
    )
    return in_order(found, rule, x)


def in_order(found: Gradients, rule: Rule, x: Tensors) -> list[torch.Tensor]:
    """Gradients as tensors: query, key, value, sink, then tables; of those without any, an empty tensor."""
    query, _, _, sink, *tables = x
    smooth = smooth_tables(rule, tables)
    by_table = dict(zip(smooth, found.rules[0] if smooth else (), strict=True))

    def table(n: int, own: torch.Tensor) -> torch.Tensor:
        if not own.is_floating_point():
            empty: torch.Tensor = query.new_empty(0)
            return empty
        if n in by_table:
            return dense(by_table[n], own)
        zeros: torch.Tensor = torch.zeros_like(own)
        return zeros

    own = [dense(d, operand) for d, operand in zip((found.q, found.k, found.v), x, strict=False)]
    d_sink = query.new_empty(0) if sink is None or found.sink is None else dense(found.sink, sink)
    return [*own, d_sink, *(table(n, own) for n, own in enumerate(tables))]


def dense(gradient: Array, x: torch.Tensor) -> torch.Tensor:
    """A gradient as a tensor like x, its elements one behind the other."""
    stored = np.asarray(gradient, order="C")  # of no axes, too
    return (
        tensor_of(stored, x.dtype)
        if stored.dtype.itemsize == x.element_size()
        else torch.from_numpy(stored).to(x.dtype)
    )


def backward_shapes(d_output: torch.Tensor, d_lse: torch.Tensor, *operands: Any) -> list[torch.Tensor]:
    """Empty tensors such as the gradients are."""
    _, _, query, key, value, tables, sink, _, _ = operands
    return [
        query.new_empty(0) if x is None or not x.is_floating_point() else x.new_empty(x.shape)
        for x in (query, key, value, sink, *tables)
    ]


def tangent_on_processor(output: torch.Tensor, lse: torch.Tensor, *operands: Any) -> Pair:
    """How output and LSE move along a direction of the operands: of query, key, value, sink, then tables."""
    x, rule, scale, along = parted(operands)
    moved, moved_lse = tangents.jvp(residuals_of(rule, scale, output, x), view(lse), direction(rule, x, along))
    return torch.from_numpy(moved), torch.from_numpy(moved_lse)


def second_on_processor(
    d_output: torch.Tensor, d_lse: torch.Tensor, output: torch.Tensor, lse: torch.Tensor, *operands: Any
) -> list[torch.Tensor]:
    """How output, LSE and gradients move along a direction."""
    x, rule, scale, along = parted(operands)
    residuals, moving = residuals_of(rule, scale, output, x), direction(rule, x, along)
    found = tangents.second(residuals, view(lse), view(d_output), view(d_lse), moving)
    moved = torch.from_numpy(found.output), torch.from_numpy(found.lse)
    return [*moved, *in_order(found.gradients, rule_named(rule), x)]


def parted(operands: Tensors) -> tuple[Tensors, str, float, Sequence[Any]]:
    """Query, key, value, sink and tables; the rule's name, the scale and the direction."""
    query, key, value, tables, sink, rule, scale, along = operands
    return (query, key, value, sink, *tables), rule, scale, along


def tangent_shapes(output: torch.Tensor, lse: torch.Tensor, *operands: Any) -> Pair:
    """Empty tensors such as both move by."""
    return output.new_empty(output.shape), lse.new_empty(lse.shape)


def second_shapes(
    d_output: torch.Tensor, d_lse: torch.Tensor, output: torch.Tensor, lse: torch.Tensor, *operands: Any
) -> list[torch.Tensor]:
    """Empty tensors such as everything moves by."""
    return [
        *tangent_shapes(output, lse),
        *backward_shapes(d_output, d_lse, output, lse, *operands[:-1]),
    ]


def residuals_of(rule: str, scale: float, output: torch.Tensor, x: Tensors) -> Residuals:
    """What gradients need of a call."""
    query, key, value, sink, *tables = x
    mask, score = rule_named(rule).filled([view(table) for table in tables])
    sinks = None if sink is None else view(sink)
    operands = Operands(view(query), view(key), view(value))
    return Residuals(operands, Rules(mask, score, sinks, scale), torch.get_num_threads(), view(output))


def direction(name: str, x: Tensors, t: Sequence[Any]) -> Direction:
    """Tensors as a direction; what stands still may be None."""
    given = [None if t_x is None or not x_.is_floating_point() else view(t_x) for x_, t_x in zip(x, t, strict=True)]
    rules = []
    for n in smooth_tables(rule_named(name), x[4:]):
        t_table = given[4 + n]
        rules.append(np.zeros(x[4 + n].shape) if t_table is None else t_table)
    q, k, v, sink = given[:4]
    return Direction(q, k, v, sink, (tuple(rules),) if rules else ())


def smooth_tables(rule: Rule, tables: Sequence[torch.Tensor]) -> list[int]:
    """Which tables the score reads have gradients."""
    return [n for n in rule.read_by_score if tables[n].is_floating_point()]


def elsewhere(*operands: Any) -> Any:
    """What becomes of tensors that are not in the processor's memory, or not laid out there plainly."""
    tensors = [x for part in operands for x in (part if isinstance(part, list) else [part])]
    for x in (x for x in tensors if isinstance(x, torch.Tensor) and not (x.is_cpu and x.layout is torch.strided)):
        raise InputError(
            f"a tensor of shape {tuple(x.shape)} is on {x.device}, laid out as {x.layout}: clearhead reads the "
            "processor's memory, so give x.cpu(), or x.to_dense()."
        )
    raise InputError(f"these tensors cannot be read: {', '.join(sorted({type(x).__name__ for x in tensors}))}.")
