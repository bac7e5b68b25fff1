"""torch's `scaled_dot_product_attention` on clearhead's kernels, and the switch that puts it in torch's place.

Decides what torch's arguments mean here, and which calls are handed back to torch: those it must refuse in its own
words, and those whose tensors lie elsewhere.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from contextlib import ContextDecorator
from itertools import product
from typing import Any, ClassVar

import torch
from torch.nn import functional
from torch.nn.attention.bias import CausalBias, CausalVariant
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from clearhead.adapters.torch.dispatch import PLAIN
from clearhead.adapters.torch.dropout import attend_dropped
from clearhead.adapters.torch.host import DTYPES, lead_of
from clearhead.adapters.torch.jagged import attend_jagged, mask_over
from clearhead.adapters.torch.operator import OWN, attend
from clearhead.adapters.torch.rule_names import divided, joined
from clearhead.errors import InputError, ShapeError
from clearhead.rules.expression import Expression, Formula, Kind
from clearhead.rules.masks import causal, full

torchs_own = OWN
FULL = divided(full(), ())[0].name
CAUSAL = divided(causal(align="start"), ())[0].name
CAUSAL_AT_END = divided(causal(align="end"), ())[0].name
told: set[str] = set()


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
    """Attention as `torch.nn.functional.scaled_dot_product_attention` means it, on clearhead's kernels.

    Shapes (..., heads, n, dim), (..., heads, m, dim) and (..., heads, m, value_dim) give (..., heads, n, value_dim).
    `is_causal` aligns queries with the first keys; `attn_mask` (bool: True is seen; float: added) broadcasts to
    (..., heads, n, m) and may have a gradient; `enable_gqa` lets query heads share key heads. `dropout_p` draws a seed
    from torch's generator; what it drops depends on that seed and on positions alone, at any number of threads. Calls
    that clearhead cannot answer (tensors on other devices, arguments that torch refuses) go to torch's own function,
    and a warning says so once for each reason.

    >>> x = torch.eye(2).reshape(1, 1, 2, 2)
    >>> scaled_dot_product_attention(x, x, x, is_causal=True, scale=1.0)[0, 0].round(decimals=3)
    tensor([[1.0000, 0.0000],
            [0.2690, 0.7310]])
    """
    if has_torch_function((query, key, value, attn_mask)):
        output: torch.Tensor = overridden(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return output
    why = reason(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    if why is not None:
        tell(why)
        return torchs_own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    rule = CAUSAL if is_causal else FULL
    tables: tuple[torch.Tensor, ...] = ()
    if attn_mask is not None:
        rule, tables = masked(attn_mask, query, key)
    return attended(query, key, value, tables, rule, scale, dropout_p)


def attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tables: tuple[torch.Tensor, ...],
    rule: str,
    scale: float | None,
    dropout_p: float,
) -> torch.Tensor:
    """The output, with torch's default for the scale."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if dropout_p:
        return attend_dropped(query, key, value, tables, None, rule, factor, dropout_p)[0]
    return attend(query, key, value, tables, None, rule, factor)[0]


