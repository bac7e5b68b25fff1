"""Tensors as arrays without copies, and the CPU implementation of each operator.

Each implementation is followed by one that returns empty tensors of the same shapes, for compile and export.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.known_launches import layouts_of, run_at
from clearhead.adapters.torch.reference import HALF_DTYPES
from clearhead.adapters.torch.rule_names import Rule, rule_named
from clearhead.arrays import Array
from clearhead.definition.gradient import Gradients
from clearhead.definition.tangent import Direction
from clearhead.engine.execute import execute
from clearhead.engine.inputs import Operands, Rules, new
from clearhead.engine.launch import Launch
from clearhead.engine.launch_cache import launch_for, launches
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients import tangents
from clearhead.gradients.backward import backward
from clearhead.gradients.residuals import Residuals
from clearhead.machine.address import address

Pair = tuple[torch.Tensor, torch.Tensor]
Tensors = tuple[Any, ...]

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def address_of(x: torch.Tensor) -> int | None:
    """The address of a tensor's first number; None for those of a transform, and sparse ones.

    It is 0 for empty tensors, zeros that autograd assumes, functional tensors, and where storage was resized to 0.
    """
    try:
        return x.data_ptr()
    except RuntimeError:
        return None


def array_view(tensor: torch.Tensor) -> Array:
    """A tensor's memory as an array."""
    if address_of(tensor) == 0 and tensor.is_cpu and tensor.numel():  # numpy would take other memory in its place
        raise InputError(
            f"a tensor of shape {tuple(tensor.shape)} has no memory: its storage was resized to 0, as FSDP does with "
            "parameters that are not in use, or it stands for another tensor. Give one with numbers, as by x.clone() "
            "while x has them."
        )
    if tensor.dtype is torch.bfloat16:
        try:
            import ml_dtypes
        except ImportError:
            raise DtypeError(
                f"a tensor of shape {tuple(tensor.shape)} is bfloat16, which numpy does not support: pip install "
                "ml_dtypes, or use torch.float32."
            ) from None
        return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    except TypeError:
        if tensor.layout is not torch.strided or not tensor.is_cpu:
            refuse_location(tensor)
        raise DtypeError(
            f"a tensor of shape {tuple(tensor.shape)} is {tensor.dtype}, which cannot be read: give torch.float32, as "
            "by x.float()."
        ) from None


