"""JAX: `jax.nn.dot_product_attention` compiled by XLA ahead of its first call, and its gradients."""

import numpy as np

from bench.peers.layout import heads_first, positions_first
from clearhead.arrays import Array
from clearhead.cli.race import Contender


def attention(q: Array, k: Array, v: Array, *, causal: bool = True) -> Contender:
    """Forward."""
    import jax

    arrays = [jax.numpy.asarray(positions_first(x)) for x in (q, k, v)]
    attend = jax.jit(lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal)).lower(*arrays).compile()
    return Contender(lambda: attend(*arrays).block_until_ready(), lambda y: heads_first(y, q.shape[-1]))


def gradients(q: Array, k: Array, v: Array, d_out: Array) -> Contender:
    """Forward and backward; the answer is dQ, dK and dV, stacked."""
    import jax

    def both(q, k, v, grad):
        return jax.vjp(lambda *x: jax.nn.dot_product_attention(*x, is_causal=True), q, k, v)[1](grad)

    arrays = [jax.numpy.asarray(positions_first(x)) for x in (q, k, v, d_out)]
    compiled = jax.jit(both).lower(*arrays).compile()
    return Contender(
        lambda: jax.block_until_ready(compiled(*arrays)),
        lambda answer: np.stack([heads_first(x, q.shape[-1]) for x in answer]),
    )
