"""`clearhead.watch`: record a model's attention while it runs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from clearhead.errors import InputError
from clearhead.observing import observing
from clearhead.watched.seen import Watch


@contextmanager
def watch(
    model: Any,
    *,
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
    parts: Sequence[str] | None = None,
    memory: int = 1 << 30,
    tokenizer: Any = None,
) -> Iterator[Watch]:
    """Record a PyTorch model's attention while it runs inside the block, so that any weight can be read later.

    The model computes its attention as always, on its own device; its output does not change by a bit. Recorded are
    queries, keys and values where it calls transformers' attention interface, `scaled_dot_product_attention`,
    `flex_attention` or `nn.MultiheadAttention`: per layer, sequence and token, d numbers for the query of each watched
    head, d and dv for each of their key heads, in the model's dtype. `memory` bounds the total bytes: a text that would
    exceed it raises InputError in its first layer; if a generated one does later, recording stops with a warning.
    `layers`, `heads` and `parts` (`decoder`, `encoder`, `cross`, `vision`, …) select; None is all. `tokenizer` gives
    tokens their text.

    Some output rows of each layer are kept, too; a layer whose recorded arrays do not reproduce them raises TrustError
    instead of being shown. A model that computes attention by code of its own is refused on entering.

        with clearhead.watch(model, layers=[0, 5], memory=1 << 28) as seen:
            model.generate(**tokens, max_new_tokens=20)
        seen.layer(5).head(3).weights      # lazy, (tokens, tokens)
        seen.summary("entropy").entropy    # (layers, heads, tokens)
    """
    chosen, only = checked_numbers(layers, "layers"), checked_parts(parts)
    seen = Watch(checked_memory(memory))
    checked_heads = checked_numbers(heads, "heads")
    check_tokenizer(tokenizer)

    from clearhead.adapters.torch.attention_layers import attention_layers, refuse_missing
    from clearhead.adapters.torch.pass_hooks import passes_of
    from clearhead.adapters.torch.recording import Recorder

    found = attention_layers(model)
    refuse_missing(model, found, chosen, only)

    def wanted(part: str, number: int) -> bool:
        return (only is None or part in only) and (chosen is None or number in chosen)

    recorder = Recorder(seen, {layer.module: layer for layer in found}, wanted, checked_heads, tokenizer)
    with observing(model, recorder), passes_of(model, recorder):
        yield seen
        recorder.finish(type(model).__name__)


def checked_numbers(numbers: Any, name: str) -> tuple[int, ...] | None:
    """Check numbers of layers or heads; None stands for all."""
    if numbers is None:
        return None
    items = list(numbers) if isinstance(numbers, Iterable) and not isinstance(numbers, str | bytes) else None
    if not items or any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in items):
        raise InputError(
            f"{name}={numbers!r} must be numbers of {name}: give a list, as {name}=[0, 5], or None for all."
        )
    return tuple(dict.fromkeys(int(n) for n in items))


def checked_parts(parts: Any) -> tuple[str, ...] | None:
    """Check names of parts; None stands for all."""
    if parts is None:
        return None
    names = [parts] if isinstance(parts, str) else list(parts) if isinstance(parts, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"parts={parts!r} must be names of parts: give a list, as parts=['decoder'], or None for all.")
    return tuple(names)


def checked_memory(memory: Any) -> int:
    """Check a number of bytes."""
    if isinstance(memory, bool) or not isinstance(memory, int | float | np.number) or not 0 < memory < np.inf:
        raise InputError(f"memory={memory!r} must be a number of bytes: use memory={1 << 30} for 1 GiB.")
    return int(memory)


def check_tokenizer(tokenizer: Any) -> None:
    """Check that tokens can be given their text, before a model runs in vain."""
    if tokenizer is not None and not callable(getattr(tokenizer, "decode", None)):
        raise InputError(
            f"tokenizer={tokenizer!r} has no method decode(numbers): give the model's own, as from "
            "AutoTokenizer.from_pretrained, or None for token numbers alone."
        )
