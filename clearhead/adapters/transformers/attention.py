"""transformers models on clearhead's kernels: what stands behind `attn_implementation="clearhead"`.

Decides how a model's tensors become arrays (views, never copies) and its options rules; who sees whom is read by
`mask`. No mask is ever a table: what the model passes from layer to layer is one byte that carries a
`Pattern`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.utils import output_capturing

from clearhead.adapters.transformers.mask import ALL, Part, Pattern
from clearhead.attention import Attended, attend, attention
from clearhead.errors import DtypeError, InputError
from clearhead.machine.threads import allowed
from clearhead.problem import Array
from clearhead.rules import scores
from clearhead.rules.masks import Mask, causal, dense, full, window
from clearhead.rules.scores import Score
from clearhead.weights import Weights, weights

NAME = "clearhead"


class MaskTensor(torch.Tensor):  # type: ignore[misc]
    """One False that stands for a mask of any size, and says in `pattern` what that would hold."""

    pattern: Pattern

    def contiguous(self, *args: Any, **kwargs: Any) -> "MaskTensor":
        """Itself: generation asks for this with a static cache, which would build the whole table."""
        return self


@dataclass(frozen=True, eq=False)
class Call:
    """One layer's attention as it was computed: arrays are views of the model's tensors."""

    module: torch.nn.Module
    query: Array  # (batch, heads, queries, dim)
    key: Array  # (batch, key heads, keys, dim), of a static cache only those that are filled
    value: Array
    mask: Mask  # for the whole batch
    pattern: Pattern | None  # where the model gave one
    score: tuple[Score, ...]
    scale: float | None
    sink: Array | None
    lse: Array
    tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # query, key and value as the model gave them
    given: dict[str, Any]  # and its options


listeners: list[Callable[[Call], None]] = []


def mask_forward(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> MaskTensor:
    """What transformers calls once for each kind of layer in a pass; (batch, 1, queries, keys) in one byte."""
    from transformers.masking_utils import causal_mask_function

    padding = None if attention_mask is None else attention_mask.numpy().astype(bool)
    room = torch.zeros((), dtype=torch.bool).expand(batch_size, 1, q_length, kv_length)
    mask: MaskTensor = room.as_subclass(MaskTensor)
    mask.pattern = Pattern(
        batch_size, q_length, kv_length, int(q_offset), int(kv_offset), mask_function or causal_mask_function, padding
    )
    return mask


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
) -> tuple[torch.Tensor, Weights | None]:
    """What transformers calls for each layer: query (batch, heads, n, dim); gives (batch, n, heads, dim) and weights.

    The weights are lazy, and given only where `output_attentions=True` asks for them. Raises InputError or DtypeError
    for what clearhead cannot do.
    """
    if dropout:
        raise InputError(
            f"attention dropout {dropout} is not known to clearhead: set config.attention_dropout = 0.0 (GPT-2: "
            "attn_pdrop), or call model.eval()."
        )
    q, k, v = as_numpy(query, "query"), as_numpy(key, "key"), as_numpy(value, "value")
    pattern = getattr(attention_mask, "pattern", None)
    score = score_rules(softcap, position_bias)
    if pattern is not None:
        k, v = k[:, :, : pattern.stop], v[:, :, : pattern.stop]
        parts = pattern.parts
    else:
        mask, more = plain_mask(module, attention_mask, q, k, is_causal, sliding_window)
        score, parts = score + more, (Part(ALL, ALL, ALL, mask),)
    sink = None if s_aux is None else as_numpy(s_aux.float() if s_aux.dtype != query.dtype else s_aux, "s_aux")
    wants_weights = kwargs.get("output_attentions") or collects_weights()
    asked = Asked(parts, score, scaling, sink)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (query, key, value, s_aux)):
        output, done = Differentiable.apply(query, key, value, s_aux, asked)
    else:
        output, done = computed(query, (q, k, v), asked, bool(wants_weights or listeners))
    if not wants_weights and not listeners:
        return output, None
    lse = joined_lse(q, parts, done)
    mask = parts[0].mask if pattern is None else pattern.whole
    given = {"scaling": scaling, "softcap": softcap, "s_aux": s_aux, "sliding_window": sliding_window}
    call = Call(module, q, k, v, mask, pattern, score, scaling, sink, lse, (query, key, value), given)
    for listener in listeners:
        listener(call)
    if not wants_weights:
        return output, None
    held = k.copy()  # a static cache is written on
    return output, weights(q, held, mask=mask, score=score, scale=scaling, sink=sink, lse=lse)


@dataclass(frozen=True, eq=False)
class Asked:
    """What is done to a layer's queries, keys and values."""

    parts: tuple[Part, ...]
    score: tuple[Score, ...]
    scale: float | None
    sink: Array | None


def computed(
    query: torch.Tensor, operands: tuple[Array, Array, Array], asked: Asked, wants_more: bool
) -> tuple[torch.Tensor, list[Attended]]:
    """The output as transformers wants it, (batch, n, heads, dim), written there by the kernel; and the parts' more."""
    q, k, v = operands
    batch, heads, queries, _ = q.shape
    make = torch.empty if covered(asked.parts, batch, queries) else torch.zeros
    output = make((batch, queries, heads, v.shape[-1]), dtype=query.dtype)
    out = as_numpy(output, "output").transpose(0, 2, 1, 3)
    rules: dict[str, Any] = {"score": asked.score, "sink": asked.sink, "scale": asked.scale}
    rules["threads"] = min(torch.get_num_threads(), allowed())
    done = []
    for part in asked.parts:
        x, y, z = q[part.batch, :, part.queries], k[part.batch, :, part.keys], v[part.batch, :, part.keys]
        to = out[part.batch, :, part.queries]
        if wants_more:
            done.append(attend(x, y, z, mask=part.mask, out=to, **rules))
        else:
            attention(x, y, z, mask=part.mask, out=to, **rules)
    return output, done


