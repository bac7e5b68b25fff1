"""The forward operator for CUDA tensors: their addresses and torch's current stream for `clearhead.gpu`.

Responsible for what of torch's calls a GPU's kernel takes; `clearhead.gpu` is imported by the first such call.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.dispatch import PLAIN_TENSORS
from clearhead.adapters.torch.host import Pair, forward_shapes
from clearhead.adapters.torch.rule_names import rule_named
from clearhead.engine.inputs import Rules
from clearhead.errors import InputError, MachineError
from clearhead.machine.unbroken import late

TAKEN = "on a GPU, clearhead takes float32, causal() and full(), without rules, sinks and gradients"
NUMBER, DENSE = 4, 16  # bytes of a number, and what strides and addresses are multiples of


def on_card(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: list[torch.Tensor],
    sink: torch.Tensor | None,
    rule: str,
    scale: float,
) -> Pair:
    """Launch the forward kernel in torch's current stream."""
    tensors = query, key, value
    if tables or sink is not None or any(x.dtype is not torch.float32 for x in tensors):
        dtypes = ", ".join(sorted({str(x.dtype) for x in tensors}))
        given = "arrays in its rules" if tables else "a sink" if sink is not None else dtypes
        raise InputError(f"{TAKEN}, but this call has {given}: move its tensors to the CPU, as by x.cpu().")
    if any(x.device != query.device for x in tensors):
        places = ", ".join(sorted({str(x.device) for x in tensors}))
        raise InputError(f"query, key and value are on {places}: move them to one device, as by x.to(query.device).")
    mask, score = rule_named(rule).filled(())
    output, lse = forward_shapes(query, key, value, tables, sink, rule, scale)
    stream = torch.cuda.current_stream(query.device).cuda_stream
    arrays = [card_array(x.detach()) for x in (*tensors, output, lse)]
    card = gpu("driver").driver().card(query.device.index)
    gpu("attention").attend_on(card, *arrays, rules=Rules(mask, score, None, scale), stream=stream)
    return output, lse


def card_array(x: torch.Tensor) -> Any:
    """A tensor's memory."""
    strides = tuple(NUMBER * step for step in x.stride())
    return gpu("launch").CardArray(x.data_ptr(), tuple(x.shape), strides, np.dtype(np.float32))


@functools.cache
def gpu(name: str) -> ModuleType:
    """A module of `clearhead.gpu`."""
    module: ModuleType = late(f"clearhead.gpu.{name}")
    return module


def check_gradients(query: torch.Tensor) -> None:
    """Raise InputError for a CUDA tensor whose call wants gradients."""
    if query.is_cuda:
        raise InputError(
            f"{TAKEN}, but an operand requires one: call under torch.no_grad(), or move the tensors to the CPU, as by "
            "x.cpu()."
        )


def left_to_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None, dropout_p: float
) -> str | None:
    """Why a call of torch's function with CUDA tensors is left to torch, or None."""
    tensors = query, key, value
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or is_intercepted(tensors):
        return "on a GPU it is compiled, transformed or traced"
    if attn_mask is not None or dropout_p:
        return "on a GPU it has an attn_mask or dropout"
    if torch.is_autocast_enabled("cuda") or query.dtype is not torch.float32:
        return "on a GPU it is not computed in float32"
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*tensors):
        return "on a GPU it needs gradients"
    dims = gpu("tile").DIMS
    if query.shape[-1] not in dims or value.shape[-1] != query.shape[-1]:
        return f"on a GPU its dims are {query.shape[-1]} and {value.shape[-1]}, not equal and one of {dims}"
    for x in tensors:
        steps = [step for size, step in zip(x.shape[:-1], x.stride(), strict=False) if size > 1]
        if x.stride(-1) != 1 or x.data_ptr() % DENSE or any(NUMBER * step % DENSE for step in steps) or x.is_neg():
            return "on a GPU its tensors are not dense in the last axis, or not in steps of 16 bytes before it"
    return refused_by_card(query.device.index, query.shape[-1])


def is_intercepted(tensors: tuple[torch.Tensor, ...]) -> bool:
    """Whether a mode, a transform or a subclass of tensors sees the call first."""
    modes = torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    return bool(modes) or forward_ad._current_level >= 0 or any(type(x) not in PLAIN_TENSORS for x in tensors)


@functools.cache
def refused_by_card(index: int, dim: int) -> str | None:
    """Why a card cannot run the kernel of a dim, or None."""
    try:
        gpu("launch").tile_of(gpu("driver").driver().card(index), dim)
    except MachineError as error:
        return str(error)
    return None
