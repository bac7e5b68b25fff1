"""transformers models on clearhead's kernels: what stands behind `attn_implementation="clearhead"`.

Decides what a model's options mean, and which way a call goes: by the kernels straight into the model's memory, or by
torch's operator, which all that differentiates, traces or maps a model knows. Who sees whom is read by `mask`; a batch
is put together by `batch`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.autograd import forward_ad
from transformers.utils import output_capturing

from clearhead.adapters.torch import dispatch, operator
from clearhead.adapters.torch.host import DTYPES, view
from clearhead.adapters.torch.weighed import Weighed
from clearhead.adapters.torch.weights import weights_of
from clearhead.adapters.transformers.batch import Asked, by_kernel, by_operator, rule_for
from clearhead.adapters.transformers.mask import ALL, MaskTensor, Part
from clearhead.arrays import Array
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.rules.masks import Mask, causal, full, window

NAME = "clearhead"
STRANGE = ("sinks", "block_indices")  # options of a few models that change what a layer computes


@dataclass(frozen=True, eq=False)
class Call:
    """One layer's attention as it was computed: arrays are views of the model's tensors."""

    module: torch.nn.Module
    query: Array  # (batch, heads, queries, dim)
    key: Array  # (batch, key heads, keys, dim), of a static cache only those that are filled
    value: Array
    asked: Asked
    lse: Array
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # query, key and value as the model gave them
    given: dict[str, Any]  # and its options


class Listener(Protocol):
    """Who wants to know what layers compute."""

    def wants(self, module: torch.nn.Module) -> bool:
        """Whether it listens to a layer."""

    def __call__(self, call: Call) -> None:
        """Take in a call."""


listeners: list[Listener] = []


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What transformers calls for each layer: query (batch, heads, n, dim); gives (batch, n, heads, dim) and weights.

    The weights are a lazy tensor, given only where `output_attentions=True` asks for them. Raises InputError,
    ShapeError or DtypeError for what clearhead cannot do.
    """
    tensors = query, key, value
    operator.check_ranks()
    query, key, value = operator.narrowed(query, key, value)
    check(query, key, value, kwargs)
    pattern, hides, adds = None, None, () if position_bias is None else (position_bias,)
    if position_bias is not None:
        fits("position_bias", position_bias, position_bias, query, key)
    if isinstance(attention_mask, MaskTensor) and not attention_mask.changed:
        pattern = attention_mask.pattern
        key, value = key[:, :, : pattern.stop], value[:, :, : pattern.stop]
    elif attention_mask is not None:
        hides, more = table_of(attention_mask, query, key)
        adds = (*adds, *more)
    if kwargs.get("indices") is not None:
        hides = among(kwargs["indices"], key.shape[2], hides)
    if pattern is not None:
        parts = pattern.parts
    else:
        mask = full() if attention_mask is not None else own_mask(module, query, key, is_causal, sliding_window)
        parts = (Part(ALL, ALL, ALL, mask),)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    asked = Asked(parts, pattern, hides, adds, softcap, scale, s_aux, dropout)
    heard = [listener for listener in listeners if listener.wants(module)]
    wants_weights, weights = bool(kwargs.get("output_attentions")) or collects_weights(), None
    if plain(query, key, value, asked):
        output, lse = by_kernel(query, key, value, asked, bool(wants_weights or heard))
    elif (
        wants_weights and not dropout and not dispatch.followed() and dispatch.numeric(asked.tensors(query, key, value))
    ):
        output, lse, weights = with_weights(query, key, value, asked)
    else:
        output, lse = by_operator(query, key, value, asked)
    if heard:
        given = {"scaling": scaling, "softcap": softcap, "s_aux": s_aux, "sliding_window": sliding_window}
        tell(heard, module, (query, key, value), asked, lse, tensors, given)
    if wants_weights and weights is None:
        weights = weights_alone(query, key, asked, None if lse is None else lse.detach())
    return output, weights


def weights_alone(query: torch.Tensor, key: torch.Tensor, asked: Asked, lse: torch.Tensor | None) -> torch.Tensor:
    """The weights of a layer, which its output does not know of."""
    rule, tables = rule_for(asked, Part(ALL, ALL, ALL, asked.whole))
    held = key.clone()  # a static cache is written on
    return weights_of(query, held, tables, asked.sink, rule, asked.scale, lse)