def joined_lse(q: Array, parts: tuple[Part, ...], done: list[Attended]) -> Array:
    """The LSE of all queries, (batch, heads, n): −∞ for those that no part has."""
    lse = np.full(q.shape[:-1], -np.inf, np.float64 if q.dtype == np.float64 else np.float32)
    for part, attended in zip(parts, done, strict=True):
        lse[part.batch, :, part.queries] = attended.lse
    return lse


class Differentiable(torch.autograd.Function):  # type: ignore[misc]
    """Attention with gradients of query, key, value and sink, which clearhead computes in O(n) memory."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        s_aux: torch.Tensor | None,
        asked: Asked,
    ) -> tuple[torch.Tensor, list[Attended]]:
        """As `computed`, and keeps what the gradients need."""
        operands = as_numpy(query, "query"), as_numpy(key, "key"), as_numpy(value, "value")
        output, done = computed(query, operands, asked, True)
        ctx.save_for_backward(query, key, value, output)  # torch sees if one of them is written to
        ctx.asked, ctx.done, ctx.sink_dtype = asked, done, None if s_aux is None else s_aux.dtype
        return output, done

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, d_output: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        """Each part's gradients, in their places."""
        gradients = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in ctx.saved_tensors[:3]]
        d_q, d_k, d_v = (as_numpy(x, "gradient") for x in gradients)
        d_out, d_sink = as_numpy(d_output, "d_output").transpose(0, 2, 1, 3), None
        for part, attended in zip(ctx.asked.parts, ctx.done, strict=True):
            found = attended.backward(d_out[part.batch, :, part.queries], rules=False)
            d_q[part.batch, :, part.queries] += found.q
            d_k[part.batch, :, part.keys] += found.k
            d_v[part.batch, :, part.keys] += found.v
            if found.sink is not None:
                d_sink = found.sink if d_sink is None else d_sink + found.sink
        sink = None if d_sink is None else torch.from_numpy(d_sink).to(ctx.sink_dtype)
        return (*gradients, sink, None)


def covered(parts: tuple[Part, ...], batch: int, queries: int) -> bool:
    """Whether each query of each sequence is in some part."""
    sizes = (len(range(*part.batch.indices(batch))) * len(range(*part.queries.indices(queries))) for part in parts)
    return sum(sizes) == batch * queries


def collects_weights() -> bool:
    """Whether transformers collects attentions now: some models (GPT-2) do not hand `output_attentions` down."""
    collector = getattr(output_capturing, "_active_collector", None)
    return collector is not None and "attentions" in (collector.get() or ())


def as_numpy(tensor: torch.Tensor, name: str) -> Array:
    """A tensor's own memory as an array."""
    if tensor.device.type != "cpu":
        raise InputError(f"{name} of shape {tuple(tensor.shape)} is on {tensor.device}: move the model by model.cpu().")
    tensor = tensor.detach()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()  # type: ignore[no-any-return]
    try:
        import ml_dtypes
    except ImportError:
        raise DtypeError(
            f"{name} of shape {tuple(tensor.shape)} is bfloat16, which numpy alone does not know: install ml_dtypes, "
            "or load the model with dtype=torch.float32."
        ) from None
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)  # type: ignore[no-any-return]


def score_rules(softcap: float | None, position_bias: torch.Tensor | None) -> tuple[Score, ...]:
    """What a model does to scores beside scaling, in its order."""
    rules: list[Score] = [] if softcap is None else [scores.softcap(softcap)]
    if position_bias is not None:
        if torch.is_grad_enabled() and position_bias.requires_grad:
            raise InputError(
                f"gradients of a position_bias of shape {tuple(position_bias.shape)} are not known to this adapter: "
                "freeze it by requires_grad_(False), or train with attn_implementation='sdpa'."
            )
        rules.append(scores.bias(as_numpy(position_bias, "position_bias")))
    return tuple(rules)


def plain_mask(
    module: torch.nn.Module,
    mask: torch.Tensor | None,
    q: Array,
    k: Array,
    is_causal: bool | None,
    sliding_window: int | None,
) -> tuple[Mask, tuple[Score, ...]]:
    """The mask of a model that brings its own table or none, and the scores' bias if the table is of numbers."""
    queries, keys = q.shape[2], k.shape[2]
    if isinstance(mask, MaskTensor):
        raise InputError(
            f"this model has changed the mask of shape {tuple(mask.shape)} that clearhead described by a formula: use "
            "attn_implementation='sdpa' for it."
        )
    if mask is not None:
        table = as_numpy(mask, "attention_mask")[..., :keys]
        return (dense(table), ()) if table.dtype == np.bool_ else (full(), (scores.bias(table),))
    causally = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causally or queries == 1:
        return full(), ()
    if queries != keys:
        raise InputError(f"{queries} queries and {keys} keys came without a mask: pass the model an attention_mask.")
    return causal() if sliding_window is None else window(sliding_window - 1), ()
