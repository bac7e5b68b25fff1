"""The forward operator for CUDA tensors: their addresses and torch's current stream for `clearhead.gpu`.

Responsible for what of torch's calls a GPU's kernel takes; `clearhead.gpu` is imported by the first such call.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.dispatch import PLAIN_TENSORS
from clearhead.adapters.torch.host import Pair, forward_shapes
from clearhead.adapters.torch.rule_names import rule_between, rule_named
from clearhead.engine.inputs import Rules
from clearhead.errors import InputError, MachineError
from clearhead.machine.unbroken import late
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import full
from clearhead.rules.scores import Score

FLOAT32 = np.dtype(np.float32)
FULL = Rules(full())


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
    if any(x.dtype is not torch.float32 for x in tensors):
        dtypes = ", ".join(sorted({str(x.dtype) for x in tensors}))
        gpu_module("launch").refuse(f"the dtypes are {dtypes}")
    devices = {str(x.device) for x in (*tensors, sink) if x is not None}
    if len(devices) > 1:
        names = "query, key and value" if sink is None else "query, key, value and sink"
        raise InputError(
            f"{names} are on {', '.join(sorted(devices))}: move them to one device, as by x.to(query.device)."
        )
    there = [table_on(x, query) for x in tables]  # in memory until it is launched
    mask, score = rules_there(rule, tables, there)
    output, lse = forward_shapes(query, key, value, tables, sink, rule, scale)
    arrays = [memory_of(x.detach()) for x in (*tensors, output, lse)]
    card, stream = place_of(query)
    each = None if sink is None else each_sink(sink.detach(), lse)  # in memory until it is launched
    sinks, rules = None if each is None else memory_of(each), Rules(mask, score, None, scale)
    gpu_module("attention").attend_on(card, *arrays, rules=rules, sink=sinks, stream=stream)
    return output, lse


def each_sink(sink: torch.Tensor, lse: torch.Tensor) -> torch.Tensor:
    """A sink for each head, one after another, if these broadcast; else itself, which `clearhead.gpu` refuses."""
    try:
        return sink.float().expand(lse.shape[:-1]).contiguous()
    except RuntimeError:
        return sink.float()


def table_on(x: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """A tensor that rules read, on the query's card; raises InputError for one on another card."""
    if x.is_cuda and x.device != query.device:
        raise InputError(
            f"a rule reads a tensor of shape {tuple(x.shape)} on {x.device}, query is on {query.device}: move it "
            "there, as by x.to(query.device)."
        )
    return plain(x).to(query.device)


def plain(x: torch.Tensor) -> torch.Tensor:
    """A tensor's numbers as they are in memory: without a gradient, and negated if torch has put that off."""
    return x.detach().resolve_neg()


def rules_there(
    rule: str, tables: Sequence[torch.Tensor], there: Sequence[torch.Tensor]
) -> tuple[Mask, tuple[Score, ...]]:
    """A rule's mask and score, which read tensors of a card; of indices, `tables` on the CPU tell the limits."""
    known = rule_named(rule)
    if not tables:
        return known.bare
    indices = [(n, tables[n].numpy()) for n in known.indices if tables[n].is_cpu and tables[n].numel()]
    if indices:
        known = rule_between(rule, tuple((n, int(x.min()), int(x.max())) for n, x in indices))
    return known.made([table_memory(x) for x in there])


def table_memory(x: torch.Tensor) -> Any:
    """A tensor that rules read as an array whose elements are elsewhere."""
    if x.dtype is torch.bfloat16:
        import ml_dtypes

        return memory_of(x, np.dtype(np.int16)).seen_from_here().view(ml_dtypes.bfloat16)
    return memory_of(x, torch.empty(0, dtype=x.dtype).numpy().dtype).seen_from_here()


def memory_of(x: torch.Tensor, dtype: np.dtype[Any] = FLOAT32) -> Any:
    """A tensor's memory."""
    strides = tuple(dtype.itemsize * step for step in x.stride())
    arrays = gpu_module("card_array")
    return arrays.CardArray(x.data_ptr(), arrays.Layout(tuple(x.shape), strides, dtype))


def place_of(x: torch.Tensor) -> tuple[Any, int]:
    """A tensor's card, and the stream that torch uses there."""
    return gpu_module("driver").driver().card(x.device.index), torch.cuda.current_stream(x.device).cuda_stream


@functools.cache
def gpu_module(name: str) -> ModuleType:
    """A module of `clearhead.gpu`."""
    module: ModuleType = late(f"clearhead.gpu.{name}")
    return module


def any_requires_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether a gradient can flow to one of them."""
    return any(x is not None and x.requires_grad for x in tensors)


def wants_gradients(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: Sequence[torch.Tensor],
    sink: torch.Tensor | None,
) -> bool:
    """Whether a call wants gradients; raises InputError if it does on a GPU."""
    wants = torch.is_grad_enabled() and any_requires_grad(query, key, value, *tables, sink)
    if wants and query.is_cuda:
        launch = gpu_module("launch")
        launch.refuse("an operand requires a gradient", f"call under torch.no_grad(), or {launch.USE_THE_CPU}")
    return wants


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
    if torch.is_grad_enabled() and any_requires_grad(*tensors):
        return "on a GPU it needs gradients"
    if any(x.is_neg() for x in tensors):
        return "on a GPU a tensor is negated lazily"
    why = gpu_module("attention").refusal(*map(memory_of, tensors), FULL)
    return f"on a GPU {why}" if why else refused_by_card(query)


def is_intercepted(tensors: tuple[torch.Tensor, ...]) -> bool:
    """Whether a mode, a transform or a subclass of tensors sees the call first."""
    modes = torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active()
    return bool(modes) or forward_ad._current_level >= 0 or any(type(x) not in PLAIN_TENSORS for x in tensors)


def refused_by_card(query: torch.Tensor) -> str | None:
    """Why a tensor's card cannot run the kernel of its dim now, or None."""
    try:
        card, stream = place_of(query)
        gpu_module("confirmed").confirmed_kernel(card, "attention", query.shape[-1], stream)
    except MachineError as error:
        return str(error)
    return None