def overridden(
    query: Any, key: Any, value: Any, attn_mask: Any, dropout_p: float, is_causal: bool, **options: Any
) -> Any:
    """A call with operands of classes that have a say: torch's causal masks and nested tensors are known, others asked.

    Those that know torch's own function alone are handed to it.
    """
    operands = query, key, value, attn_mask
    if any(isinstance(x, torch.Tensor) and x.is_nested for x in operands):
        return over_nested(*operands, dropout_p, is_causal, **options)
    if not isinstance(attn_mask, CausalBias) or has_torch_function(operands[:3]):
        return handle_torch_function(scaled_dot_product_attention, operands, *operands, dropout_p, is_causal, **options)
    lengths = attn_mask.seq_len_q, attn_mask.seq_len_kv
    why = reason(query, key, value, None, dropout_p, is_causal, options["enable_gqa"])
    if why is not None or is_causal or lengths != (query.shape[-2], key.shape[-2]):
        return CausalBias._dispatch(*operands, dropout_p, is_causal, **options)
    rule = CAUSAL if attn_mask.variant == CausalVariant.UPPER_LEFT else CAUSAL_AT_END
    return attended(query, key, value, (), rule, options["scale"], dropout_p)


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
    """Sequences of different lengths, each alone."""
    alike = query.dtype in DTYPES and query.dtype is key.dtype is value.dtype and 0 <= dropout_p <= 1
    mask = causal() if is_causal else full()
    over = mask_over(mask, query, key, value) if alike and attn_mask is None else None
    if over is None or not (enable_gqa or query.shape[1] == key.shape[1] == value.shape[1]):
        tell("a tensor is nested, and has a mask, or other keys than values, or gaps")
        return torchs_own(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return attend_jagged(query, key, value, over, factor, dropout_p)[0]


def reason(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
    dropout_p: float,
    is_causal: bool,
    enable_gqa: bool,
) -> str | None:
    """Why a call goes to torch; None if it need not."""
    for x in (query, key, value, query if attn_mask is None else attn_mask):
        if not isinstance(x, torch.Tensor):
            return f"an operand is {type(x).__name__}"
        if type(x) not in PLAIN and is_traceable_wrapper_subclass(x):
            return f"a tensor is a {type(x).__name__}, which knows torch's function alone"
        if x.layout is not torch.strided or x.is_nested or not (x.is_cpu or x.is_meta):
            return f"a tensor is on {x.device}, nested or sparse"
        if x.is_cpu is not query.is_cpu:
            return f"its tensors are on {query.device} and {x.device}"
    if query.dtype not in DTYPES or query.dtype is not key.dtype or query.dtype is not value.dtype:
        return f"its dtypes are {query.dtype}, {key.dtype} and {value.dtype}"
    if is_causal and attn_mask is not None:
        return "is_causal and attn_mask exclude each other"
    if attn_mask is not None and attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        return f"its attn_mask is of {attn_mask.dtype}"
    if not (isinstance(dropout_p, int | float) and 0 <= dropout_p <= 1):
        return f"dropout_p={dropout_p} is no probability"
    if min(query.dim(), key.dim(), value.dim()) < 2 or query.shape[-1] == 0 or value.shape[-1] == 0:
        return "an operand has no dim"
    if attn_mask is not None and not fits(attn_mask, query, key, value):
        shapes = tuple(attn_mask.shape), tuple(query.shape), tuple(key.shape)
        return f"an attn_mask of shape {shapes[0]} does not fit queries {shapes[1]} and keys {shapes[2]}"
    if query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return None
    heads = {x.shape[-3] if x.dim() > 2 else 1 for x in ((key, value) if enable_gqa else (query, key, value))} - {1}
    return "heads of keys and values differ" if len(heads) > 1 else None


def fits(attn_mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a mask broadcasts to the scores, and no further."""
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    try:
        lead = query.shape[:-2] if alike else lead_of(query, key, value)
    except ShapeError:
        return False
    scores, own = (*lead, query.shape[-2], key.shape[-2]), attn_mask.shape
    return 2 <= len(own) <= len(scores) and all(a in (1, b) for a, b in zip(own[::-1], scores[::-1], strict=False))


def tell(why: str) -> None:
    """Warn once of each reason."""
    if why not in told and not torch.compiler.is_compiling():
        told.add(why)
        warnings.warn(f"clearhead hands scaled_dot_product_attention to torch: {why}.", stacklevel=3)


def masked(attn_mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> tuple[str, tuple[torch.Tensor, ...]]:
    """The rule of a mask, and the mask with the four axes that the rule reads."""
    table = attn_mask[(None,) * (4 - attn_mask.dim())] if attn_mask.dim() < 4 else attn_mask
    if table.dim() > 4:  # batches count over all leading axes
        lead = torch.broadcast_shapes(table.shape[:-3], query.shape[:-3], key.shape[:-3])
        table = table.expand(*lead, *table.shape[-3:]).flatten(0, -4)
    elif query.dim() > 4:
        lead = torch.broadcast_shapes((table.shape[0],), query.shape[:-3], key.shape[:-3])
        table = table if table.shape[0] == 1 else table.expand(*lead, *table.shape[1:]).flatten(0, -4)
    axes = "".join(["1" if n == 1 else "n" for n in table.shape])
    return (HIDING if table.dtype is torch.bool else ADDING)[axes], (table,)


def loaded(axes: str, kind: Kind) -> Expression:
    """What the first table holds by batch, head, row and key; at axes of 1, always the first."""
    zero = Expression("constant", "int", value=0)
    names = ("batch", "head", "row", "key")
    places = tuple(zero if n == "1" else Expression(name, "int") for name, n in zip(names, axes, strict=True))
    return Expression("load", kind, places, array=0)


def table_rule(axes: str, adds: bool) -> str:
    """A rule that reads a table, to add it to scores or to hide where it is False."""
    if not adds:
        return joined((), Formula(loaded(axes, "bool")), None)[0].name
    total = Expression("add", "float", (Expression("score", "float"), loaded(axes, "float")))
    return joined((), None, Formula(total))[0].name


ADDING, HIDING = ({"".join(n): table_rule("".join(n), adds) for n in product("1n", repeat=4)} for adds in (True, False))


class patch(ContextDecorator):  # noqa: N801
    """Put clearhead's attention in the place of `torch.nn.functional.scaled_dot_product_attention`, for a while.

    A context manager and a decorator, which may be used again and again; it holds for all threads, and torch's function
    comes back. Where another one stands in its place, as `context_parallel`'s, which computes over all ranks, entering
    raises InputError. Code that took torch's function by name before, and modules' own fast paths
    (`nn.MultiheadAttention` in evaluation mode), are not reached.

    >>> with patch():
    ...     torch.nn.functional.scaled_dot_product_attention is scaled_dot_product_attention
    True
    >>> torch.nn.functional.scaled_dot_product_attention is scaled_dot_product_attention
    False
    """

    lock = threading.RLock()  # a signal handler may patch, too, in the middle of this
    within: ClassVar[list[Any]] = []  # who has entered: written before and read after, so that it holds at any point

    def __enter__(self) -> None:
        with self.lock:
            self.within.append(self)
            there = functional.scaled_dot_product_attention
            if there is torchs_own:
                functional.scaled_dot_product_attention = scaled_dot_product_attention
            elif there is not scaled_dot_product_attention:
                self.within.pop()
                name = f"{getattr(there, '__module__', '')}.{getattr(there, '__qualname__', repr(there))}"
                raise InputError(
                    f"patch() would undo {name}, which stands in the place of torch's scaled_dot_product_attention, as "
                    "inside context_parallel: enter patch() before that, or leave one of them out."
                )

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.within.pop()
            if not self.within and functional.scaled_dot_product_attention is scaled_dot_product_attention:
                functional.scaled_dot_product_attention = torchs_own


def unlock() -> None:
    """In a forked child, whoever held the lock is no more."""
    patch.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=unlock)
