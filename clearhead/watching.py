"""`clearhead.watch`: keep what a model's attention does, while it runs."""

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
    """Keep what is needed to look at every attention weight of a transformers model, while it runs inside the block.

    Per watched layer, sequence and token: d numbers for each watched head's query, d and dv for each key head that they
    use, 1 for the LSE. `memory` bounds the bytes of all this: what would exceed it raises InputError, the first
    layer of a prompt already for all that follow. `layers` and `heads` choose; None is all. Inside the block the model
    computes its attention by clearhead; afterwards it is as before. Some rows of each layer are computed by its
    own attention as well (the one it had, or eager), and nothing is shown that does not agree: TrustError.

        with clearhead.watch(model, layers=[0, 5], memory=1 << 28) as seen:
            model.generate(**tokens, max_new_tokens=20)
        seen.layer(5).head(3).weights      # lazy, (tokens, tokens)
        seen.summary("entropy").entropy    # (layers, heads, tokens)
    """
    seen = Watch(checked(layers, "layers"), checked(heads, "heads"), checked_memory(memory))

    from clearhead.adapters.transformers.recording import recording

    with recording(model, seen):
        yield seen


def checked(numbers: Any, name: str) -> tuple[int, ...] | None:
    """Numbers of layers or heads, or None for all."""
    if numbers is None:
        return None
    given = list(numbers) if isinstance(numbers, Iterable) and not isinstance(numbers, str | bytes) else None
    if not given or any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in given):
        raise InputError(
            f"{name}={numbers!r} are no numbers of {name}: give a list, as {name}=[0, 5], or None for all."
        )
    return tuple(int(n) for n in given)


def checked_memory(memory: Any) -> int:
    """A number of bytes."""
    if isinstance(memory, bool) or not isinstance(memory, int | float | np.number) or not 0 < memory < np.inf:
        raise InputError(f"memory={memory!r} is no number of bytes: give one, as memory={1 << 30} for 1 GiB.")
    return int(memory)