def with_weights(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: Asked
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, LSE and weights, which stand between the operands and the output for whoever differentiates."""
    weights: Any = weights_alone(query, key, asked, None)
    found: list[torch.Tensor] = []

    def compute(v: torch.Tensor, q: torch.Tensor, k: torch.Tensor, sink: Any, *tables: torch.Tensor) -> torch.Tensor:
        adds = tables[len(tables) - len(asked.adds) :]
        output, lse = by_operator(q, k, v, replace(asked, sink=sink, adds=adds))
        found.append(lse.detach())
        return output.transpose(1, 2)

    output = Weighed.apply(compute, weights, value, *weights.origin.operands).transpose(1, 2)
    weights.origin.lse = found[0]
    return output, found[0], weights


def check(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> None:
    """What no way can do."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        if not (x.is_cpu or x.is_meta or dispatch.followed()) and type(x) in dispatch.PLAIN:
            raise InputError(f"{name} of shape {tuple(x.shape)} is on {x.device}: move the model by model.cpu().")
    if query.dtype not in DTYPES or not query.dtype is key.dtype is value.dtype:
        raise DtypeError(
            f"query, key and value are {query.dtype}, {key.dtype} and {value.dtype}: cast the model to one dtype, as "
            "by model.float(), or run it under torch.autocast('cpu')."
        )
    for name in STRANGE:
        if options.get(name) is not None:
            raise InputError(
                f"this model's layers compute with {name}, which clearhead's attention does not know: use "
                "attn_implementation='eager' for it."
            )


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: Asked) -> bool:
    """Whether numbers are all that is wanted: then kernels write them where they belong."""
    tensors = asked.tensors(query, key, value)
    if asked.dropout or dispatch.followed() or dispatch.listened(tensors) or forward_ad._current_level >= 0:
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def table_of(
    mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
    """A mask that is a table, of four axes: what it hides, or adds."""
    table = mask.dense() if isinstance(mask, MaskTensor) else mask
    if table.dtype is not torch.bool and not table.is_floating_point():
        raise DtypeError(
            f"attention_mask of shape {tuple(table.shape)} is {table.dtype}: give torch.bool, True where a key is "
            "seen, as by mask.bool(), or floats, which are added to the scores."
        )
    table = table[(None,) * (4 - table.dim())][..., : key.shape[2]]
    fits("attention_mask", mask, table, query, key)
    return (table, ()) if table.dtype is torch.bool else (None, (table,))


def fits(name: str, given: torch.Tensor, table: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> None:
    """Raise ShapeError for a table that has no number for each score."""
    wanted = (*query.shape[:3], key.shape[2])
    if table.dim() != 4 or any(n not in (1, size) for n, size in zip(table.shape, wanted, strict=True)):
        raise ShapeError(
            f"{name} has shape {tuple(given.shape)}: give (batch, heads, queries, keys) = {wanted}, each of that size "
            "or 1."
        )


def among(indices: torch.Tensor, keys: int, hides: torch.Tensor | None) -> torch.Tensor:
    """What is seen where a model chose keys for each query, (batch, queries, some)."""
    chosen = indices.new_zeros((*indices.shape[:2], keys), dtype=torch.bool).scatter(-1, indices.long(), True)[:, None]
    return chosen if hides is None else hides & chosen


def own_mask(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, is_causal: bool | None, sliding_window: int | None
) -> Mask:
    """The mask of a layer that was given none."""
    queries, keys = query.shape[2], key.shape[2]
    causally = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causally or queries == 1:
        return full()
    if queries != keys:
        raise InputError(f"{queries} queries and {keys} keys came without a mask: pass the model an attention_mask.")
    return causal() if sliding_window is None else window(sliding_window - 1)


def tell(
    heard: list[Listener],
    module: torch.nn.Module,
    operands: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    asked: Asked,
    lse: torch.Tensor | None,
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    given: dict[str, Any],
) -> None:
    """Let listeners know of a call."""
    if lse is None or dispatch.followed() or not dispatch.numeric([x.detach() for x in (*operands, lse)]):
        raise InputError(
            f"{type(module).__name__} is traced, mapped or run without numbers, and a watch records numbers: call the "
            "model itself inside the with block."
        )
    q, k, v = (view(x) for x in operands)
    call = Call(module, q, k, v, asked, view(lse), tensors, given)
    for listener in heard:
        listener(call)


def collects_weights() -> bool:
    """Whether transformers collects attentions now: some models (GPT-2) do not hand `output_attentions` down."""
    collector = getattr(output_capturing, "_active_collector", None)
    return collector is not None and "attentions" in (collector.get() or ())
