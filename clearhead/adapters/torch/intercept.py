"""Let handlers see the attention calls of any PyTorch model: `scaled_dot_product_attention` and `flex_attention`.

Responsible for replacing torch's functions, wherever a model's files hold them, for as long as there are handlers, and
for finding the module that makes a call. `multihead` reads torch's own attention layers, `calls` describes a call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.bias import CausalBias, CausalVariant

from clearhead.adapters.torch.calls import (
    Answer,
    AttentionCall,
    Handler,
    Visibility,
    inside,
    interested,
    own_or_changed,
)
from clearhead.adapters.torch.multihead import MULTIHEAD, attention_of
from clearhead.adapters.torch.operator import autocast_operands
from clearhead.adapters.torch.remembered import forget, remembered
from clearhead.errors import InputError

SDPA = "scaled_dot_product_attention"


class Intercepted:
    """One of torch's attention functions, whose calls handlers see."""

    def __init__(self, original: Callable[..., Any], call: Callable[..., Any]) -> None:
        self.original, self.call = original, call
        update_wrapper(self, original)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The function's result, or what handlers made of it."""
        if torch.compiler.is_compiling():
            return self.original(*args, **options)
        repeated = getattr(inside, "repeated", None)
        module = calling_module() if repeated is None else repeated.module
        chain = [] if module is None else interested(attention_of(module))
        if chain:
            return self.call(self.original, module, chain, *args, **options)
        return (own_sdpa(self.original) if self.call is call_sdpa else self.original)(*args, **options)


class Places:
    """The names under which functions are replaced, each for as long as somebody needs it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.counts: dict[tuple[int, str], int] = {}
        self.replaced: dict[tuple[int, str], tuple[Any, Any, Any]] = {}  # namespace, original, replacement

    def replace(self, namespace: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace a name by what `make` makes of its value."""
        key = id(namespace), name
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
            if self.counts[key] == 1:
                original = getattr(namespace, name)
                self.replaced[key] = namespace, original, make(original)
                setattr(namespace, name, self.replaced[key][2])

    def restore(self, namespace: Any, name: str) -> None:
        """Put the value back when nobody needs the replacement, unless somebody else replaced it since.

        A replacement's `original` is the value that it stands for by then: `patch` may have changed it.
        """
        key = id(namespace), name
        with self.lock:
            self.counts[key] -= 1
            if not self.counts[key]:
                del self.counts[key]
                _, original, replacement = self.replaced.pop(key)
                if getattr(namespace, name, None) is replacement:
                    setattr(namespace, name, getattr(replacement, "original", original))


places = Places()


@contextmanager
def intercepting(model: torch.nn.Module, handler: Handler, handlers: list[Handler]) -> Iterator[None]:
    """Let a handler see a model's calls of torch's attention functions."""
    wanted = list(replacements(model))
    done = []
    try:
        for namespace, name, make in wanted:
            places.replace(namespace, name, make)
            done.append((namespace, name))
        handlers.append(handler)
        yield
    finally:
        if handler in handlers:
            handlers.remove(handler)
        for namespace, name in reversed(done):
            places.restore(namespace, name)
        forget()


def replacements(model: torch.nn.Module) -> Iterator[tuple[Any, str, Callable[[Any], Any]]]:
    """The names to replace: torch's own, and those of a model's files that hold the same functions."""
    calls: dict[Any, Callable[..., Any]] = {
        original_of(getattr(functional, SDPA)): call_sdpa,
        torch._C._nn.scaled_dot_product_attention: call_sdpa,
        original_of(flex.flex_attention): call_flex,
    }
    yield functional, SDPA, partial(Intercepted, call=call_sdpa)
    yield flex, "flex_attention", partial(Intercepted, call=call_flex)
    for name, (namespace, call) in MULTIHEAD.items():
        if hasattr(namespace, name):
            calls[original_of(getattr(namespace, name))] = call
            yield namespace, name, partial(Intercepted, call=call)
    for file in files_of(model):
        for name, value in list(vars(file).items()):
            known = calls.get(original_of(value)) if callable(value) else None
            if known is not None and (file, name) not in ((functional, SDPA), (flex, "flex_attention")):
                yield file, name, partial(Intercepted, call=known)


def original_of(function: Any) -> Any:
    """A function without what torch.compile or a replacement put around it."""
    while True:
        inner = function.original if isinstance(function, Intercepted) else None
        inner = inner or getattr(function, "_torchdynamo_orig_callable", None)
        if inner is None:
            break
        function = inner
    try:
        hash(function)
    except TypeError:
        return None
    return function


def files_of(model: torch.nn.Module) -> list[ModuleType]:
    """The Python files that define a model's classes, without torch's."""
    names = {base.__module__ for module in model.modules() for base in type(module).__mro__}
    found = (sys.modules.get(name) for name in sorted(names))
    return [file for file in found if file is not None and file.__name__.partition(".")[0] != "torch"]


