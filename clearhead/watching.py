"""`clearhead.watch`: record a model's attention while it runs."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from clearhead.errors import InputError
from clearhead.watched.seen import Watch


@contextmanager
def watch(
    model: Any,
    *,
    layers: Iterable[int] | None = None,
    heads: Sequence[int] | None = None,
    memory: int = 1 << 30,
) -> Iterator[Watch]:
    """Record a transformers model's attention while it runs inside the block, so that any weight can be read later.

    Records per watched layer, sequence and token: d numbers for the query of each watched head, d and dv for each of
    their key heads, 1 for the LSE. `memory` bounds the total bytes; a run that would exceed it raises InputError,
    already in the first layer of a prompt. `layers` and `heads` select; None is all. Inside the block, clearhead
    computes the model's attention; afterwards the model is unchanged. Some rows of each layer are also computed by the
    model's own attention (the one it had, or eager); a layer that disagrees raises TrustError instead of being shown.

        with clearhead.watch(model, layers=[0, 5], memory=1 << 28) as seen:
            model.generate(**tokens, max_new_tokens=20)
        seen.layer(5).head(3).weights      # lazy, (tokens, tokens)
        seen.summary("entropy").entropy    # (layers, heads, tokens)
    """
    seen = Watch(checked_numbers(layers, "layers"), checked_numbers(heads, "heads"), checked_memory(memory))

    from clearhead.adapters.transformers.recording import recording

    with recording(model, seen):
        yield seen


def checked_numbers(numbers: Any, name: str) -> tuple[int, ...] | None:
    """Check numbers of layers or heads; None stands for all."""
    if numbers is None:
        return None
    items = list(numbers) if isinstance(numbers, Iterable) and not isinstance(numbers, str | bytes) else None
    if not items or any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in items):
        raise InputError(
            f"{name}={numbers!r} must be numbers of {name}: give a list, as {name}=[0, 5], or None for all."
        )
    return tuple(int(n) for n in items)


def checked_memory(memory: Any) -> int:
    """Check a number of bytes."""
    if isinstance(memory, bool) or not isinstance(memory, int | float | np.number) or not 0 < memory < np.inf:
        raise InputError(f"memory={memory!r} must be a number of bytes: use memory={1 << 30} for 1 GiB.")
    return int(memory)
