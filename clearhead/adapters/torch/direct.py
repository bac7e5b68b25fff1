"""Attention straight from the tensors' memory, for calls of which only the output can be wanted.

Responsible for telling such calls from all others, which go through `operator`, and for giving them the same bits in
the same layout, by `known_launches`.
"""

from __future__ import annotations

import math

import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.dispatch import needs_dispatcher, needs_operators
from clearhead.adapters.torch.host import array_view
from clearhead.adapters.torch.known_launches import layouts_of, run_at
from clearhead.adapters.torch.operator import check_ranks
from clearhead.adapters.torch.rule_names import rule_named
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.launch import Launch
from clearhead.engine.launch_cache import launch_for, launches
from clearhead.errors import ClearheadError


def attend_directly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rule: str,
    scale: float | None,
    *,
    enable_gqa: bool = True,
) -> torch.Tensor | None:
    """The output of attention by a rule without tables, or None where it must be computed through `operator`.

    Query heads may share those of keys and values unless `enable_gqa` is False.
    """
    if (
        needs_operators()  # a compiler or a tracer records operators
        or torch._C._is_torch_function_mode_enabled()  # a mode sees calls of torch's functions, or moves new tensors
        or needs_dispatcher((query, key, value))  # a profiler, mode, transform, other class or device, or no memory
        or forward_ad._current_level >= 0  # an operand may have a tangent
        or torch.is_autocast_enabled("cpu")  # autocast changes dtypes
        or (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad))
        or not (scale is None or type(scale) is float)  # a tensor may change, so a cache must not know it
    ):
        return None
    check_ranks()
    try:
        layouts = (*layouts_of(query, key, value), rule, scale, enable_gqa)
    except RuntimeError:  # a nested tensor
        return None
    launch = launches.get(layouts)
    if launch is None:
        launch = prepare_direct(query, key, value, rule, scale, enable_gqa=enable_gqa)
        if launch is None:
            return None
        launches.keep(layouts, launch, launch.held_bytes)
    if launch.doubtful is not None:  # `execute` finds the pair at which a rule fails
        return None
    output = empty_output(query, launch.output_shape)
    run_at(launch, query, key, value, output.data_ptr(), 0, output)
    return output


def prepare_direct(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: str, scale: float | None, *, enable_gqa: bool
) -> Launch | None:
    """The launch of a call with four axes; None for what others should judge."""
    if not query.dim() == key.dim() == value.dim() == 4:
        return None
    if query.shape[1] != key.shape[1] and not enable_gqa:
        return None
    output = empty_output(query, (*query.shape[:3], value.shape[3]))
    factor = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    mask, score = rule_named(rule).filled(())
    try:
        operands = Operands(array_view(query), array_view(key), array_view(value))
        launch = launch_for(operands, Rules(mask, score, scale=factor), array_view(output))
    except ClearheadError:
        return None
    return launch if launch.entry else None  # the definition computes where nothing can be compiled


def empty_output(query: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """An output in the layout of torch's own, whose heads join without a copy."""
    _, heads, queries, dim = shape
    return query.new_empty_strided(shape, (queries * heads * dim, dim, heads * dim, 1))