def calling_module() -> torch.nn.Module | None:
    """The innermost module whose code is running."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            owner = frame.f_locals.get("self")
            if isinstance(owner, torch.nn.Module):
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None


# scaled_dot_product_attention


def own_sdpa(original: Callable[..., Any]) -> Callable[..., Any]:
    """torch's function while its name is replaced: torch's biases know it by that name alone."""

    def function(query: Any, key: Any, value: Any, attn_mask: Any = None, *args: Any, **options: Any) -> Any:
        compute = CausalBias._dispatch if isinstance(attn_mask, CausalBias) else original
        return compute(query, key, value, attn_mask, *args, **options)

    return function


def call_sdpa(
    original: Any,
    module: torch.nn.Module,
    chain: list[Handler],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """A call of torch's function: the same arguments for torch, a description for the handlers."""

    def compute() -> torch.Tensor:
        output: torch.Tensor = own_sdpa(original)(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return output

    if any(x.is_nested for x in (query, key, value)) or query.dim() < 2:
        raise InputError(
            f"{type(module).__name__} calls {SDPA} with {'nested tensors' if query.is_nested else tuple(query.shape)}: "
            "only tensors (…, heads, length, dim) can be watched or changed, so pad the batch."
        )
    repeated = getattr(inside, "repeated", None)
    dropped = dropout_p if repeated is None else repeated.dropout
    call = sdpa_call(module, query, key, value, attn_mask, dropped, is_causal, scale)
    lead = query.shape[:-2]
    result = own_or_changed(call, chain, compute, four_axes)
    if isinstance(result, Answer):
        if repeated is not None:
            repeated.changed = True
        return result.output.reshape(*lead, *result.output.shape[-2:]).to(query.dtype)
    return result


def sdpa_call(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    is_causal: bool,
    scale: float | None,
) -> AttentionCall:
    """The arguments of torch's function as a call."""
    query, key, value = autocast(query, key, value)
    lead = query.shape[:-2]
    q, k, v = (
        four_axes(x.expand(*lead[:-1], *x.shape[-3:]) if x.dim() == query.dim() > 3 else x) for x in (query, key, value)
    )
    causal: Any = "start" if is_causal else None
    adds: tuple[torch.Tensor, ...] = ()
    table = None
    if isinstance(mask, CausalBias):
        causal = "start" if mask.variant == CausalVariant.UPPER_LEFT else "end"
    elif mask is not None:
        table, adds = split_table(four_axes(over_lead(mask, lead)))
    return AttentionCall(
        module,
        q,
        k,
        v,
        q.shape[-1] ** -0.5 if scale is None else float(scale),
        Visibility(table=table, causal=causal, source=mask if table is not None else None),
        adds,
        dropout=dropout,
        computed=str(q.dtype).removeprefix("torch."),
    )


def autocast(*operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Operands in the dtype that attention computes in under autocast."""
    device = operands[0].device.type
    return autocast_operands(*operands, device=device) if torch.amp.is_autocast_available(device) else operands


def four_axes(x: torch.Tensor) -> torch.Tensor:
    """A tensor with (batch, heads) in front of its last two axes."""
    if x.dim() == 4:
        return x
    if x.dim() == 3:  # the leading axis counts sequences
        return x[:, None]
    return x[None, None] if x.dim() == 2 else x.flatten(0, -4)


def over_lead(mask: torch.Tensor, lead: tuple[int, ...]) -> torch.Tensor:
    """A mask over more than two leading axes; axes of 1 broadcast."""
    if len(lead) <= 2:
        missing = len(lead) - (mask.dim() - 2)
        return mask[(None,) * missing] if missing > 0 else mask
    return mask.expand(*lead[:-1], *((1,) * max(0, 3 - mask.dim())), *mask.shape[-3:])


def split_table(mask: torch.Tensor) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
    """A mask (batch, heads, queries, keys) as visible pairs and what is added to the others.

    Numbers that take every weight away hide; a table of nothing else adds nothing.
    """
    return (mask, ()) if mask.dtype is torch.bool else remembered(mask, "split", partial(split_floats, mask))


def split_floats(mask: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """`split_table` of numbers that are added to scores."""
    hidden = mask <= HIDES
    if bool(((mask == 0) | hidden).all()):
        return ~hidden, ()
    return ~hidden, (mask.masked_fill(hidden, 0),)


HIDES = -10000.0  # exp underflows far above; models add this, the lowest number or −∞ to scores

# flex_attention


def call_flex(
    original: Any,
    module: torch.nn.Module,
    chain: list[Handler],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Any = None,
    block_mask: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: Any = None,
    **options: Any,
) -> Any:
    """A call of flex_attention."""

    def compute() -> Any:
        return original(
            query, key, value, score_mod, block_mask, scale, enable_gqa, return_lse, kernel_options, **options
        )

    call = AttentionCall(
        module,
        query,
        key,
        value,
        query.shape[-1] ** -0.5 if scale is None else float(scale),
        visible_blocks(block_mask, key.shape[2]),
        computed="float32" if score_mod and query.dtype is torch.float64 else str(query.dtype).removeprefix("torch."),
        score_function=score_mod,
    )
    result = own_or_changed(call, chain, compute, lambda raw: raw[0] if isinstance(raw, tuple) else raw)
    if not isinstance(result, Answer):
        return result
    if return_lse or options.get("return_aux") is not None:
        raise InputError(
            f"{type(module).__name__} asks flex_attention for its log-sum-exp, which a changed attention does not "
            "give: leave return_lse out, or this layer."
        )
    return result.output.to(query.dtype)


def visible_blocks(block_mask: Any, keys: int) -> Visibility:
    """What a BlockMask shows; None shows everything."""
    return (
        Visibility()
        if block_mask is None
        else Visibility(rows=block_mask_rows(block_mask, keys), source=block_mask, rule=lambda: block_mask)
    )


def block_mask_rows(block_mask: Any, keys: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rows of the table that a BlockMask describes, by its own function."""
    batch, heads = block_mask.shape[0], block_mask.shape[1]

    def rows(numbers: torch.Tensor) -> torch.Tensor:
        device = numbers.device
        b = torch.arange(batch, device=device)[:, None, None, None]
        h = torch.arange(heads, device=device)[None, :, None, None]
        seen: torch.Tensor = block_mask.mask_mod(b, h, numbers[:, None], torch.arange(keys, device=device))
        return seen.expand(batch, heads, len(numbers), keys)

    return rows
