"""clearhead's own contenders, on one thread unless said otherwise."""

from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead import attend, attention
from clearhead.arrays import Array
from clearhead.cli.race import Contender


def forward(*operands: Any, threads: int = 1, **rules: Any) -> Contender:
    """`attention` of q, k and v, or of q and a cache."""

    def call() -> Array:
        return attention(*operands, threads=threads, **rules)

    return Contender(call, lambda y: np.asarray(y, np.float32) if y.dtype.itemsize == 2 else y)


def gradients(q: Array, k: Array, v: Array, d_out: Array, *, threads: int = 1, **rules: Any) -> Contender:
    """`attend` and its `backward`; the answer is dQ, dK and dV, stacked."""

    def call() -> Any:
        return attend(q, k, v, threads=threads, **rules).backward(d_out)

    return Contender(call, lambda d: np.stack([np.asarray(x, np.float32) for x in (d.q, d.k, d.v)]))


def asked(q: Array, k: Array, v: Array, use: Callable[[Any], Any], read: Callable[[Any], Array]) -> Contender:
    """`attend`, and what is made of its result: `use(attended)`."""
    return Contender(lambda: use(attend(q, k, v, threads=1)), read)
