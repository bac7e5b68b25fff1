"""torch's `scaled_dot_product_attention` on clearhead's kernels, and `patch`, which replaces torch's function with it.

Responsible for the meaning of torch's arguments, and for calls that go back to torch: those that torch refuses with its
own message, and those whose tensors are neither in CPU memory nor such as a GPU's kernel takes.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from contextlib import ContextDecorator, suppress
from itertools import product
from typing import Any, ClassVar

import torch
from torch.nn import functional
from torch.nn.attention.bias import CausalBias, CausalVariant
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from clearhead.adapters.torch.card import left_to_torch
from clearhead.adapters.torch.direct import attend_directly
from clearhead.adapters.torch.dispatch import PLAIN_TENSORS, is_spread
from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.host import FLOAT_DTYPES, lead_of
from clearhead.adapters.torch.intercept import Intercepted
from clearhead.adapters.torch.jagged import attend_jagged, mask_over
from clearhead.adapters.torch.operator import OWN, attend
from clearhead.adapters.torch.rule_names import join_rule, split_rules
from clearhead.errors import InputError, ShapeError
from clearhead.rules.expression import Expression, Formula, Kind
from clearhead.rules.masks import causal, full

torchs_own = OWN
FULL = split_rules(full(), ())[0].name
CAUSAL = split_rules(causal(align="start"), ())[0].name
CAUSAL_AT_END = split_rules(causal(align="end"), ())[0].name
warned_reasons: set[str] = set()


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention with the semantics of `torch.nn.functional.scaled_dot_product_attention`, on clearhead's kernels.

    Shapes (..., heads, n, dim), (..., heads, m, dim) and (..., heads, m, value_dim) give (..., heads, n, value_dim).
    `is_causal` aligns queries with the first keys; `attn_mask` (bool: True is visible; float: added) broadcasts to
    (..., heads, n, m) and may have a gradient; `enable_gqa` lets query heads share key heads. `dropout_p` draws a seed
    from torch's generator; the dropped pairs depend only on that seed and on positions, not on the number of threads.
    CUDA tensors are computed on their GPU in float32, without attn_mask, dropout and gradients (docs/gpu.md). Calls
    that clearhead does not support (tensors on other devices, arguments that torch refuses) go to torch's own function,
    with one warning per reason.

    >>> x = torch.eye(2).reshape(1, 1, 2, 2)
    >>> scaled_dot_product_attention(x, x, x, is_causal=True, scale=1.0)[0, 0].round(decimals=3)
    tensor([[1.0000, 0.0000],
            [0.2690, 0.7310]])
    """
    if attn_mask is None and dropout_p == 0 and type(is_causal) is type(enable_gqa) is bool:  # tensors may change
        direct = attend_directly(query, key, value, CAUSAL if is_causal else FULL, scale, enable_gqa=enable_gqa)
        if direct is not None:
            return direct
    if has_torch_function((query, key, value, attn_mask)):
        output: torch.Tensor = overridden(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return output
    why = fallback_reason(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    if why is not None:
        warn_of_fallback(why)
        return torchs_own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    rule = CAUSAL if is_causal else FULL
    tables: tuple[torch.Tensor, ...] = ()
    if attn_mask is not None:
        rule, tables = mask_rule(attn_mask, query, key)
    return attend_scaled(query, key, value, tables, rule, scale, dropout_p)


def attend_scaled(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: tuple[torch.Tensor, ...],
    rule: str,
    scale: float | None,
    dropout_p: float,
) -> torch.Tensor:
    """The output, with torch's default scale."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if isinstance(factor, torch.Tensor):  # it may change, so launches must not be kept by it
        factor = factor.item()
    if dropout_p:
        return attend_dropped(query, key, value, tables, None, rule, factor, dropout_p)[0]
    return attend(query, key, value, tables, None, rule, factor)[0]


def overridden(
    query: Any, key: Any, value: Any, attn_mask: Any, dropout_p: float, is_causal: bool, **options: Any
) -> Any:
    """A call with operands that override torch functions.

    Handles torch's causal masks and nested tensors; other classes decide themselves, or get torch's own function.
    """
    operands = query, key, value, attn_mask
    if any(isinstance(x, torch.Tensor) and x.is_nested for x in operands):
        return over_nested(*operands, dropout_p, is_causal, **options)
    if not isinstance(attn_mask, CausalBias) or has_torch_function(operands[:3]):
        return handle_torch_function(scaled_dot_product_attention, operands, *operands, dropout_p, is_causal, **options)
    lengths = attn_mask.seq_len_q, attn_mask.seq_len_kv
    why = fallback_reason(query, key, value, None, dropout_p, is_causal, options["enable_gqa"])
    if why is not None or is_causal or lengths != (query.shape[-2], key.shape[-2]):
        return CausalBias._dispatch(*operands, dropout_p, is_causal, **options)
    rule = CAUSAL if attn_mask.variant == CausalVariant.UPPER_LEFT else CAUSAL_AT_END
    return attend_scaled(query, key, value, (), rule, options["scale"], dropout_p)


def over_nested(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Any:
    """Attention of nested tensors, each sequence alone."""
    matching = query.dtype in FLOAT_DTYPES and query.dtype is key.dtype is value.dtype and 0 <= dropout_p <= 1
    mask = causal() if is_causal else full()
    over = mask_over(mask, query, key, value) if matching and attn_mask is None else None
    if over is None or not (enable_gqa or query.shape[1] == key.shape[1] == value.shape[1]):
        warn_of_fallback("a nested tensor has a mask, gaps, or different lengths of keys and values")
        return torchs_own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return attend_jagged(query, key, value, over, factor, dropout_p)[0]


def fallback_reason(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    enable_gqa: bool,
) -> str | None:
    """Why a call must go to torch, or None."""
    for x in (query, key, value, query if attn_mask is None else attn_mask):
        if not isinstance(x, torch.Tensor):
            return f"an operand is {type(x).__name__}"
        if type(x) not in PLAIN_TENSORS and is_traceable_wrapper_subclass(x) and not is_spread(x):
            return f"a tensor is a {type(x).__name__}, which only supports torch's function"
        if x.layout is not torch.strided or x.is_nested or not (x.is_cpu or x.is_meta or x.is_cuda):
            return f"a tensor is on {x.device}, nested or sparse"
        if x.is_cpu is not query.is_cpu or (x.is_cuda and x.device != query.device):
            return f"its tensors are on {query.device} and {x.device}"
    if query.dtype not in FLOAT_DTYPES or query.dtype is not key.dtype or query.dtype is not value.dtype:
        return f"its dtypes are {query.dtype}, {key.dtype} and {value.dtype}"
    if is_causal and attn_mask is not None:
        return "is_causal and attn_mask exclude each other"
    if attn_mask is not None and attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        return f"its attn_mask has dtype {attn_mask.dtype}"
    if not (isinstance(dropout_p, (int, float)) and 0 <= dropout_p <= 1):
        return f"dropout_p={dropout_p} is not in [0, 1]"
    if min(query.dim(), key.dim(), value.dim()) < 2 or query.shape[-1] == 0 or value.shape[-1] == 0:
        return "an operand has no dim"
    if attn_mask is not None and not mask_broadcasts(attn_mask, query, key, value):
        shapes = tuple(attn_mask.shape), tuple(query.shape), tuple(key.shape)
        return f"an attn_mask of shape {shapes[0]} does not fit queries {shapes[1]} and keys {shapes[2]}"
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        heads = {x.shape[-3] if x.dim() > 2 else 1 for x in ((key, value) if enable_gqa else (query, key, value))} - {1}
        if len(heads) > 1:
            return "heads of keys and values differ"
    return left_to_torch(query, key, value, attn_mask, dropout_p) if query.is_cuda else None


def mask_broadcasts(attn_mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a mask broadcasts to the scores without enlarging them."""
    equal_leads = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    try:
        lead = query.shape[:-2] if equal_leads else lead_of(query, key, value)
    except ShapeError:
        return False
    scores, shape = (*lead, query.shape[-2], key.shape[-2]), attn_mask.shape
    return 2 <= len(shape) <= len(scores) and all(a in (1, b) for a, b in zip(shape[::-1], scores[::-1], strict=False))


def warn_of_fallback(why: str) -> None:
    """Warn once per reason."""
    if why not in warned_reasons and not torch.compiler.is_compiling():
        warned_reasons.add(why)
        warnings.warn(f"clearhead leaves this scaled_dot_product_attention to torch: {why}.", stacklevel=3)


def mask_rule(attn_mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> tuple[str, tuple[torch.Tensor, ...]]:
    """The name of a mask's rule, and the mask with the four axes that the rule reads."""
    table = attn_mask[(None,) * (4 - attn_mask.dim())] if attn_mask.dim() < 4 else attn_mask
    if table.dim() > 4:  # batches count over all leading axes
        lead = torch.broadcast_shapes(table.shape[:-3], query.shape[:-3], key.shape[:-3])
        table = table.expand(*lead, *table.shape[-3:]).flatten(0, -4)
    elif query.dim() > 4:
        lead = torch.broadcast_shapes((table.shape[0],), query.shape[:-3], key.shape[:-3])
        table = table if table.shape[0] == 1 else table.expand(*lead, *table.shape[1:]).flatten(0, -4)
    axes = "".join(["1" if n == 1 else "n" for n in table.shape])
    return (HIDING if table.dtype is torch.bool else ADDING)[axes], (table,)


def table_element(axes: str, kind: Kind) -> Expression:
    """An element of the first table by batch, head, row and key; axes of 1 broadcast."""
    zero = Expression("constant", "int", value=0)
    names = ("batch", "head", "row", "key")
    indices = tuple(zero if n == "1" else Expression(name, "int") for name, n in zip(names, axes, strict=True))
    return Expression("load", kind, indices, array=0)


def table_rule(axes: str, adds: bool) -> str:
    """A rule that adds a table to scores, or hides pairs where it is False."""
    if not adds:
        return join_rule((), Formula(table_element(axes, "bool")), None)[0].name
    total = Expression("add", "float", (Expression("score", "float"), table_element(axes, "float")))
    return join_rule((), None, Formula(total))[0].name


ADDING, HIDING = ({"".join(n): table_rule("".join(n), adds) for n in product("1n", repeat=4)} for adds in (True, False))


class patch(ContextDecorator):  # noqa: N801
    """Replace `torch.nn.functional.scaled_dot_product_attention` with clearhead's temporarily.

    A reusable context manager and decorator. It affects all threads and restores torch's function afterwards. If
    another function has replaced torch's, such as that of `context_parallel`, which computes over all ranks, entering
    raises InputError. torch's modules call the function in evaluation too, since their fused paths are off meanwhile
    (`torch.backends.mha`). It does not affect code that imported torch's function by name before, nor
    `nn.MultiheadAttention` where weights are asked for, as by default: that calls no such function.

    >>> with patch():
    ...     torch.nn.functional.scaled_dot_product_attention is scaled_dot_product_attention
    True
    >>> torch.nn.functional.scaled_dot_product_attention is scaled_dot_product_attention
    False
    """

    lock = threading.RLock()  # a signal handler may enter patch() in between
    within: ClassVar[list[Any]] = []  # active patches, updated before the function is replaced
    fused: ClassVar[list[bool]] = []  # whether torch's modules had their fused paths, while they are off

    def __enter__(self) -> None:
        with self.lock:
            self.within.append(self)
            current = in_place()
            if current is torchs_own:
                put(scaled_dot_product_attention)
                if not self.fused:
                    self.fused.append(torch.backends.mha.get_fastpath_enabled())
                torch.backends.mha.set_fastpath_enabled(False)
            elif current is not scaled_dot_product_attention:
                self.within.pop()
                name = f"{getattr(current, '__module__', '')}.{getattr(current, '__qualname__', repr(current))}"
                raise InputError(
                    f"patch() would undo {name}, which has replaced torch's scaled_dot_product_attention, as inside "
                    "context_parallel: enter patch() earlier, or leave one of them out."
                )

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.within.pop()
            if self.within:
                return
            if in_place() is scaled_dot_product_attention:
                put(torchs_own)
            with suppress(IndexError):  # a signal handler has left a patch in between
                torch.backends.mha.set_fastpath_enabled(self.fused.pop())


def in_place() -> Any:
    """The function that torch's name stands for, whoever watches its calls."""
    found = functional.scaled_dot_product_attention
    return found.original if isinstance(found, Intercepted) else found


def put(function: Any) -> None:
    """Let torch's name stand for a function."""
    found = functional.scaled_dot_product_attention
    if isinstance(found, Intercepted):
        found.original = function
    else:
        functional.scaled_dot_product_attention = function


def unlock() -> None:
    """Replace the lock in a forked child, where its owner may not exist."""
    patch.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=unlock)