def tensor_of(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """An array's memory as a tensor."""
    if dtype is torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def table_of(array: Array) -> torch.Tensor:
    """An array that rules read as a tensor: its memory, or a copy where no tensor may have it."""
    shared = array.flags.writeable and all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    own = array if shared else array.copy()
    if own.dtype.name == "bfloat16":
        return tensor_of(own, torch.bfloat16)
    return torch.from_numpy(own)


def on_processor(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Run the forward kernel."""
    known = not tables and sink is None and type(scale) is float  # a tensor may change, so a cache must not know it
    layouts = (*layouts_of(query, key, value), rule, scale) if known else ()
    launch = launches.get(layouts) if known else None
    if launch is None or not (query.data_ptr() and key.data_ptr() and value.data_ptr()):
        output, lse, launch = from_arrays(query, key, value, tables, sink, rule, scale)
        if known and launch.entry and launch.tasks and not launch.doubtful:
            launches.keep(layouts, launch, launch.held_bytes)
    else:
        buffer = output_buffer(query, key, value)
        output = np.empty(launch.output_shape, launch.output_dtype) if buffer is None else buffer
        lse = np.empty(launch.output_shape[:-1], launch.lse_dtype)
        run_at(launch, query, key, value, address(output), address(lse), (output, lse))
    return torch.from_numpy(output), torch.from_numpy(lse)


def from_arrays(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> tuple[Array, Array, Launch]:
    """Output and LSE of any call, and its launch."""
    if query.dtype not in FLOAT_DTYPES or not query.dtype is key.dtype is value.dtype:
        raise DtypeError(
            f"query, key and value are {query.dtype}, {key.dtype} and {value.dtype}: give three of one dtype, float32, "
            "float64, float16 or bfloat16, as by x.to(torch.float32)."
        )
    mask, score = rule_named(rule).filled([array_view(x) for x in tables] if tables else ())
    sinks = None if sink is None else array_view(sink)
    threads = torch.get_num_threads()
    operands = new(Operands, (array_view(query), array_view(key), array_view(value), None))
    rules = new(Rules, (mask, score, sinks, scale, "exact"))
    buffer = output_buffer(query, key, value)
    launch = launch_for(operands, rules, buffer, unrounded=True)
    output, lse = execute(operands, rules, threads=threads, out=buffer, lse=True, launch=launch)
    return output, lse, launch


def output_buffer(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Array | None:
    """An output buffer in the layout of torch's own attention, whose heads join without a copy; None without heads."""
    if query.dim() != 4:
        return None
    batch, heads, queries, _ = query.shape
    matching = key.dim() == value.dim() == 4 and key.shape[0] == value.shape[0] == batch
    if not matching or key.shape[1] > heads or value.shape[1] > heads:
        lead = lead_of(query, key, value)
        if len(lead) != 2 or value.dim() < 2:
            return None
        batch, heads = lead
    dtype = np.float64 if query.dtype is torch.float64 else np.float32
    return np.empty((batch, queries, heads, value.shape[-1]), dtype).swapaxes(1, 2)


def forward_shapes(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Empty tensors with the shapes and dtypes of the operator's results."""
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
    """The leading axes of the result: query heads may share those of keys and values; raises ShapeError."""
    if query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return query.shape[:-2]
    heads = query.shape[-3] if query.dim() > 2 else 1
    leads: list[tuple[int, ...]] = [query.shape[:-2]]
    for x in (key, value):
        lead = x.shape[:-2]
        leads.append((*lead[:-1], heads) if lead and lead[-1] != 1 and heads != 1 else lead)
    try:
        return tuple(torch.broadcast_shapes(*leads))
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise ShapeError(f"the leading axes do not broadcast ({shapes}): make them equal or 1.") from None


def backward_on_processor(d_output: torch.Tensor, d_lse: torch.Tensor, *operands: Any) -> list[torch.Tensor]:
    """Gradients of query, key, value, sink, then tables; an empty tensor for operands without one."""
    output, lse, query, key, value, tables, sink, name, scale = operands
    x, rule = (query, key, value, sink, *tables), rule_named(name)
    smooth = bool(smooth_tables(rule, tables))
    gradients = backward(
        residuals_of(name, scale, output, x),
        array_view(lse),
        array_view(d_output.to(query.dtype)),
        array_view(d_lse),
        rules=smooth,
    )
    return gradients_in_order(gradients, rule, x)


def gradients_in_order(gradients: Gradients, rule: Rule, x: Tensors) -> list[torch.Tensor]:
    """Gradients as tensors: query, key, value, sink, then tables; an empty tensor for operands without one."""
    query, _, _, sink, *tables = x
    smooth = smooth_tables(rule, tables)
    by_table = dict(zip(smooth, gradients.rules[0] if smooth else (), strict=True))

    def table_gradient(n: int, table: torch.Tensor) -> torch.Tensor:
        if not table.is_floating_point():
            empty: torch.Tensor = query.new_empty(0)
            return empty
        if n in by_table:
            return dense(by_table[n], table)
        zeros: torch.Tensor = torch.zeros_like(table)
        return zeros

    operands = [dense(d, operand) for d, operand in zip((gradients.q, gradients.k, gradients.v), x, strict=False)]
    d_sink = query.new_empty(0) if sink is None or gradients.sink is None else dense(gradients.sink, sink)
    return [*operands, d_sink, *(table_gradient(n, table) for n, table in enumerate(tables))]


def dense(gradient: Array, x: torch.Tensor) -> torch.Tensor:
    """A gradient as a contiguous tensor of x's dtype."""
    stored = np.asarray(gradient, order="C")  # also for arrays without axes
    return (
        tensor_of(stored, x.dtype)
        if stored.dtype.itemsize == x.element_size()
        else torch.from_numpy(stored).to(x.dtype)
    )


def backward_shapes(d_output: torch.Tensor, d_lse: torch.Tensor, *operands: Any) -> list[torch.Tensor]:
    """Empty tensors with the shapes of the gradients."""
    _, _, query, key, value, tables, sink, _, _ = operands
    return [
        query.new_empty(0) if x is None or not x.is_floating_point() else x.new_empty(x.shape)
        for x in (query, key, value, sink, *tables)
    ]


def tangent_on_processor(output: torch.Tensor, lse: torch.Tensor, *operands: Any) -> Pair:
    """Derivatives of output and LSE along a direction of query, key, value, sink, then tables."""
    x, rule, scale, along = split_operands(operands)
    moved, moved_lse = tangents.jvp(residuals_of(rule, scale, output, x), array_view(lse), direction(rule, x, along))
    return torch.from_numpy(moved), torch.from_numpy(moved_lse)


def second_on_processor(
    d_output: torch.Tensor, d_lse: torch.Tensor, output: torch.Tensor, lse: torch.Tensor, *operands: Any
) -> list[torch.Tensor]:
    """Derivatives of output, LSE and gradients along a direction."""
    x, rule, scale, along = split_operands(operands)
    residuals, moving = residuals_of(rule, scale, output, x), direction(rule, x, along)
    derivatives = tangents.second(residuals, array_view(lse), array_view(d_output), array_view(d_lse), moving)
    moved = torch.from_numpy(derivatives.output), torch.from_numpy(derivatives.lse)
    return [*moved, *gradients_in_order(derivatives.gradients, rule_named(rule), x)]


def split_operands(operands: Tensors) -> tuple[Tensors, str, float, Sequence[Any]]:
    """Split operands into tensors (query, key, value, sink, tables), rule name, scale and direction."""
    query, key, value, tables, sink, rule, scale, along = operands
    return (query, key, value, sink, *tables), rule, scale, along


def tangent_shapes(output: torch.Tensor, lse: torch.Tensor, *operands: Any) -> Pair:
    """Empty tensors with the shapes of the tangents."""
    return output.new_empty(output.shape), lse.new_empty(lse.shape)


def second_shapes(
    d_output: torch.Tensor, d_lse: torch.Tensor, output: torch.Tensor, lse: torch.Tensor, *operands: Any
) -> list[torch.Tensor]:
    """Empty tensors with the shapes of the second derivatives."""
    return [
        *tangent_shapes(output, lse),
        *backward_shapes(d_output, d_lse, output, lse, *operands[:-1]),
    ]


def residuals_of(rule: str, scale: float, output: torch.Tensor, x: Tensors) -> Residuals:
    """The saved values of a call, for its gradients."""
    query, key, value, sink, *tables = x
    mask, score = rule_named(rule).filled([array_view(table) for table in tables])
    sinks = None if sink is None else array_view(sink)
    operands = Operands(array_view(query), array_view(key), array_view(value))
    return Residuals(operands, Rules(mask, score, sinks, scale), torch.get_num_threads(), array_view(output))


def direction(name: str, x: Tensors, t: Sequence[Any]) -> Direction:
    """Tensors as a direction; None stands for 0."""
    arrays = [
        None if t_x is None or not x_.is_floating_point() else array_view(t_x) for x_, t_x in zip(x, t, strict=True)
    ]
    rules = []
    for n in smooth_tables(rule_named(name), x[4:]):
        t_table = arrays[4 + n]
        rules.append(np.zeros(x[4 + n].shape) if t_table is None else t_table)
    q, k, v, sink = arrays[:4]
    return Direction(q, k, v, sink, (tuple(rules),) if rules else ())


def smooth_tables(rule: Rule, tables: Sequence[torch.Tensor]) -> list[int]:
    """The numbers of tables with gradients: float tables that the score reads."""
    return [n for n in rule.read_by_score if tables[n].is_floating_point()]


def refuse_location(*operands: Any) -> Any:
    """Raise InputError for tensors that are not in CPU memory, or not strided."""
    tensors = [x for part in operands for x in (part if isinstance(part, list) else [part])]
    for x in (x for x in tensors if isinstance(x, torch.Tensor) and not (x.is_cpu and x.layout is torch.strided)):
        raise InputError(
            f"a tensor of shape {tuple(x.shape)} is on {x.device}, with layout {x.layout}: clearhead reads CPU "
            "memory, so give x.cpu(), or x.to_dense()."
        )
    raise InputError(f"these tensors cannot be read: {', '.join(sorted({type(x).__name__ for x in tensors}))}.")
