"""The operators `clearhead::attention` and its derivatives as torch's dispatcher knows them, and when to go through it.

Their kernels and derivatives are entered by `register`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from clearhead.adapters.torch.host import Pair, backward_on_processor, on_processor

ENTRY = torch._C.DispatchKey.FuncTorchDynamicLayerFrontMode  # where transforms take a call
FUNCTIONALIZE = torch._C._functorch.TransformType.Functionalize
is_batched = torch._C._functorch.is_legacy_batchedtensor
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
PLAIN = (torch.Tensor, torch.nn.Parameter)

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


def followed() -> bool:
    """Whether a call is compiled, traced, functionalized or in the midst of one level: all these follow operators."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if not torch._C._are_functorch_transforms_active():
        return False
    levels = torch._C._functorch.get_interpreter_stack()
    return torch._C._dispatch_tls_is_dispatch_key_excluded(ENTRY) or any(x.key() == FUNCTIONALIZE for x in levels)


def called(*operands: Any) -> Pair:
    """The operator; by torch's dispatcher, which costs more than a small call, only where something listens there."""
    if listened(operands[:3]):
        return below(operator, *operands)  # type: ignore[no-any-return]
    return on_processor(*operands)


def called_backward(*operands: Any) -> list[torch.Tensor]:
    """The same for gradients."""
    if listened((*operands[:2], *operands[4:7])):
        return below(backward_operator, *operands)  # type: ignore[no-any-return]
    return backward_on_processor(*operands)


def below(own: Any, *operands: Any) -> Any:
    """An operator without its derivatives at this level; autograd functions switch them off at all levels."""
    with torch._C._AutoDispatchBelowAutograd(), torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        return own(*operands)


def listened(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a mode, a transform, a profiler, a tensor's own class or a bit that negates it wants the operator."""
    return torch._C._autograd._profiler_enabled() or not numeric(tensors)


def numeric(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors are plain memory, and nothing stands between a call and its numbers."""
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    for x in tensors:  # noqa: SIM110
        if type(x) not in PLAIN or not x.is_cpu or x.is_neg() or is_batched(x):
            return False
    return True
