"""The operators `clearhead::attention` and its derivatives in torch's dispatcher, and when to call through it.

`register` registers their kernels and derivatives.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.host import Pair, address_of, backward_on_processor, on_processor
from clearhead.machine.unbroken import late

ENTRY = torch._C.DispatchKey.FuncTorchDynamicLayerFrontMode  # dispatch key at which transforms intercept a call
FUNCTIONALIZE = torch._C._functorch.TransformType.Functionalize
is_batched = torch._C._functorch.is_legacy_batchedtensor
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)

LIBRARY = torch.library.Library("clearhead", "DEF")
OPERANDS = "Tensor query, Tensor key, Tensor value, Tensor[] tables, Tensor? sink, str rule, float scale"
RESULTS = "Tensor output, Tensor lse"
LIBRARY.define(f"attention({OPERANDS}) -> (Tensor, Tensor)")
LIBRARY.define(f"attention_backward(Tensor d_output, Tensor d_lse, {RESULTS}, {OPERANDS}) -> Tensor[]")
LIBRARY.define(f"attention_tangent({RESULTS}, {OPERANDS}, Tensor?[] along) -> (Tensor, Tensor)")
LIBRARY.define(f"attention_second(Tensor d_output, Tensor d_lse, {RESULTS}, {OPERANDS}, Tensor?[] along) -> Tensor[]")
operator, backward_operator, tangent_operator, second_operator = (
    getattr(torch.ops.clearhead, name).default
    for name in ("attention", "attention_backward", "attention_tangent", "attention_second")
)


def is_exporting() -> bool:
    """Whether torch.export traces this call; torch 2.6 tells only of exports with strict=False."""
    compiler = torch.compiler
    if hasattr(compiler, "is_exporting"):
        return compiler.is_exporting()
    return compiler.is_compiling() and not compiler.is_dynamo_compiling()


def needs_operators() -> bool:
    """Whether a call is compiled, traced, functionalized or inside one transform level, which all need operators."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    levels = torch._C._functorch.get_interpreter_stack()
    return torch._C._dispatch_tls_is_dispatch_key_excluded(ENTRY) or any(x.key() == FUNCTIONALIZE for x in levels)


def call_forward(*operands: Any) -> Pair:
    """Run the operator; through torch's dispatcher, which costs more than a small call, only if something needs it."""
    if needs_dispatcher(operands[:3]):
        return call_below_autograd(operator, *operands)  # type: ignore[no-any-return]
    return on_processor(*operands)


def call_backward(*operands: Any) -> list[torch.Tensor]:
    """`call_forward` for the backward operator."""
    if needs_dispatcher((*operands[:2], *operands[4:7])):
        return call_below_autograd(backward_operator, *operands)  # type: ignore[no-any-return]
    return backward_on_processor(*operands)


def call_below_autograd(function: Any, *operands: Any) -> Any:
    """Call an operator below autograd at this level only; autograd functions disable gradients at all levels."""
    with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        if any(map(is_spread, operands)):
            return late("clearhead.adapters.torch.placements").call_spread(function, *operands)
        return function(*operands)


def is_spread(x: Any) -> bool:
    """Whether this is a DTensor, whose class is imported if there is one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, getattr(module, "DTensor", ()))


def needs_dispatcher(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a profiler, mode, transform or anything but plain memory needs the dispatcher."""
    return torch._C._autograd._profiler_enabled() or not is_plain_memory(tensors)


def is_plain_memory(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors are plain CPU memory, and no mode or transform intercepts calls."""
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    for x in tensors:  # noqa: SIM110
        if type(x) not in PLAIN_TENSORS or not x.is_cpu or x.is_neg() or not address_of(x):
            return False
    return True
