"""torch's attention straight from the tensors' memory, for calls of which only the output can be wanted.

A small call costs more in conversions and in the log-sum-exp than in its kernel. Responsible for telling such calls
from all others, which `sdpa` makes through `operator`, and for giving them the same bits in the same layout. Launches
are in the engine's own cache, by layouts of tensors beside those of arrays.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.dispatch import needs_dispatcher, needs_operators
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.operator import check_ranks
from clearhead.engine.execute import (
    COUNTERS_FIELD,
    EMPTY,
    KEY_FIELD,
    OUTPUT_FIELD,
    QUERY_FIELD,
    VALUE_FIELD,
    WORKSPACE_FIELD,
)
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.launch import Launch
from clearhead.engine.launch_cache import launch_for, launches
from clearhead.errors import ClearheadError
from clearhead.machine.address import address
from clearhead.machine.threads import run_kernel
from clearhead.rules.masks import causal, full

FULL, CAUSAL = full(), causal(align="start")


def attend_directly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor | None:
    """The output of attention without mask and dropout, or None where it must be computed through `operator`."""
    if (
        needs_operators()  # a compiler or a tracer records operators
        or torch._C._is_torch_function_mode_enabled()  # a mode sees calls of torch's functions, or moves new tensors
        or needs_dispatcher((query, key, value))  # a profiler, mode, transform, other class or device, or no memory
        or forward_ad._current_level >= 0  # an operand may have a tangent
        or torch.is_autocast_enabled("cpu")  # autocast changes dtypes
        or (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
        or not (type(is_causal) is type(enable_gqa) is bool)  # a tensor may change, so a cache must not know it
        or not (scale is None or type(scale) is float)
    ):
        return None
    check_ranks()
    try:
        layouts = (
            query.shape, query.stride(), query.dtype, key.shape, key.stride(), key.dtype, value.shape, value.stride(),
            value.dtype, is_causal, scale, enable_gqa,
        )  # fmt: skip
    except RuntimeError:  # a nested tensor
        return None
    launch = launches.get(layouts)
    if launch is None:
        launch = prepare_direct(query, key, value, is_causal, scale, enable_gqa)
        if launch is None:
            return None
        launches.keep(layouts, launch, launch.held_bytes)
    output = empty_output(query, launch.output_shape)
    run_at(launch, query, key, value, output)
    return output


def prepare_direct(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, is_causal: bool, scale: float | None, enable_gqa: bool
) -> Launch | None:
    """The launch of a call with four axes; None for what `sdpa` or torch should judge."""
    if not query.dim() == key.dim() == value.dim() == 4:
        return None
    if query.shape[1] != key.shape[1] and not enable_gqa:
        return None
    output = empty_output(query, (*query.shape[:3], value.shape[3]))
    factor = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    try:
        operands = Operands(array_view(query), array_view(key), array_view(value))
        launch = launch_for(operands, Rules(CAUSAL if is_causal else FULL, scale=factor), array_view(output))
    except ClearheadError:
        return None
    return launch if launch.entry else None  # the definition computes where nothing can be compiled


def empty_output(query: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """An output in the layout of torch's own, whose heads join without a copy."""
    _, heads, queries, dim = shape
    return query.new_empty_strided(shape, (queries * heads * dim, dim, heads * dim, 1))


def run_at(launch: Launch, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, output: torch.Tensor) -> None:
    """`engine.execute.execute` without log-sum-exp, sinks and pages."""
    table = launch.table_type.from_buffer_copy(launch.template)
    table[QUERY_FIELD], table[KEY_FIELD], table[VALUE_FIELD] = query.data_ptr(), key.data_ptr(), value.data_ptr()
    table[OUTPUT_FIELD] = output.data_ptr()
    workspace, counters = EMPTY, EMPTY
    if launch.counters:
        workspace, counters = np.empty(launch.workspace, np.uint8), np.zeros(launch.counters, np.int64)
        table[WORKSPACE_FIELD], table[COUNTERS_FIELD] = address(workspace), address(counters)
    count = 1 if launch.most_threads == 1 else min(launch.most_threads, torch.get_num_threads())
    tensors = query, key, value, output, workspace, counters, launch.held
    run_kernel(launch.entry, table, launch.scratch_size, count, launch.isa, tensors)  # type: ignore[arg-type]  # kept if not None
